"""Which photos are for training, validation and test, where a source does not say, or says it only in part."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

SPLITS = ("train", "validation", "test")


def split_part(available: Mapping[str, int], split: str) -> tuple[str, tuple[int, ...], int]:
    """Which part of a source serves as `split`: (its name, the per cent marks where it is cut, the piece to take).

    `available` (not empty) has the number of photos in each part of the source. No marks: the whole part. Without a
    part called "train" the largest one takes its place; other parts beyond `SPLITS` are left alone.
    """
    main = max(available, key=lambda part: (part == "train", available[part]))
    held_out = [part for part in ("validation", "test") if part in available and part != main]
    piece = SPLITS.index(split)
    if not held_out:
        return main, (90, 95), piece
    if len(held_out) == 2:
        return (main if split == "train" else split), (), 0
    return (held_out[0], (), 0) if split == "test" else (main, (95,), piece)


def pieces(total: int, below: Sequence[int], title: str) -> list[slice]:
    """`total` photos cut where `below` (counts, ascending) says, the cuts moved as little as it takes to leave no piece
    empty. Raises ValueError if there are more pieces than photos; `title` names the source in it."""
    if total <= len(below):
        raise ValueError(f"{total} photos in {title} are too few to be cut into {len(below) + 1} splits")
    edges = [0]
    for left, count in zip(range(len(below), 0, -1), below, strict=True):
        edges.append(min(max(count, edges[-1] + 1), total - left))
    return [slice(*pair) for pair in zip(edges, [*edges[1:], total], strict=True)]


def names_of_split(names: Sequence[str], split: str, title: str) -> list[str]:
    """The names that belong to `split` ("all": all of them), sorted as paths.

    `names` are paths inside a folder, with slashes. If two or three of the folders train, validation and test are among
    their first parts, these are the splits; otherwise a name's split follows from a hash of the name. Raises ValueError
    if there are too few; `title` names the source in it.
    """
    paths = sorted(map(PurePosixPath, names))
    if split == "all":
        return list(map(str, paths))
    parts = {part: [path for path in paths if len(path.parts) > 1 and path.parts[0] == part] for part in SPLITS}
    parts = {part: found for part, found in parts.items() if found}
    inside = len(parts) > 1
    parts = parts if inside else {"train": paths}
    part, marks, piece = split_part({part: len(found) for part, found in parts.items()}, split)
    ranked = sorted((_position(path.relative_to(part) if inside else path), path) for path in parts[part])
    below = [sum(position < mark for position, _ in ranked) for mark in marks]
    return [str(path) for path in sorted(path for _, path in ranked[pieces(len(ranked), below, title)[piece]])]


def _position(path: PurePosixPath) -> float:
    """Where a photo stands on the scale from 0 to 100 per cent: a hash of its path inside the folder."""
    digest = hashlib.blake2b(os.fsencode(str(path)), digest_size=8).digest()
    return 100 * int.from_bytes(digest, "big") / 2**64

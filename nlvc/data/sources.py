"""Where photos come from (scikit-image's wheel, a folder, or TensorFlow Datasets), and which split holds which.

Every source is brought to the same form, a list of items to be read, which `Photos` decodes and keeps.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from nlvc.data.collection import CACHE_BYTES, Item, Photos
from nlvc.data.decode import SUFFIXES, UnreadablePhotoError, decode, size

SPLITS = ("train", "validation", "test")

# The motorcycles are a stereo pair, so they stay together; the tests are two everyday photos.
EMBEDDED = {
    "train": ("astronaut.png", "motorcycle_left.png", "motorcycle_right.png", "ihc.png", "hubble_deep_field.jpg"),
    "validation": ("rocket.jpg", "retina.jpg"),
    "test": ("chelsea.png", "coffee.png"),
}


def photos(name: str | os.PathLike, split: str, *, cache_bytes: int = CACHE_BYTES) -> Photos:
    """The photos of `split` ("train", "validation", "test", or "all" for the three together) of the source `name`:

    "embedded"            nine colour photos from scikit-image's wheel, in a fixed split of 5, 2 and 2
    a folder              its pictures and those of its subfolders (PNG, JPEG, WebP, TIFF, AVIF, ...; hidden files and
                          other suffixes are not looked at). If it has two or three of the subfolders train,
                          validation, test, these are the splits, and "all" is every picture anyway. Otherwise a
                          picture's split follows from a hash of its path inside the folder, about 90 : 5 : 5, so that
                          it stays when other pictures come and go; of three or more pictures each split gets one
    "tfds:NAME[/CONFIG]"  the 'image' feature of that dataset, prepared first if need be, read without TensorFlow

    Where a source lacks a split, its share is cut from another: validation is the last 5 % of train, and a lone
    validation part serves as the test. Pictures that cannot be read are left out, logged, and listed in
    `Photos.skipped`. `cache_bytes` bounds the memory for decoded photos.

    Raises ValueError, one line, for an unknown name or split, too few pictures, or a dataset that cannot be opened.
    """
    if split not in (*SPLITS, "all"):
        raise ValueError(f"unknown split {split!r}; choose from {', '.join(SPLITS)} and all")
    name = os.fspath(name)
    skipped: list[tuple[str, str]] = []
    if name == "embedded":
        items = _embedded(split)
    elif name.startswith("tfds:"):
        items = _tfds(name.removeprefix("tfds:"), split)
    elif os.path.isdir(name):
        items, skipped = _folder(Path(name), split)
    else:
        raise ValueError(f"no photos called {name!r}: give 'embedded', an existing folder, or 'tfds:NAME'")
    return Photos(items, skipped=skipped, title=f"{name} ({split})", cache_bytes=cache_bytes)


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


def _embedded(split: str) -> list[Item]:
    from importlib import resources

    try:
        folder = resources.files("skimage") / "data"
    except ModuleNotFoundError as error:
        raise ValueError("the embedded photos are scikit-image's: pip install scikit-image") from error
    names = [name for part in SPLITS if split in (part, "all") for name in EMBEDDED[part]]
    return [Item(name, partial(_read_resource, folder / name)) for name in names]


def _read_resource(resource) -> np.ndarray:
    try:
        encoded = resource.read_bytes()
    except OSError as error:
        raise UnreadablePhotoError("missing from the installed scikit-image") from error
    return decode(encoded)


def _folder(root: Path, split: str) -> tuple[list[Item], list[tuple[str, str]]]:
    everything = _pictures(root)
    if not everything:
        raise ValueError(f"no pictures in {root} (looked for {' '.join(sorted(SUFFIXES))})")
    paths = everything if split == "all" else _pictures_of_split(root, everything, split)
    items, skipped = [], []
    for path in paths:
        name = path.relative_to(root).as_posix()
        try:
            items.append(Item(name, partial(decode, path), size(path)))
        except UnreadablePhotoError as error:
            skipped.append((name, str(error)))
    return items, skipped


def _pictures_of_split(root: Path, everything: list[Path], split: str) -> list[Path]:
    folders = {part: root / part for part in SPLITS}
    parts = {part: [path for path in everything if folders[part] in path.parents] for part in SPLITS}
    parts = {part: paths for part, paths in parts.items() if paths}
    if len(parts) < 2:
        folders, parts = {"train": root}, {"train": everything}
    part, marks, piece = split_part({part: len(paths) for part, paths in parts.items()}, split)
    ranked = sorted((_position(path.relative_to(folders[part])), path) for path in parts[part])
    below = [sum(position < mark for position, _ in ranked) for mark in marks]
    return sorted(path for _, path in ranked[pieces(len(ranked), below, str(root))[piece]])


def _pictures(folder: Path) -> list[Path]:
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            Path(parent, name)
            for name in files
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES
        ]
    return sorted(found)


def _position(path: Path) -> float:
    """Where a photo stands on the scale from 0 to 100 per cent: a hash of its path inside the folder."""
    digest = hashlib.blake2b(os.fsencode(path.as_posix()), digest_size=8).digest()
    return 100 * int.from_bytes(digest, "big") / 2**64


def _tfds(name: str, split: str) -> list[Item]:
    try:
        import tensorflow_datasets as tfds

        available = {part: len(source) for part, source in tfds.data_source(name).items()}
        available = {part: count for part, count in available.items() if count}
        if not available:
            raise ValueError("it is empty")
        if split == "all":
            part = "+".join(available)
        else:
            part, marks, piece = split_part(available, split)
            total = available[part]
            cut = pieces(total, [round(total * mark / 100) for mark in marks], f"tfds:{name}")[piece]
            part = f"{part}[{cut.start}:{cut.stop}]"
        source = tfds.data_source(name, split=part)
        features = source.dataset_info.features
        pictures = [key for key, feature in features.items() if isinstance(feature, tfds.features.Image)]
        if "image" not in pictures:
            raise ValueError(f"it has no 'image' feature, only {', '.join(features)}")
        # We decode 'image' ourselves, by the one rule for all sources, and the others (masks, say) not at all.
        encoded = {key: tfds.decode.SkipDecoding() for key in pictures}
        source = tfds.data_source(name, split=part, decoders=encoded)
    except Exception as error:  # a builder may raise anything: no such name, no network, TensorFlow wanted, no licence
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(f"cannot open the TFDS dataset {name!r}: {reason}") from error
    return [Item(f"{part}#{index}", partial(_read_record, source, index)) for index in range(len(source))]


def _read_record(source, index: int) -> np.ndarray:
    return decode(source[index]["image"])

"""Writes a packed data set, see `nlvc.data.packed`: every photo below a folder, in shards of bounded size."""

import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from nlvc.data.decode import UnreadablePhotoError, decode
from nlvc.data.packed import INDEX, TILE, Index, Shard, record_header, tiles_of
from nlvc.data.sources import pictures_in
from nlvc.files import remove_leftovers, whole_folder

SHARD_BYTES = 512 << 20


def pack(
    source: Path,
    target: Path,
    *,
    replace: bool = False,
    jobs: int = 1,
    shard_bytes: int = SHARD_BYTES,
    progress: Callable[[list[str]], Iterable[str]] = iter,
    warn: Callable[[str, str], None] = lambda name, reason: None,
) -> Index:
    """Packs every photo below `source` into the new folder `target`, which appears whole or not at all.

    `replace` allows a packed data set, and nothing else, to be where `target` is. `jobs` photos are coded at once, each
    whole in memory; `shard_bytes` bounds a shard, to within a record. `progress` wraps the list of names, as tqdm does.
    `warn` receives name and reason of each picture that cannot be read; it is left out, and named in the index.

    Raises ValueError without a readable photo, FileExistsError for what may not be replaced, OSError for a full disk.
    """
    if not source.is_dir():
        raise NotADirectoryError(f"{source}: there is no such folder")
    names = pictures_in(source)
    if target.exists() and not (replace and ((target / INDEX).is_file() or _is_empty(target))):
        kind = "and is not a packed data set, so it stays as it is" if replace else "already"
        raise FileExistsError(f"{target} is there {kind}")
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(target.parent)
    packed, sizes, skipped = [], [], []
    with whole_folder(target, replace=replace) as folder, Shards(folder, shard_bytes) as shards:
        for name, photo in zip(progress(names), _in_order(partial(_try_to_encode, source), names, jobs), strict=True):
            if isinstance(photo, UnreadablePhotoError):
                skipped.append((name, str(photo)))
                warn(*skipped[-1])
                continue
            size, records = photo
            for record in records:
                shards.write(record)
            packed.append(name)
            sizes.append(size)
        if not packed:
            raise ValueError(f"no readable photo in {source} ({len(skipped)} unreadable)")
        index = Index(target, packed, np.array(sizes, np.int64), shards.close(), skipped)
        (folder / INDEX).write_text(index.to_json(), encoding="ascii")
    return index


def encode(name: str, photo: np.ndarray) -> list[bytes]:
    """The records of a photo, uint8 (H, W, 3)."""
    records = []
    for row, column in np.ndindex(*tiles_of(photo.shape[:2])):
        tile = photo[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE]
        file = io.BytesIO(record_header(name, photo.shape[:2], row, column))
        file.seek(0, io.SEEK_END)
        # Harder methods take several times as long and save a hundredth.
        Image.fromarray(tile).save(file, "WEBP", lossless=True, method=1, quality=25)
        records.append(file.getvalue())
    return records


class Shards:
    """ArrayRecord files in a folder, a new one whenever the last would exceed `shard_bytes`."""

    def __init__(self, folder: Path, shard_bytes: int):
        self._folder, self._shard_bytes = folder, shard_bytes
        self._writer, self._records, self._bytes = None, 0, 0
        self._done: list[Shard] = []

    def __enter__(self) -> "Shards":
        return self

    def __exit__(self, *_) -> None:
        if self._writer is not None:
            self._try(self._writer.close)

    def write(self, record: bytes) -> None:
        """Appends a record. Raises OSError if it cannot be written."""
        from array_record.python.array_record_module import ArrayRecordWriter

        if self._writer is not None and self._bytes + len(record) > self._shard_bytes:
            self._finish()
        if self._writer is None:
            # One record a group, so that each is read alone; WebP leaves nothing to compress.
            self._writer = self._try(partial(ArrayRecordWriter, str(self._path), "group_size:1,uncompressed"))
        self._try(partial(self._writer.write, record))
        self._records, self._bytes = self._records + 1, self._bytes + len(record)

    def close(self) -> list[Shard]:
        """Finishes the last shard. Returns them all. Raises OSError if it cannot be written."""
        if self._writer is not None:
            self._finish()
        return self._done

    @property
    def _path(self) -> Path:
        return self._folder / f"photos-{len(self._done):05}.array_record"

    def _finish(self) -> None:
        writer, self._writer = self._writer, None
        self._try(writer.close)
        self._done.append(Shard(self._path.name, self._records, self._path.stat().st_size))
        self._records, self._bytes = 0, 0

    def _try(self, action: Callable):
        try:
            return action()
        except RuntimeError as error:  # all that ArrayRecord raises
            raise OSError(f"cannot write {self._path.name}: {error}") from error


def _try_to_encode(source: Path, name: str) -> tuple[tuple[int, int], list[bytes]] | UnreadablePhotoError:
    try:
        photo = decode(source / name)
        return photo.shape[:2], encode(name, photo)
    except UnreadablePhotoError as error:
        return error


def _in_order(function: Callable, items: Iterable, jobs: int) -> Iterator:
    """`map` in `jobs` threads, which keep no more than as many results waiting."""
    with ThreadPoolExecutor(jobs) as pool:
        running = deque()
        try:
            for item in items:
                running.append(pool.submit(function, item))
                if len(running) > jobs:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and not any(folder.iterdir())

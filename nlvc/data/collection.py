"""A sequence of photos that decodes, keeps what memory allows, and names what cannot be read."""

import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from nlvc.data.decode import UnreadablePhotoError

CACHE_BYTES = 2 << 30

logger = logging.getLogger("nlvc.data")


class Item(NamedTuple):
    """One photo not yet read: its name, a function that returns uint8 (H, W, 3), and (H, W) or None if not known."""

    name: str
    read: Callable[[], np.ndarray]
    size: tuple[int, int] | None = None

    @property
    def bytes(self) -> int:
        """Size of the decoded photo, 0 if not known."""
        return 3 * self.size[0] * self.size[1] if self.size else 0


class Photos(Sequence):
    """The photos of one split: `len`, iteration, and `photos[i]` -> read-only uint8 (H, W, 3), values 0 to 255.

    Photos are decoded (in threads) when the sequence is opened, until `cache_bytes` of pixels are held; the others
    are decoded when asked for, and take the place of those not used for the longest time. Threads may share a sequence.

    `names`      one string a photo, in the order of the sequence
    `areas`      float64 (len,), pixels of each photo; all 1 where the source does not tell sizes without decoding
    `skipped`    list of (name, reason), one for each picture that could not be read; each was also logged as a warning
    `in_memory`  about how many photos the cache holds; `len` of the sequence when it holds them all
    `random_access`  whether it holds them all, so that any photo is at hand at any time

    Raises ValueError when no photo can be read. Indexing raises IndexError, and `UnreadablePhotoError` for a broken
    picture that lay too far beyond the cache to be found at opening.
    """

    def __init__(
        self,
        items: Sequence[Item],
        *,
        skipped: Sequence[tuple[str, str]] = (),
        title: str = "the photos",
        cache_bytes: int = CACHE_BYTES,
    ):
        if cache_bytes < 0:
            raise ValueError(f"cache_bytes must not be negative, got {cache_bytes}")
        self.skipped: list[tuple[str, str]] = []
        self._broken: dict[int, str] = {}
        self._cache: OrderedDict[int, np.ndarray] = OrderedDict()
        self._cache_bytes, self._used, self._title = cache_bytes, 0, title
        self._lock = threading.Lock()
        for name, reason in skipped:
            self._skip(name, reason)
        self._items = self._decode_first(items)
        if self.skipped:
            total = len(self._items) + len(self.skipped)
            logger.warning("%s: %d of %d pictures left out as unreadable", title, len(self.skipped), total)
        if not self._items:
            raise ValueError(f"no readable photo in {title} ({len(self.skipped)} unreadable)")
        self.names = tuple(item.name for item in self._items)
        sizes = [item.bytes for item in self._items]
        self.areas = np.array(sizes) / 3 if all(sizes) else np.ones(len(sizes))
        self.in_memory = len(sizes)
        if len(self._cache) < len(sizes):
            known = [size for size in sizes if size] or [cache_bytes + 1]
            self.in_memory = min(len(sizes), max(1, int(cache_bytes / np.mean(known))))

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> np.ndarray:
        index = range(len(self))[index]
        with self._lock:
            if index in self._cache:
                self._cache.move_to_end(index)
                return self._cache[index]
        item = self._items[index]
        try:
            if index in self._broken:
                raise UnreadablePhotoError(self._broken[index])
            photo = item.read()
        except UnreadablePhotoError as error:
            with self._lock:
                is_new = index not in self._broken
                self._broken[index] = str(error)
            if is_new:
                self._skip(item.name, str(error))
            raise UnreadablePhotoError(f"{item.name}: {error}") from error
        with self._lock:
            self._keep(index, photo)
        return photo

    @property
    def random_access(self) -> bool:
        return self.in_memory == len(self)

    def sliceable(self, index: int) -> np.ndarray:
        """What crops are cut from: the whole photo, because no less can be decoded. Raises like indexing."""
        return self[index]

    def __repr__(self) -> str:
        return f"Photos({self._title}: {len(self)} photos, {len(self.skipped)} skipped)"

    def _skip(self, name: str, reason: str) -> None:
        self.skipped.append((name, reason))
        logger.warning("cannot read %s: %s", name, reason)

    def _keep(self, index: int, photo: np.ndarray) -> None:
        photo.flags.writeable = False
        if index in self._cache or photo.nbytes > self._cache_bytes:
            return
        self._cache[index] = photo
        self._used += photo.nbytes
        while self._used > self._cache_bytes:
            _, oldest = self._cache.popitem(last=False)
            self._used -= oldest.nbytes

    def _decode_first(self, items: Sequence[Item]) -> list[Item]:
        """Decodes items in order until the cache is full; returns the readable ones of these, and all that follow."""
        threads = min(16, os.cpu_count() or 1)
        room, first, readable = self._cache_bytes, 0, []
        with ThreadPoolExecutor(threads) as pool:
            while room > 0 and (some := _that_fit(items[first : first + threads], room)):
                first += len(some)
                for item, photo in zip(some, pool.map(_try_to_read, some), strict=True):
                    if isinstance(photo, UnreadablePhotoError):
                        self._skip(item.name, str(photo))
                        continue
                    self._keep(len(readable), photo)
                    readable.append(item._replace(size=photo.shape[:2]))
                    room -= photo.nbytes
        return readable + list(items[first:])


def _that_fit(items: Sequence[Item], room: int) -> Sequence[Item]:
    ends = np.cumsum([item.bytes for item in items])
    return items[: int(np.searchsorted(ends, room, side="right"))]


def _try_to_read(item: Item) -> np.ndarray | UnreadablePhotoError:
    try:
        return item.read()
    except UnreadablePhotoError as error:
        return error

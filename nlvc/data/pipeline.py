"""Batches for training: seeded random crops and flips, each a pure function of (photos, seed, number).

    number --> window of photos --> one of them --> place --> flips --> uint8 crop --batch--> float32 in [0, 1]

Because no crop depends on the one before, a run is resumed by asking for the next number: nothing needs to be stored.
"""

import math
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache, partial

import numpy as np

from nlvc.data.collection import Photos
from nlvc.data.decode import UnreadablePhotoError
from nlvc.data.packed import PackedPhoto, PackedPhotos
from nlvc.data.workers import WorkerIterator

# Of photos that do not all fit into memory, each is decoded for about this many crops.
CROPS_PER_DECODING = 64

_CROP, _ORDER = 0, 1  # independent random streams of one seed


def batches(
    photos: Photos | PackedPhotos,
    *,
    batch_size: int,
    patch_size: int,
    seed: int,
    start: int = 0,
    prefetch: int = 8,
    threads: int = 2,
    workers: int = 0,
    share: tuple[int, int] = (0, 1),
) -> Iterator[np.ndarray]:
    """Endless batches of random crops, float32 (batch_size, patch_size, patch_size, 3) in [0, 1].

    Batch k depends only on (photos, seed, k), so `start=k` continues a run exactly where it stopped after k batches;
    `prefetch` (batches made ahead), `threads` and `workers` change nothing but the speed. share=(p, n): of every batch
    only the p-th of n equal runs of its rows, for one of n processes that train together.

    `workers` processes, of `threads` each, read `PackedPhotos`. Other photos stay in this process, whatever `workers`
    says: those in memory need only be cut, and of those beyond it every process would hold and decode its own window,
    which is no faster; their decoders run in `threads`.

    A photo is chosen with probability proportional to the square root of its area, a compromise between every photo
    alike and every pixel alike; the place is uniform; horizontal and vertical flips have probability 1/2 each. Photos
    smaller than the patch are continued by reflection. Every crop is drawn from the whole set. Only where `Photos` do
    not all fit into their cache, crops come from a window of them that slides over a new random order each epoch, so
    that one decoding serves many crops; the choice then also depends on `cache_bytes`. A photo that turns out to be
    broken is passed over, and is in `photos.skipped`.

    The iterator has `get_state` and `set_state` too, and `close` ends its threads and processes. Raises ValueError for
    sizes below 1, a negative seed, start, prefetch, threads or workers, a share that is none; and, while iterating, if
    no photo can be read, `DamagedPackError` (a ValueError), and ChildProcessError for a worker that was killed.
    """
    for name, value, least in (
        ("batch_size", batch_size, 1),
        ("patch_size", patch_size, 1),
        ("seed", seed, 0),
        ("start", start, 0),
        ("prefetch", prefetch, 0),
        ("threads", threads, 0),
        ("workers", workers, 0),
    ):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    part, parts = share
    if not 0 <= part < parts or batch_size % parts:
        raise ValueError(f"share {share} of a batch of {batch_size}: give (p, n), 0 <= p < n, n a divisor of the size")
    import grain

    draw = partial(random_crop, photos, patch_size, seed, _windows(photos, seed))
    rows = batch_size // parts
    numbers = grain.MapDataset.range(start * rows, sys.maxsize // parts)
    numbers = numbers.map(partial(_number, rows, part, parts))
    in_processes = workers > 0 and isinstance(photos, PackedPhotos)
    dataset = numbers.map(draw).batch(rows, drop_remainder=True, batch_fn=np.stack)
    if not in_processes:
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)
        return iter(dataset.map(_to_float).to_iter_dataset(options))
    ahead = max(1, prefetch // workers)
    dataset = dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=ahead))
    # As float only in this process: that is a quarter of the bytes to send.
    return WorkerIterator(dataset, workers, ahead, _to_float)


def validation_crops(photos: Photos | PackedPhotos, patch_size: int, count: int) -> np.ndarray:
    """`count` crops that are always the same, float32 (count, patch_size, patch_size, 3) in [0, 1].

    Crop j is the centre of photo j; past the last photo they are taken in turn again, at other fixed places. Photos
    smaller than the patch are continued by reflection. Raises ValueError for sizes below 1, and
    `UnreadablePhotoError` for a broken photo that was not found at opening.
    """
    if patch_size < 1 or count < 1:
        raise ValueError(f"patch_size and count must be at least 1, got {patch_size} and {count}")
    crops = []
    for number in range(count):
        turn, index = divmod(number, len(photos))
        # Multiples of these two fractions spread evenly over the square (the plastic number's sequence).
        place = (0.5 + turn * 0.7548776662466927) % 1, (0.5 + turn * 0.5698402909980532) % 1
        crops.append(crop(photos.sliceable(index), patch_size, *place))
    return _to_float(np.stack(crops))


def random_crop(
    photos: Photos | PackedPhotos, patch_size: int, seed: int, windows: Callable, number: int
) -> np.ndarray:
    """Crop `number` of the stream: uint8 (patch_size, patch_size, 3). `windows` comes from `_windows`."""
    which, down, right, flip_rows, flip_columns = _random(seed, _CROP, number).random(5)
    window, cumulative = windows(number)
    chosen = np.searchsorted(cumulative, which * cumulative[-1], side="right")
    index = int(window[min(chosen, len(window) - 1)])
    for step in range(len(photos)):
        try:
            patch = crop(photos.sliceable((index + step) % len(photos)), patch_size, down, right)
        except UnreadablePhotoError:
            continue
        return patch[:: -1 if flip_rows < 0.5 else 1, :: -1 if flip_columns < 0.5 else 1]
    raise ValueError("none of the photos can be read any more; see the warnings above")


def crop(photo: np.ndarray | PackedPhoto, patch_size: int, down: float, right: float) -> np.ndarray:
    """The patch of `photo`, uint8 (H, W, 3) or sliceable like one, at the fractions `down` and `right` in [0, 1) of the
    possible places."""
    top, left = (
        math.floor(fraction * (max(side - patch_size, 0) + 1))
        for fraction, side in ((down, photo.shape[0]), (right, photo.shape[1]))
    )
    patch = photo[top : top + patch_size, left : left + patch_size]
    missing = [patch_size - side for side in patch.shape[:2]]
    if not any(missing):
        return patch
    return np.pad(patch, [(n // 2, n - n // 2) for n in missing] + [(0, 0)], mode="reflect")


def _number(rows: int, part: int, parts: int, own: int) -> int:
    """The number, in the whole stream, of crop `own` of a stream that has `rows` of each batch's `parts * rows`."""
    batch, row = divmod(own, rows)
    return (batch * parts + part) * rows + row


def _windows(photos: Photos | PackedPhotos, seed: int) -> Callable[[int], tuple[np.ndarray, np.ndarray]]:
    """A function from a crop's number to (photos to choose from, their cumulative weights), both 1-D, same length."""
    count, weights = len(photos), np.sqrt(photos.areas)
    if photos.random_access:
        whole = np.arange(count), np.cumsum(weights)
        return lambda number: whole
    # A little narrower than the cache, so that what the cache drops has left the window.
    width = max(1, 3 * photos.in_memory // 4)

    @lru_cache(maxsize=4)
    def order(epoch: int) -> np.ndarray:
        return _random(seed, _ORDER, epoch).permutation(count)

    @lru_cache(maxsize=16)
    def window(first: int) -> tuple[np.ndarray, np.ndarray]:
        epoch, offset = divmod(first, count)
        indices = np.concatenate([order(epoch), order(epoch + 1)])[offset : offset + width]
        return indices, np.cumsum(weights[indices])

    return lambda number: window(number // CROPS_PER_DECODING)


def _random(seed: int, stream: int, number: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(stream, number)))


def _to_float(crops: np.ndarray) -> np.ndarray:
    return np.divide(crops, np.float32(255), dtype=np.float32)

import hashlib
from itertools import islice, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlvc.data import Photos, UnreadablePhotoError, batches, validation_crops
from nlvc.data.collection import Item
from nlvc.data.pipeline import CROPS_PER_DECODING, _windows, crop


def labelled(height, width, number=0):
    """A photo whose every pixel says where it is: (row, column, number of the photo); H, W <= 256."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.full_like(rows, number)], axis=-1).astype(np.uint8)


def collection(*photos, cache_bytes=1 << 30):
    return Photos([Item(str(i), lambda photo=photo: photo.copy(), photo.shape[:2]) for i, photo in enumerate(photos)],
                  cache_bytes=cache_bytes)  # fmt: skip


def take(count, photos, **options):
    options = {"batch_size": 4, "patch_size": 16, "seed": 7} | options
    iterator = batches(photos, **options)
    try:
        return np.stack(list(islice(iterator, count)))
    finally:
        iterator.close()


def pixels(batch):
    return np.rint(batch.reshape(-1, *batch.shape[-3:]) * 255).astype(int)


THREE = [labelled(40, 60, 1), labelled(16, 16, 2), labelled(200, 120, 3)]


def test_shape_type_and_range():
    batch = take(2, collection(*THREE))
    assert batch.shape == (2, 4, 16, 16, 3) and batch.dtype == np.float32
    black, white = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)
    assert set(np.unique(take(4, collection(black, white), patch_size=4))) == {0.0, 1.0}


def test_every_crop_is_a_piece_of_a_photo_possibly_flipped():
    ways, tops, lefts = set(), set(), set()
    for patch in pixels(take(100, collection(labelled(24, 20)))):
        rows, columns = patch[:, 0, 0], patch[0, :, 1]
        np.testing.assert_array_equal(patch[..., 0], np.broadcast_to(rows[:, None], (16, 16)))
        np.testing.assert_array_equal(patch[..., 1], np.broadcast_to(columns, (16, 16)))
        assert set(np.diff(rows)) in ({1}, {-1}) and set(np.diff(columns)) in ({1}, {-1})
        ways.add((rows[1] - rows[0], columns[1] - columns[0]))
        tops.add(rows.min())
        lefts.add(columns.min())
    assert len(ways) == 4
    assert tops == set(range(9)) and lefts == set(range(5))


def test_flips_are_fair():
    patches = pixels(take(250, collection(labelled(16, 16))))
    upside_down, mirrored = patches[:, 0, 0, 0] > 0, patches[:, 0, 0, 1] > 0
    for share in (upside_down.mean(), mirrored.mean(), (upside_down ^ mirrored).mean()):
        assert 0.45 < share < 0.55


def test_photos_are_chosen_by_the_square_root_of_their_area():
    patches = pixels(take(500, collection(labelled(16, 16, 1), labelled(64, 64, 4))))
    assert 0.77 < (patches[:, 0, 0, 2] == 4).mean() < 0.83


def test_the_same_numbers_give_the_same_crops_for_ever():
    digest = hashlib.sha256(take(3, collection(*THREE)).tobytes()).hexdigest()
    assert digest == "9cb1bdd9c79272b302c5fca092a249de5cde8cebd668c9963ca892e65ba35c65"


def test_seeds_differ_and_crops_differ():
    first, second = take(3, collection(*THREE)), take(3, collection(*THREE), seed=8)
    assert not np.array_equal(first, second)
    assert len({patch.tobytes() for patch in pixels(first)}) == 12


SMALL_CACHE = 6000  # bytes, for photos of 768 bytes: a window of 5 of them


@pytest.mark.parametrize("cache_bytes", [0, SMALL_CACHE, 1 << 30])
@pytest.mark.parametrize("threads, prefetch", [(0, 0), (1, 1), (2, 8), (8, 30)])
def test_threads_and_prefetching_change_nothing(threads, prefetch, cache_bytes):
    photos = [labelled(16, 16, number) for number in range(40)]
    expected = take(30, collection(*photos, cache_bytes=cache_bytes), threads=0, prefetch=0)
    found = take(30, collection(*photos, cache_bytes=cache_bytes), threads=threads, prefetch=prefetch)
    np.testing.assert_array_equal(found, expected)


@settings(max_examples=20)
@given(start=st.integers(0, 120), seed=st.integers(0, 2**40), cache_bytes=st.sampled_from([SMALL_CACHE, 1 << 30]))
def test_starting_at_k_is_skipping_k(start, seed, cache_bytes):
    photos = collection(*[labelled(16, 16, number) for number in range(40)], cache_bytes=cache_bytes)
    whole = take(start + 3, photos, seed=seed, patch_size=8, prefetch=0)
    np.testing.assert_array_equal(take(3, photos, seed=seed, patch_size=8, start=start), whole[start:])


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_shares_of_a_batch_are_its_rows(parts):
    whole = take(5, collection(*THREE), start=3)
    shares = [take(5, collection(*THREE), start=3, share=(part, parts)) for part in range(parts)]
    np.testing.assert_array_equal(np.concatenate(shares, axis=1), whole)


@pytest.mark.parametrize("share", [(1, 1), (-1, 2), (0, 3), (0, 0)])
def test_a_share_that_is_none(share):
    with pytest.raises(ValueError, match="share"):
        take(1, collection(*THREE), share=share)


def test_the_stream_has_no_end():
    assert take(2, collection(*THREE), start=10**15).shape == (2, 4, 16, 16, 3)


def test_the_iterators_own_state_resumes_too():
    iterator = batches(collection(*THREE), batch_size=4, patch_size=16, seed=7, start=2)
    next(iterator)
    state = iterator.get_state()
    following = next(iterator)
    iterator.set_state(state)
    np.testing.assert_array_equal(next(iterator), following)
    iterator.close()


# --- photos smaller than the patch


def reflected(position, side):
    """The oracle: position in a photo of `side` pixels whose continuation is its mirror image, edge not repeated."""
    period = max(2 * (side - 1), 1)
    position = position % period
    return min(position, period - position) if side > 1 else 0


@given(height=st.integers(1, 20), width=st.integers(1, 20), patch_size=st.integers(1, 20))
def test_small_photos_are_continued_by_reflection(height, width, patch_size):
    patch = crop(labelled(height, width), patch_size, 0.0, 0.0)
    assert patch.shape == (patch_size, patch_size, 3)
    for axis, side in enumerate((height, width)):
        before = max(patch_size - side, 0) // 2
        expected = [reflected(position - before, side) for position in range(patch_size)]
        np.testing.assert_array_equal(np.moveaxis(patch[..., axis], axis, 0)[:, 0], expected)


def test_one_pixel_fills_the_patch():
    assert np.all(pixels(take(2, collection(np.full((1, 1, 3), 9, np.uint8)))) == 9)


# --- more photos than memory


def counting(photos, cache_bytes):
    reads = []

    def read(number):
        reads.append(number)
        return photos[number].copy()

    items = [Item(str(n), lambda n=n: read(n), photo.shape[:2]) for n, photo in enumerate(photos)]
    return Photos(items, cache_bytes=cache_bytes), reads


def test_beyond_the_cache_one_decoding_serves_many_crops_and_every_photo_has_its_turn():
    photos, reads = counting([labelled(16, 16, number) for number in range(40)], SMALL_CACHE)
    reads.clear()
    crops = 2 * 40 * CROPS_PER_DECODING
    patches = pixels(take(crops // 64, photos, batch_size=64, patch_size=4, prefetch=0))
    counts = np.bincount(patches[:, 0, 0, 2], minlength=40)
    assert counts.min() > CROPS_PER_DECODING / 2 and counts.max() < 5 * CROPS_PER_DECODING
    assert len(reads) < 2 * 40 * 1.5


def test_the_window_slides_by_one_photo_also_from_one_epoch_to_the_next():
    window = _windows(collection(*[labelled(16, 16, n) for n in range(9)], cache_bytes=SMALL_CACHE), seed=3)
    windows = [window(step * CROPS_PER_DECODING)[0].tolist() for step in range(36)]
    assert [len(now) for now in windows] == [5] * 36
    for now, following in pairwise(windows):
        assert following[:-1] == now[1:]
    epochs = [[now[0] for now in windows[first : first + 9]] for first in range(0, 36, 9)]
    assert all(sorted(epoch) == list(range(9)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_a_broken_photo_beyond_the_cache_is_passed_over_and_named():
    def broken():
        raise UnreadablePhotoError("cut off")

    good = [Item(str(n), lambda n=n: labelled(16, 16, n), (16, 16)) for n in range(8)]
    photos = Photos([*good[:4], Item("bad", broken, (16, 16)), *good[4:]], cache_bytes=1600)
    patches = pixels(take(200, photos, patch_size=8))
    assert set(patches[:, 0, 0, 2]) == set(range(8))
    assert photos.skipped == [("bad", "cut off")]
    nothing_left = Photos([Item("bad", broken, (16, 16))], cache_bytes=0)
    with pytest.raises(ValueError, match="none of the photos can be read any more"):
        take(1, nothing_left, threads=0, prefetch=0)


# --- wrong numbers


@pytest.mark.parametrize(
    "wrong",
    [{"batch_size": 0}, {"patch_size": 0}, {"seed": -1}, {"start": -1}, {"prefetch": -1}, {"threads": -1}],
    ids=str,
)
def test_impossible_numbers(wrong):
    [(name, value)] = wrong.items()
    with pytest.raises(ValueError, match=f"^{name} must be at least {value + 1}, got {value}$"):
        take(1, collection(*THREE), **wrong)


# --- validation crops


def test_validation_crops_are_the_centres_first():
    crops = validation_crops(collection(labelled(20, 31, 1), labelled(40, 16, 2)), 16, 2)
    assert crops.shape == (2, 16, 16, 3) and crops.dtype == np.float32
    np.testing.assert_array_equal(pixels(crops)[:, 0, 0], [[2, 8, 1], [12, 0, 2]])
    np.testing.assert_array_equal(pixels(crops)[:, -1, -1], [[17, 23, 1], [27, 15, 2]])


def test_validation_crops_go_on_at_other_places():
    photos = collection(labelled(200, 200, 1), labelled(150, 250, 2))
    crops = validation_crops(photos, 16, 12)
    corners = pixels(crops)[:, 0, 0]
    assert len(np.unique(corners, axis=0)) == 12
    np.testing.assert_array_equal(corners[:, 2], [1, 2] * 6)
    np.testing.assert_array_equal(crops, validation_crops(photos, 16, 12))
    np.testing.assert_array_equal(crops[:5], validation_crops(photos, 16, 5))


def test_validation_crops_of_a_small_photo_and_wrong_numbers():
    assert np.all(pixels(validation_crops(collection(np.full((3, 2, 3), 5, np.uint8)), 8, 3)) == 5)
    for patch_size, count in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="at least 1"):
            validation_crops(collection(*THREE), patch_size, count)

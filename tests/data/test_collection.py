import logging
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from nlvc.data import Photos, UnreadablePhotoError
from nlvc.data.collection import Item


def plain(value, height=4, width=5):
    return np.full((height, width, 3), value, dtype=np.uint8)


class Source:
    """Items that count how often each was read; a negative value is a broken picture."""

    def __init__(self, values, *, sized=True):
        self.reads = dict.fromkeys(range(len(values)), 0)
        self.items = [
            Item(f"photo {index}", lambda index=index, value=value: self.read(index, value), (4, 5) if sized else None)
            for index, value in enumerate(values)
        ]

    def read(self, index, value):
        self.reads[index] += 1
        if value < 0:
            raise UnreadablePhotoError("broken")
        return plain(value)


PHOTO_BYTES = plain(0).nbytes


def test_a_sequence_of_read_only_arrays():
    photos = Photos(Source([3, 1, 2]).items)
    assert [photo[0, 0, 0] for photo in photos] == [3, 1, 2]
    assert len(photos) == 3
    assert photos.names == ("photo 0", "photo 1", "photo 2")
    assert photos[-1][0, 0, 0] == 2
    np.testing.assert_array_equal(photos.areas, [20, 20, 20])
    with pytest.raises(IndexError):
        photos[3]
    with pytest.raises(ValueError, match="read-only"):
        photos[0][0, 0, 0] = 1


def test_what_fits_is_decoded_once_at_opening():
    source = Source([1, 2, 3])
    photos = Photos(source.items, cache_bytes=3 * PHOTO_BYTES)
    assert photos.in_memory == 3
    for _ in range(3):
        assert [photo[0, 0, 0] for photo in photos] == [1, 2, 3]
    assert set(source.reads.values()) == {1}


@pytest.mark.parametrize("sized", [True, False])
@pytest.mark.parametrize("cache_photos", [0, 1, 3])
def test_beyond_the_budget_photos_are_decoded_on_demand(sized, cache_photos):
    source = Source(range(40), sized=sized)
    photos = Photos(source.items, cache_bytes=cache_photos * PHOTO_BYTES + PHOTO_BYTES // 2)
    at_opening = sum(source.reads.values())
    assert at_opening <= (cache_photos if sized else 20)
    assert photos.in_memory == max(1, cache_photos)
    for _ in range(2):
        assert [photo[0, 0, 0] for photo in photos] == list(range(40))
        assert len(photos._cache) <= cache_photos and photos._used == len(photos._cache) * PHOTO_BYTES


def test_the_photo_not_used_for_the_longest_time_goes_first():
    source = Source([0, 1, 2])
    photos = Photos(source.items, cache_bytes=2 * PHOTO_BYTES)
    for index in (0, 2, 0):  # 2 takes the place of 1, because 0 was used after it
        photos[index]
    assert source.reads == {0: 1, 1: 1, 2: 1}


def test_areas_are_equal_where_a_source_does_not_tell_its_sizes():
    photos = Photos(Source([1, 2, 3, 4] * 10, sized=False).items, cache_bytes=0)
    np.testing.assert_array_equal(photos.areas, np.ones(40))


def test_broken_pictures_are_named_counted_and_left_out(caplog):
    with caplog.at_level(logging.WARNING, "nlvc.data"):
        photos = Photos(Source([5, -1, 6, -1]).items, skipped=[("photo x", "no header")], title="holiday")
    assert [photo[0, 0, 0] for photo in photos] == [5, 6]
    assert photos.names == ("photo 0", "photo 2")
    assert photos.skipped == [("photo x", "no header"), ("photo 1", "broken"), ("photo 3", "broken")]
    assert caplog.messages == [
        "cannot read photo x: no header",
        "cannot read photo 1: broken",
        "cannot read photo 3: broken",
        "holiday: 3 of 5 pictures left out as unreadable",
    ]


def test_a_broken_picture_beyond_the_cache_is_named_once_when_met(caplog):
    source = Source([5, -1])
    photos = Photos(source.items, cache_bytes=0)
    assert photos.skipped == [] and len(photos) == 2
    for _ in range(2):
        with pytest.raises(UnreadablePhotoError, match="photo 1: broken"):
            photos[1]
    assert photos.skipped == [("photo 1", "broken")]
    assert source.reads[1] == 1
    assert caplog.messages == ["cannot read photo 1: broken"]


def test_nothing_readable_is_an_error():
    with pytest.raises(ValueError, match=r"no readable photo in holiday \(2 unreadable\)"):
        Photos(Source([-1, -1]).items, title="holiday")
    with pytest.raises(ValueError, match="no readable photo"):
        Photos([])
    with pytest.raises(ValueError, match="cache_bytes"):
        Photos(Source([1]).items, cache_bytes=-1)


@pytest.fixture
def eager_threads():
    """Threads take turns so often that a missing lock shows."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def test_threads_share_a_sequence(eager_threads):
    values = list(range(30)) + [-1] * 3
    photos = Photos(Source(values).items[::-1], cache_bytes=0)
    photos._cache_bytes = 5 * PHOTO_BYTES
    order = np.random.default_rng(0).integers(0, 33, 4000).tolist()

    def read(index):
        try:
            return int(photos[index][0, 0, 0])
        except UnreadablePhotoError:
            return -1

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(read, order)) == [values[::-1][index] for index in order]
    assert len(photos._cache) == 5 and photos._used == 5 * PHOTO_BYTES
    assert sorted(photos.skipped) == [(f"photo {index}", "broken") for index in (30, 31, 32)]

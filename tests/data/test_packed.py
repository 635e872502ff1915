"""Packed data sets: the same photos, splits and crops as the folder, and one clear line where something is wrong."""

import json
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nlvc.data import SPLITS, DamagedPackError, PackedPhotos, Photos, batches, pack, packed, photos, validation_crops
from nlvc.data.packed import INDEX, TILE

SIZES = [(300, 520), (256, 257), (1, 1), (40, 30), (513, 20), (255, 256), (64, 64), (90, 33), (300, 300), (17, 700)]


def noise(height, width, *channels, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, *channels), np.uint8)


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Photos of many sizes and modes, in subfolders; one cannot be read, and one file is no picture."""
    root = tmp_path_factory.mktemp("photos")
    for number, size in enumerate(SIZES):
        save(root / f"{'ab'[number % 2]}/{number}.png", noise(*size, 3, seed=number))
    turned = Image.Exif()
    turned[0x0112] = 6
    save(root / "turned.jpg", noise(50, 80, 3), exif=turned)
    save(root / "grey.webp", noise(30, 40))
    save(root / "alpha.png", noise(30, 40, 4))
    (root / "b" / "broken.jpg").write_text("no picture")
    (root / "notes.txt").write_text("no picture either")
    return root


@pytest.fixture(scope="module")
def out(folder, tmp_path_factory):
    """The same, packed in several shards."""
    target = tmp_path_factory.mktemp("packed") / "out"
    index = pack(folder, target, shard_bytes=200_000, jobs=2)
    assert len(index.shards) > 5
    return target


def take(count, source, start=0, **options):
    iterator = batches(source, batch_size=4, patch_size=32, seed=7, start=start, **options)
    try:
        return np.stack(list(islice(iterator, count)))
    finally:
        iterator.close()


# --- the same as the folder


@pytest.mark.parametrize("split", [*SPLITS, "all"])
@pytest.mark.parametrize("cache_bytes", [0, 1 << 30])
def test_the_same_photos_in_the_same_splits(folder, out, split, cache_bytes):
    expected, found = photos(folder, split), photos(out, split, cache_bytes=cache_bytes)
    assert isinstance(found, Photos if cache_bytes else PackedPhotos)
    assert found.names == expected.names and found.skipped == expected.skipped
    np.testing.assert_array_equal(found.areas, expected.areas)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(IndexError):
        found[len(found)]


def test_no_photo_is_in_two_splits(out):
    names = [set(photos(out, split, cache_bytes=0).names) for split in SPLITS]
    assert all(names) and sum(map(len, names)) == len(set.union(*names)) == len(SIZES) + 3


def test_splits_by_subfolders_count_what_cannot_be_read(tmp_path):
    for number in range(30):
        save(tmp_path / "in" / "train" / f"{number}.png", noise(3, 3, 3))
    save(tmp_path / "in" / "test" / "0.png", noise(3, 3, 3))
    (tmp_path / "in" / "test" / "1.png").write_text("no picture")
    pack(tmp_path / "in", tmp_path / "out")
    for split in (*SPLITS, "all"):
        a, b = photos(tmp_path / "in", split), photos(tmp_path / "out", split)
        assert a.names == b.names and a.skipped == b.skipped


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("cache_bytes", [0, 1 << 30])
def test_the_same_batches_and_resuming(folder, out, threads, cache_bytes):
    expected = take(20, photos(folder, "train"))
    source = photos(out, "train", cache_bytes=cache_bytes)
    np.testing.assert_array_equal(take(20, source, threads=threads), expected)
    np.testing.assert_array_equal(take(3, source, threads=threads, start=17), expected[17:])


def test_the_same_validation_crops(folder, out):
    expected = validation_crops(photos(folder, "all"), 48, 40)
    np.testing.assert_array_equal(validation_crops(photos(out, "all", cache_bytes=0), 48, 40), expected)


@given(st.data())
def test_slices_are_those_of_the_whole_photo(folder, out, data):
    source = photos(out, "all", cache_bytes=0)
    index = data.draw(st.integers(0, len(source) - 1))
    lazy, whole = source.sliceable(index), source[index]
    assert lazy.shape == whole.shape
    place = tuple(slice(*data.draw(st.tuples(*2 * [st.integers(0, side + 5)]))) for side in whole.shape[:2])
    np.testing.assert_array_equal(lazy[place], whole[place])


# --- little is read, from everywhere


@pytest.fixture
def reads(monkeypatch):
    """The (photo, row, column) of every tile that is read."""
    found, tile = [], PackedPhotos.tile
    monkeypatch.setattr(PackedPhotos, "tile", lambda self, *place: found.append(place) or tile(self, *place))
    return found


def test_a_crop_of_fifty_megapixels_reads_a_few_tiles(tmp_path, reads):
    save(tmp_path / "in" / "large.png", np.full((6144, 8192, 3), 99, np.uint8), compress_level=1)
    pack(tmp_path / "in", tmp_path / "out", jobs=1)
    source = photos(tmp_path / "out", "all", cache_bytes=0)
    [size] = source.sizes.tolist()
    assert size == [6144, 8192]
    take(8, source, threads=0, prefetch=0)
    assert 32 <= len(reads) <= 4 * 32 < (6144 // TILE) * (8192 // TILE) / 5


def test_the_first_crops_come_from_all_shards(tmp_path, reads):
    for number in range(60):
        save(tmp_path / "in" / f"{number}.png", noise(40, 40, 3, seed=number))
    index = pack(tmp_path / "in", tmp_path / "out", shard_bytes=60_000)
    assert 4 <= len(index.shards) <= 10
    take(16, photos(tmp_path / "out", "all", cache_bytes=0), threads=0, prefetch=0)
    ends = np.cumsum([shard.records for shard in index.shards])
    # One tile a photo, so that a photo's number is its record's.
    assert set(np.searchsorted(ends, [photo for photo, _, _ in reads], side="right")) == set(range(len(ends)))


def test_shards_are_bounded_and_records_say_what_they_are(out):
    from array_record.python.array_record_module import ArrayRecordReader

    index = packed.read_index(out)
    names = []
    for shard in index.shards:
        records = ArrayRecordReader(str(out / shard.name)).read_all()
        assert len(records) == shard.records
        assert sum(map(len, records)) <= 200_000 or len(records) == 1
        names += [json.loads(record.split(b"\n")[0])["photo"] for record in records]
    assert list(dict.fromkeys(names)) == list(index.names)


def test_no_more_shards_are_open_than_allowed(out, monkeypatch):
    packed._reader.cache_clear()
    assert packed._reader.cache_info().maxsize == packed.OPEN_SHARDS
    list(photos(out, "all", cache_bytes=0))
    assert packed._reader.cache_info().currsize == len(packed.read_index(out).shards)


# --- damage


@pytest.fixture
def copy(folder, tmp_path):
    pack(folder, tmp_path / "out", shard_bytes=200_000)
    return tmp_path / "out"


def read_all(root, cache_bytes):
    return [photo.sum() for photo in photos(root, "all", cache_bytes=cache_bytes)]


@pytest.mark.parametrize("cache_bytes", [0, 1 << 30])
def test_a_flipped_bit_is_found_out(copy, cache_bytes):
    path = copy / "photos-00001.array_record"
    data = bytearray(path.read_bytes())
    data[50_000] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedPackError, match=rf"^{path}: damaged: record \d+, of photo \S+: .*; pack the photos"):
        read_all(copy, cache_bytes)


def test_a_shard_changed_while_it_is_open(copy):
    source = photos(copy, "all", cache_bytes=0)
    list(source)
    path = copy / "photos-00001.array_record"
    path.write_bytes(path.read_bytes()[:70_000])
    with pytest.raises(DamagedPackError, match=f"{path}: damaged"):
        list(source)
    path.unlink()
    with pytest.raises(DamagedPackError, match=f"{path}: damaged: .*No such file"):
        list(source)


@pytest.mark.parametrize("length", [0, 100, 70_000])
def test_a_truncated_shard(copy, length):
    path = copy / "photos-00002.array_record"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(DamagedPackError, match=f"^{path}: damaged: {length} bytes instead of {size}; pack"):
        photos(copy, "train")
    path.unlink()
    with pytest.raises(DamagedPackError, match=f"^{path}: missing; pack"):
        photos(copy, "train")


def test_a_shard_of_another_data_set(copy, tmp_path):
    save(tmp_path / "in" / "other.png", noise(300, 300, 3, seed=99))
    pack(tmp_path / "in", tmp_path / "other")
    path = copy / "photos-00000.array_record"
    path.write_bytes((tmp_path / "other" / "photos-00000.array_record").read_bytes())
    index = json.loads((copy / INDEX).read_text())
    index["shards"][0][2] = path.stat().st_size
    (copy / INDEX).write_text(json.dumps(index))
    with pytest.raises(DamagedPackError, match=f"{path}: damaged: record 0, .*: it belongs to another data set"):
        read_all(copy, 0)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-20],
        lambda text: "{}",
        lambda text: "[]",
        lambda text: text.replace("nlvc packed photos", "something"),
        lambda text: text.replace('"photos": [[', '"photos": [[1, 2], ['),
        lambda text: text.replace('"a/0.png", 300', '"a/0.png", 900'),
        lambda text: text.replace('"a/0.png"', '"a/2.png"'),
    ],
)
def test_a_damaged_index(copy, change):
    path = copy / INDEX
    path.write_text(change(path.read_text()))
    with pytest.raises(DamagedPackError, match=f"^{path}: damaged: .*; pack the photos again$"):
        photos(copy, "train")


def test_another_version(copy):
    path = copy / INDEX
    path.write_text(path.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(ValueError, match=f"^{path}: packed by another version of nlvc"):
        photos(copy, "train")


def test_nothing_to_pack(tmp_path):
    (tmp_path / "in").mkdir()
    with pytest.raises(ValueError, match="no pictures in"):
        pack(tmp_path / "in", tmp_path / "out")
    (tmp_path / "in" / "a.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"no readable photo in .* \(1 unreadable\)"):
        pack(tmp_path / "in", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]

import io
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nlvc.data import SPLITS, photos
from nlvc.data.sources import EMBEDDED
from nlvc.data.splits import pieces, split_part


def write(path, value=0, side=3):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (side, side), (value, value, value)).save(path)
    return path


def names(name, split):
    return set(photos(name, split).names)


# --- which split holds which


THREE_WAYS = [((90, 95), 0), ((90, 95), 1), ((90, 95), 2)]
WHOLE = ((), 0)


@pytest.mark.parametrize(
    "available, expected",
    [
        ("train validation test", [("train", *WHOLE), ("validation", *WHOLE), ("test", *WHOLE)]),
        ("train test", [("train", (95,), 0), ("train", (95,), 1), ("test", *WHOLE)]),
        ("train validation", [("train", (95,), 0), ("train", (95,), 1), ("validation", *WHOLE)]),
        ("train", [("train", *way) for way in THREE_WAYS]),
        ("everything", [("everything", *way) for way in THREE_WAYS]),
        ("train unlabelled", [("train", *way) for way in THREE_WAYS]),
    ],
)
def test_missing_splits_are_cut_from_others(available, expected):
    counts = {part: 10 for part in available.split()}
    assert [split_part(counts, split) for split in SPLITS] == expected


def test_without_train_the_largest_part_takes_its_place():
    counts = {"validation": 5, "test": 50}
    assert split_part(counts, "train") == ("test", (95,), 0)
    assert split_part(counts, "validation") == ("test", (95,), 1)
    assert split_part(counts, "test") == ("validation", (), 0)


@given(st.integers(1, 3), st.data())
def test_pieces_cover_everything_and_none_is_empty(count, data):
    total = data.draw(st.integers(count, 60))
    below = sorted(data.draw(st.lists(st.integers(0, total), min_size=count - 1, max_size=count - 1)))
    parts = pieces(total, below, "here")
    assert [index for part in parts for index in range(total)[part]] == list(range(total))
    assert all(part.stop > part.start for part in parts)
    if all(edge < next_edge for edge, next_edge in zip([0, *below], [*below, total], strict=True)):
        assert [part.stop for part in parts] == [*below, total]


def test_too_few_photos_to_cut():
    with pytest.raises(ValueError, match="2 photos in here are too few to be cut into 3 splits"):
        pieces(2, [1, 1], "here")


# --- the embedded photos


def test_embedded_photos():
    everything = photos("embedded", "all")
    assert [names("embedded", split) for split in SPLITS] == [set(EMBEDDED[split]) for split in SPLITS]
    assert everything.names == tuple(name for split in SPLITS for name in EMBEDDED[split])
    assert len(set(everything.names)) == 9 and everything.skipped == []
    for photo in everything:
        assert photo.dtype == np.uint8 and photo.ndim == 3 and min(photo.shape[:2]) >= 300
        assert not np.array_equal(photo[..., 0], photo[..., 2])
    shapes = dict(zip(everything.names, (photo.shape for photo in everything), strict=True))
    assert shapes["chelsea.png"] == (300, 451, 3) and shapes["coffee.png"] == (400, 600, 3)


def test_the_stereo_pair_is_in_one_split():
    pair = {"motorcycle_left.png", "motorcycle_right.png"}
    assert [len(pair & set(EMBEDDED[split])) for split in SPLITS] == [2, 0, 0]


# --- folders


def test_a_folder_is_read_recursively_and_split_without_overlap(tmp_path):
    for index in range(30):
        write(tmp_path / ("a" if index % 3 else "b/c") / f"{index}.png", value=index)
    splits = [names(tmp_path, split) for split in SPLITS]
    assert all(splits) and sum(map(len, splits)) == 30
    assert set.union(*splits) == names(tmp_path, "all") == {f"{'a' if i % 3 else 'b/c'}/{i}.png" for i in range(30)}
    train = photos(str(tmp_path), "train")
    assert train.names == tuple(sorted(train.names))
    for name, photo in zip(train.names, train, strict=True):
        np.testing.assert_array_equal(photo, np.full((3, 3, 3), int(name.split("/")[-1].removesuffix(".png"))))


def test_the_shares_are_about_90_5_5_and_stay_when_pictures_come_and_go(tmp_path):
    paths = [write(tmp_path / f"{index}.png", side=1) for index in range(400)]
    before = {split: names(tmp_path, split) for split in SPLITS}
    assert 340 <= len(before["train"]) <= 380
    assert 8 <= len(before["validation"]) <= 32 and 8 <= len(before["test"]) <= 32
    for path in paths[::3]:
        path.unlink()
    write(tmp_path / "new.png")
    left = {path.name for path in tmp_path.iterdir()} - {"new.png"}
    for split in SPLITS:
        assert names(tmp_path, split) - {"new.png"} == before[split] & left


def test_a_split_does_not_hang_on_where_the_folder_lies(tmp_path):
    for place in ("here", "there/deeper"):
        for index in range(40):
            write(tmp_path / place / f"{index}.png", side=1)
    for split in SPLITS:
        assert names(tmp_path / "here", split) == names(tmp_path / "there/deeper", split)


@given(st.sets(st.text("abcdefgh", min_size=1, max_size=4), min_size=3, max_size=6))
def test_three_pictures_are_enough_for_three_splits(tmp_path_factory, stems):
    folder = tmp_path_factory.mktemp("few")
    for stem in stems:
        write(folder / f"{stem}.png", side=1)
    splits = [names(folder, split) for split in SPLITS]
    assert all(splits) and sum(map(len, splits)) == len(stems) == len(set.union(*splits))


def test_subfolders_named_after_the_splits_are_the_splits(tmp_path):
    for split in SPLITS:
        for index in range(2):
            write(tmp_path / split / f"{index}.png")
    write(tmp_path / "other" / "extra.png")
    for split in SPLITS:
        assert names(tmp_path, split) == {f"{split}/0.png", f"{split}/1.png"}
    assert len(names(tmp_path, "all")) == 7


def test_validation_comes_from_train_where_only_a_test_folder_exists(tmp_path):
    for index in range(20):
        write(tmp_path / "train" / f"{index}.png")
    write(tmp_path / "test" / "0.png")
    train, validation, test = (names(tmp_path, split) for split in SPLITS)
    assert test == {"test/0.png"} and validation and not train & validation
    assert train | validation == {f"train/{index}.png" for index in range(20)}


def test_a_lone_train_subfolder_is_an_ordinary_folder(tmp_path):
    for index in range(10):
        write(tmp_path / "train" / f"{index}.png")
        write(tmp_path / "other" / f"{index}.png")
    assert sum(len(names(tmp_path, split)) for split in SPLITS) == 20


def test_hidden_files_and_other_suffixes_are_not_looked_at(tmp_path):
    for name in ("a.png", "B.PNG", "c.jpeg", "d.webp", "e.tif", ".hidden.png", ".thumbnails/f.png"):
        write(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    assert names(tmp_path, "all") == {"a.png", "B.PNG", "c.jpeg", "d.webp", "e.tif"}


def test_broken_pictures_of_a_folder_are_named_and_left_out(tmp_path, caplog):
    write(tmp_path / "good.png")
    data = bytearray(write(tmp_path / "flipped.png", side=40).read_bytes())
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "flipped.png").write_bytes(data)
    cut = write(tmp_path / "sub" / "cut.jpg", side=64)
    cut.write_bytes(cut.read_bytes()[:-60])
    (tmp_path / "text.jpg").write_text("no picture")
    found = photos(tmp_path, "all")
    assert found.names == ("good.png",)
    assert {name for name, _ in found.skipped} == {"flipped.png", "sub/cut.jpg", "text.jpg"}
    assert all(reason and "\n" not in reason for _, reason in found.skipped)
    assert [message for message in caplog.messages if "3 of 4 pictures" in message]


def test_areas_are_known_without_decoding(tmp_path):
    write(tmp_path / "a.png", side=3)
    write(tmp_path / "b.png", side=7)
    np.testing.assert_array_equal(photos(tmp_path, "all", cache_bytes=0).areas, [9, 49])


# --- names that are none


@pytest.mark.parametrize(
    "name, split, message",
    [
        ("embeded", "train", "no photos called 'embeded': give 'embedded', an existing folder, or 'tfds:NAME'"),
        ("embedded", "dev", "unknown split 'dev'; choose from train, validation, test and all"),
        ("", "train", "no photos called ''"),
    ],
)
def test_unknown_names(name, split, message):
    with pytest.raises(ValueError, match=message):
        photos(name, split)


def test_a_folder_without_pictures(tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    for split in (*SPLITS, "all"):
        with pytest.raises(ValueError, match="no pictures in "):
            photos(tmp_path, split)
    write(tmp_path / "a.png")
    assert names(tmp_path, "all") == {"a.png"}
    with pytest.raises(ValueError, match="1 photos in .* are too few to be cut into 3 splits"):
        photos(tmp_path, "train")


# --- TensorFlow Datasets, without TensorFlow


def png(value):
    file = io.BytesIO()
    Image.new("RGB", (4 + value, 3), (value, 0, 0)).save(file, "PNG")
    return io.BytesIO(file.getvalue())


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Two tiny datasets, prepared in a temporary folder that TFDS looks into."""
    import tensorflow_datasets as tfds

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _split_generators(self, download_manager):
            return {"train": self._generate_examples(40), "test": self._generate_examples(3)}

    class NlvcTinyPhotos(Builder):
        def _info(self):
            mask, label = tfds.features.Image(), tfds.features.ClassLabel(num_classes=2)
            features = {"image": tfds.features.Image(), "mask": mask, "label": label}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _generate_examples(self, count):
            for value in range(count):
                broken = io.BytesIO(b"no picture")
                yield value, {"image": broken if value == 39 else png(value), "mask": broken, "label": 0}

    class NlvcTinyNumbers(Builder):
        def _info(self):
            features = tfds.features.FeaturesDict({"number": tfds.features.Scalar(np.int64)})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _generate_examples(self, count):
            for value in range(count):
                yield value, {"number": value}

    folder = tmp_path_factory.mktemp("tfds")
    for builder in (NlvcTinyPhotos, NlvcTinyNumbers):
        builder(data_dir=folder).download_and_prepare(file_format="array_record")
    tfds.core.add_data_dir(folder)
    return folder


def reds(found):
    return sorted(int(photo[0, 0, 0]) for photo in found)


def test_tfds_photos(prepared):
    train, validation, test = (photos("tfds:nlvc_tiny_photos", split) for split in SPLITS)
    assert reds(test) == [0, 1, 2]
    assert sorted(reds(train) + reds(validation)) == list(range(39))
    assert len(train) + len(train.skipped) == 38
    assert test.names == ("test[0:3]#0", "test[0:3]#1", "test[0:3]#2")
    for photo in train:
        np.testing.assert_array_equal(photo, np.tile([photo[0, 0, 0], 0, 0], (3, 4 + photo[0, 0, 0], 1)))
    [(name, reason)] = train.skipped + validation.skipped
    assert name.startswith("train[") and "not a picture" in reason
    assert reds(photos("tfds:nlvc_tiny_photos", "all")) == sorted([*range(39), 0, 1, 2])
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize(
    "name, message",
    [
        ("nlvc_tiny_numbers", "has no 'image' feature, only number"),
        ("nlvc_no_such_dataset", "cannot open the TFDS dataset 'nlvc_no_such_dataset': Dataset .* not found"),
        ("", "cannot open the TFDS dataset ''"),
    ],
)
def test_tfds_datasets_that_cannot_be_used(prepared, name, message):
    with pytest.raises(ValueError, match=rf"^[^\n]*{message}[^\n]*$"):
        photos(f"tfds:{name}", "train")
    assert "tensorflow" not in sys.modules


def test_heavy_libraries_are_imported_only_when_needed():
    code = (
        "import sys, nlvc.data; print([name for name in "
        "('grain', 'jax', 'skimage', 'tensorflow', 'tensorflow_datasets') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"

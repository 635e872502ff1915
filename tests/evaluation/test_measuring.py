"""Measuring in other processes: what is kept, what is not repeated, and what becomes of failures."""

import json
import math
from functools import partial

import numpy as np
import pytest
from PIL import Image
from raw_codec import raw_codec

from nlvc.evaluation import measuring
from nlvc.evaluation.codecs import measure
from nlvc.evaluation.crops import SIDE, Showcase, most_detailed, showcases, shown
from nlvc.evaluation.measuring import Contender, Store, jobs, measure_all, photo_set
from nlvc.evaluation.points import Point, read_points
from nlvc.evaluation.worker import Worker

WIDTHS = {"a.png": 40, "deep/b.png": 48, "c.png": 56}


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for name, width in WIDTHS.items():
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (24, width, 3), np.uint8)).save(path)
    return photo_set("noise", tmp_path / "photos")


def contender(**fields):
    return Contender(raw_codec(**fields), partial(raw_codec, **fields))


def measured(photos, path, *contenders):
    store = Store(path, [each.codec for each in contenders])
    return list(measure_all([photos], contenders, store)), store


def test_every_photo_at_every_setting(photos, tmp_path):
    path = tmp_path / "out" / "points.csv"
    raw = contender()
    outcomes, store = measured(photos, path, raw)
    assert len(outcomes) == jobs([photos], [raw]) == 9
    assert list(map(repr, read_points(path))) == list(map(repr, outcomes))  # nan is not equal to itself
    assert json.loads((path.parent / "codecs.json").read_text()) == {"raw": "zlib, 1"}
    assert {point.photo for point in outcomes} == set(WIDTHS)
    for point in outcomes:
        here = measure(raw.codec, photos.read(point.photo), point.setting)
        assert (point.bytes, point.psnr, point.width) == (here.bytes, here.psnr, WIDTHS[point.photo])
        assert 10 < point.peak_mib < 150  # a process of Python and NumPy, and nothing of ours
        assert store.find("noise", point.photo, "raw", point.setting) is point


def test_what_is_there_is_not_measured_again(photos, tmp_path, monkeypatch):
    path = tmp_path / "points.csv"
    store = Store(path, [raw_codec()])
    running = measure_all([photos], [contender()], store)
    first = [next(running) for _ in range(4)]
    running.close()  # as Ctrl-C does
    assert [point[:8] for point in read_points(path)] == [point[:8] for point in first]
    coded = []
    code = Worker.code
    monkeypatch.setattr(Worker, "code", lambda *arguments: coded.append(arguments[1:]) or code(*arguments))
    outcomes, _ = measured(photos, path, contender())
    assert [point[:8] for point in outcomes[:4]] == [point[:8] for point in first]
    assert len(coded) == 5 and len(read_points(path)) == 9
    monkeypatch.setattr(measuring, "decode", None)  # nothing is even read
    assert list(map(repr, measured(photos, path, contender())[0])) == list(map(repr, outcomes))


def test_another_codec_of_the_same_name_is_refused(photos, tmp_path):
    path = tmp_path / "points.csv"
    Store(path, [raw_codec(note="0")])  # without points there is nothing to mix
    measured(photos, path, contender())
    with pytest.raises(ValueError, match=r"points\.csv has points of another raw \(zlib, 1; now zlib, 2\): give anoth"):
        Store(path, [raw_codec(note="2")])
    (tmp_path / "codecs.json").unlink()
    with pytest.raises(ValueError, match="another raw .unknown;"):
        Store(path, [raw_codec()])


def test_a_single_rate_is_found_again(tmp_path):
    store = Store(tmp_path / "points.csv", [raw_codec()])
    store.add(Point("s", "a.png", 8, 8, "one", math.nan, 9, 1.125, 30, math.nan, 1, 1))
    store.save()
    assert Store(tmp_path / "points.csv", []).find("s", "a.png", "one", math.nan).bytes == 9


def test_a_failure_stops_nothing(photos, tmp_path):
    (photos.folder / "c.png").write_bytes(b"no picture")
    outcomes, _ = measured(
        photos, tmp_path / "points.csv", contender(fails_on=48), contender(name="deadly", fails_on=48, kills=True)
    )
    texts = [outcome for outcome in outcomes if isinstance(outcome, str)]
    assert sum(isinstance(outcome, Point) for outcome in outcomes) == 6
    assert texts[1:4] == [f"raw at setting {bits} failed on deep/b.png: no luck" for bits in (5, 3, 1)]
    assert texts[4] == "deadly at setting 5 failed on deep/b.png: its process ended with status 9"
    assert len(texts) == 7 and str(photos.folder / "c.png") in texts[0]  # the photo that is none is told once
    assert len(outcomes) == 18 and not any("\n" in text for text in texts)


def test_a_codec_that_cannot_be_made_over_there(photos):
    with Worker("raw", partial(raw_codec, settings=0)) as worker:
        with pytest.raises(Exception, match=r"failed on a\.png: .*not iterable"):
            worker.code(photos.read("a.png"), 5, "a.png")


def test_a_folder_without_photos(tmp_path):
    with pytest.raises(ValueError, match="no photos in this folder"):
        photo_set("s", tmp_path)
    with pytest.raises(ValueError, match="no such folder"):
        photo_set("s", tmp_path / "none")


def test_crops_are_of_the_nearest_rate_and_made_once(photos, tmp_path, monkeypatch):
    raw = contender()
    _, store = measured(photos, tmp_path / "points.csv", raw)
    arguments = [photos], [raw], store.find, 12.0, tmp_path / "crops"
    found = list(showcases(*arguments))
    assert [showcase.photo for showcase in found] == shown(photos) == list(photos.names)
    for showcase in found:
        [crop] = showcase.crops
        rates = [store.find("noise", showcase.photo, "raw", setting).bpp for setting in raw.codec.settings]
        assert isinstance(showcase, Showcase)
        assert crop.point.bpp == min(rates, key=lambda bpp: abs(math.log(bpp / 12)))
    monkeypatch.setattr(Worker, "code", None)
    assert repr(list(showcases(*arguments))) == repr(found)


def test_the_most_detailed_place():
    photo = np.full((400, 500, 3), 128, np.uint8)
    photo[200 : 200 + SIDE, 320 : 320 + SIDE] = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3))
    row, column = most_detailed(photo)
    assert abs(row - 200) <= 8 and abs(column - 320) <= 8
    assert most_detailed(photo[:7, :9]) == (0, 0)

"""The model inside the package: photos are coded without `--model`, and smaller than by a file codec."""

import io
import json

import numpy as np
import pytest
import skimage.data
from PIL import Image

import nlvc
from nlvc import cli, zoo
from nlvc.evaluation import psnr
from nlvc.image_codec import choose, models_in
from nlvc.models.weights import describe_model

PHOTO = skimage.data.coffee()


def webp(quality):
    file = io.BytesIO()
    Image.fromarray(PHOTO).save(file, "WEBP", quality=quality, method=6)
    return len(file.getvalue()), psnr(PHOTO, np.asarray(Image.open(file)))


def test_every_model_is_small_and_says_where_it_comes_from():
    assert zoo.DEFAULT in models_in(zoo.FOLDER)
    for path in models_in(zoo.FOLDER):
        about, fingerprint = json.loads(path.with_suffix(".json").read_text()), describe_model(path)[1]
        assert path.stat().st_size <= 16_000_000
        assert about["fingerprint"] == fingerprint
        assert about["steps"] > 0 and about["data"] and about["command"] and about["results"]
        assert choose(zoo.FOLDER, fingerprint=fingerprint) == path
    assert describe_model(zoo.DEFAULT)[0].rate == "variable"


@pytest.mark.parametrize("quality", [20, 60])
def test_a_photo_takes_less_than_by_webp(quality):
    data = nlvc.compress(PHOTO, quality=quality)
    achieved = psnr(PHOTO, nlvc.decompress(data))
    size = min(size for size, theirs in map(webp, range(0, 101, 2)) if theirs >= achieved)
    assert len(data) < size


def test_the_command_needs_no_model(tmp_path):
    Image.fromarray(PHOTO[:200, :300]).save(tmp_path / "photo.png")
    assert cli.main(["compress", str(tmp_path / "photo.png")]) == 0
    assert cli.main(["decompress", str(tmp_path / "photo.nlvc"), str(tmp_path / "again.png")]) == 0
    assert psnr(PHOTO[:200, :300], np.asarray(Image.open(tmp_path / "again.png"))) > 30

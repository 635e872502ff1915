"""Several models in one folder: the rate chooses one for a photo, the file's fingerprint one for a file."""

import shutil

import numpy as np
import pytest

import nlvc
from nlvc import coding, image_codec
from nlvc.image_codec import CodecError, choose, models_in
from nlvc.image_codec.choice import checked
from nlvc.models.rates import lmbda_of, quality_of
from nlvc.models.weights import ModelError, describe_model

IMAGE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
LAMBDAS = 0.0018, 0.013, 0.0932


@pytest.fixture
def several(tmp_path, model_file):
    """A folder with a model as a file, and two as runs."""
    low, middle, high = (model_file(L=1, lmbda=lmbda) for lmbda in LAMBDAS)
    shutil.copy(low, tmp_path / "low.safetensors")
    for name, path in (("middle", middle), ("high", high)):
        (tmp_path / name).mkdir()
        shutil.copy(path, tmp_path / name / "model.safetensors")
    return tmp_path


def test_qualities_are_even_in_the_logarithm_of_lambda():
    assert [lmbda_of(q) for q in (0, 50, 100)] == pytest.approx([0.0018, 0.018, 0.18])
    for quality in (-1, 101, float("nan")):
        with pytest.raises(CodecError, match="quality must be between 0 and 100"):
            checked(quality)
    assert [quality_of(lmbda_of(q)) for q in range(101)] == list(range(101))
    assert quality_of(1e-9) == 0 and quality_of(9) == 100


@pytest.mark.parametrize("lmbda", [1e-9, 0.004, 0.006, 0.03, 0.05, 9])
def test_the_nearest_lambda(several, lmbda):
    names = dict(zip(LAMBDAS, ("low.safetensors", "middle", "high"), strict=True))
    nearest = min(LAMBDAS, key=lambda other: max(other / lmbda, lmbda / other))
    assert choose(several, lmbda=lmbda).relative_to(several).parts[0] == names[nearest]


def test_a_file_finds_its_own_model(several):
    files = {quality: nlvc.compress(IMAGE, model=several, quality=quality) for quality in (0, 40, 90)}
    names = {quality: coding.read_header(data).fingerprint for quality, data in files.items()}
    assert len(set(names.values())) == 3
    for quality, data in files.items():
        path = choose(several, fingerprint=names[quality])
        np.testing.assert_array_equal(nlvc.decompress(data, model=several), nlvc.decompress(data, model=path))
        assert describe_model(path)[1] == image_codec.load(path).fingerprint == names[quality]


def test_no_choice(several, model_file):
    with pytest.raises(CodecError, match=r"has 3 models: choose one by its lambda \(0.0018, 0.013, 0.0932\)"):
        nlvc.compress(IMAGE, model=several)
    data = nlvc.compress(IMAGE, model=model_file(L=2))
    with pytest.raises(CodecError, match="needs the model with fingerprint .*; none of those in"):
        nlvc.decompress(data, model=several)


def test_one_model(several, model_file):
    path = several / "middle"
    assert models_in(path) == [path / "model.safetensors"] == [choose(path)]
    assert choose(path, lmbda=0.013) == choose(path, fingerprint="0" * 16) == path / "model.safetensors"
    with pytest.raises(CodecError, match=r"one rate \(lambda 0.013\): leave quality out"):
        choose(path, lmbda=0.02)


def test_no_model(tmp_path):
    with pytest.raises(ModelError, match="there is no model.safetensors in this folder"):
        models_in(tmp_path)


def test_by_the_command(nlvc, several, tmp_path):
    from PIL import Image

    Image.fromarray(IMAGE).save(tmp_path / "photo.png")
    sizes = []
    for flag in ("--quality=0", "--lmbda=0.1"):
        status, _, err = nlvc("compress", tmp_path / "photo.png", "--model", several, flag, "--force")
        assert (status, err) == (0, "")
        sizes.append((tmp_path / "photo.nlvc").stat().st_size)
        back = ("decompress", tmp_path / "photo.nlvc", tmp_path / "again.png", "--model", several, "--force")
        assert nlvc(*back)[0] == 0
    assert sizes[0] < sizes[1]
    status, _, err = nlvc("compress", tmp_path / "photo.png", "--model", several, "--force")
    assert status == 1 and "has 3 models" in err

"""What `import nlvc` offers: three functions, found lazily, and models by object or by path."""

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import nlvc
from nlvc import image_codec
from nlvc.image_codec import CodecError, Model
from nlvc.models.weights import ModelError

IMAGE = np.random.default_rng(0).integers(0, 256, (7, 9, 3), np.uint8)


@pytest.fixture
def loads(monkeypatch):
    """The paths that models were loaded from; the cache starts empty."""
    paths, load = [], image_codec.load
    monkeypatch.setattr(image_codec, "load", lambda path: paths.append(path) or load(path))
    image_codec._loaded.cache_clear()
    yield paths
    image_codec._loaded.cache_clear()


@pytest.fixture
def workdir(model_file, tmp_path):
    """What a run leaves behind, as far as coding needs it."""
    shutil.copy(model_file(), tmp_path / "model.safetensors")
    return tmp_path


def test_the_names():
    assert set(nlvc.__all__) == {"compress", "decompress", "load"} <= set(dir(nlvc))
    for name in nlvc.__all__:
        assert getattr(nlvc, name) is getattr(image_codec, name)
    with pytest.raises(AttributeError, match="module 'nlvc' has no attribute 'compres'"):
        _ = nlvc.compres


def test_the_version_is_the_newest_of_the_change_log():
    text = Path(__file__).parents[1].joinpath("CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^## \[?(\d\S*?)\]?(?: |$)", text, re.MULTILINE)[0] == nlvc.__version__


def test_compress_and_decompress(untrained):
    model = untrained()
    data = nlvc.compress(IMAGE, model=model)
    assert isinstance(data, bytes)
    assert nlvc.compress(Image.fromarray(IMAGE), model=model) == data
    picture = nlvc.decompress(data, model=model)
    assert isinstance(picture, np.ndarray)
    assert (picture.dtype, picture.shape) == (np.uint8, IMAGE.shape)


def test_load_takes_a_file_or_the_folder_of_a_run(workdir):
    for path in (workdir, workdir / "model.safetensors", str(workdir)):
        model = nlvc.load(path)
        assert isinstance(model, Model)
        assert model.config.L == 2
        assert repr(model) == f"Model(L=2, prior='logistic', fingerprint={model.fingerprint!r})"


def test_a_path_is_loaded_once(workdir, untrained, loads):
    data = nlvc.compress(IMAGE, model=workdir)
    assert data == nlvc.compress(IMAGE, model=str(workdir)) == nlvc.compress(IMAGE, model=untrained())
    np.testing.assert_array_equal(nlvc.decompress(data, model=workdir), nlvc.decompress(data, model=untrained()))
    assert loads == [workdir / "model.safetensors"]


def test_a_file_that_has_changed_is_loaded_again(workdir, model_file, loads):
    path = workdir / "model.safetensors"
    assert image_codec.ready(path).config.L == 2
    before = path.stat()
    shutil.copy(model_file(L=1), path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert image_codec.ready(path).config.L == 1
    assert loads == [path, path]


def test_decompress_without_its_model(untrained):
    """Of the models that come with the package none has written this file."""
    data = nlvc.compress(IMAGE, model=untrained())
    with pytest.raises(CodecError, match="^this file needs the model with fingerprint"):
        nlvc.decompress(data)


def test_a_damaged_file_is_named_before_a_missing_model():
    with pytest.raises(ValueError, match="not an .nlvc file"):
        nlvc.decompress(b"hello")


@pytest.mark.parametrize("quality", [0, 0.5, 1, 90])
def test_quality_is_refused(untrained, quality):
    with pytest.raises(CodecError, match="this model has one rate .*: leave quality out"):
        nlvc.compress(IMAGE, model=untrained(), quality=quality)


@pytest.mark.parametrize("name", ["missing.safetensors", "", "photo.png", "empty"])
def test_what_is_not_a_model(tmp_path, name):
    Image.fromarray(IMAGE).save(tmp_path / "photo.png")
    (tmp_path / "empty").touch()
    path = tmp_path / name
    for use in (nlvc.load, lambda path: nlvc.compress(IMAGE, model=path)):
        with pytest.raises(ModelError) as caught:
            use(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)

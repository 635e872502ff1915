"""One frozen model for all rates: quality chooses, the file remembers."""

import numpy as np
import pytest

import nlvc
from nlvc import coding
from nlvc.image_codec import CodecError, analyse

IMAGE = np.kron(np.random.default_rng(0).integers(0, 256, (6, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
FIELDS = {"L": 3, "rate": "variable", "channels": 12, "prior": "trainable-logistic"}


@pytest.fixture
def model(untrained):
    return untrained(**FIELDS)


def test_the_file_says_its_quality(model, model_file):
    for quality in (0, 37, 50, 100):
        coded = analyse(IMAGE, model=model.at(quality))
        assert nlvc.compress(IMAGE, model=model, quality=quality) == coded.data
        assert coding.unpack(coded.data).chunks == {"RATE": bytes([quality])}
        # Whatever the reader was last used for.
        for reader in (model, model.at(99), model_file(**FIELDS)):
            np.testing.assert_array_equal(nlvc.decompress(coded.data, model=reader), coded.reconstruction)


def test_the_usual_quality(model):
    assert nlvc.compress(IMAGE, model=model) == nlvc.compress(IMAGE, model=model, quality=50)


def test_a_quality_between_two_is_the_nearest(model):
    assert nlvc.compress(IMAGE, model=model, quality=36.6) == nlvc.compress(IMAGE, model=model, quality=37)


def test_higher_qualities_have_finer_bins(model):
    sizes = [len(nlvc.compress(IMAGE, model=model, quality=quality)) for quality in range(0, 101, 20)]
    assert sizes == sorted(sizes) and sizes[-1] > 1.5 * sizes[0]


@pytest.mark.parametrize("rate", [None, b"", b"\x65", b"\x01\x02"])
def test_a_file_without_its_quality(model, rate):
    file = coding.unpack(nlvc.compress(IMAGE, model=model))
    streams = [[file.stream(level, 0)] for level in (1, 2, 3)]
    data = coding.pack(file.header, streams, {} if rate is None else {"RATE": rate})
    with pytest.raises(CodecError, match="does not say at which quality"):
        nlvc.decompress(data, model=model)


def test_what_differs_between_rates_is_little(model):
    rates = {name: values for name, values in model.arrays.items() if name.startswith("rates/")}
    assert all(values.shape[0] == 101 and values.ndim == 2 for values in rates.values())
    assert not any("kernel" in name or "table" in name for name in rates)

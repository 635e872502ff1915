"""A model as one file: it comes back whole, or is refused with one line."""

import dataclasses
import json
import struct

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from nlvc.config import base, tiny
from nlvc.models.weights import FORMAT, ModelError, fingerprint, load_model, save_model

CONFIG = tiny(L=2, prior="factorized", channels=3, filters=2, latent_filters=2, strides=(4, 2))


def random_arrays():
    """Arrays of every type and of several ranks, as a frozen model has them."""
    rng = np.random.default_rng(0)
    return {
        "encoder/analysis/Conv_0/kernel": rng.normal(size=(3, 3, 12, 2)).astype(np.float32),
        "decoder/level_1/Conv_0/kernel": rng.integers(-128, 128, (3, 3, 3, 2), np.int8),
        "decoder/level_1/Conv_0/bias": rng.integers(-(2**30), 2**30, 2, np.int32),
        "decoder/synthesis/GDN_0/root": rng.integers(0, 2**15, 64, np.int16),
        "tables/lowest": np.array([-256], np.int32),
        "tables/top/cdf": rng.integers(0, 2**16, (3, 7)).astype(np.uint32),
    }


ARRAYS = random_arrays()


@pytest.fixture(scope="module")
def model_bytes(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_model(path, CONFIG, ARRAYS)
    return path.read_bytes()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """A path that a Hypothesis test may write to again and again."""
    return tmp_path_factory.mktemp("scratch") / "model.safetensors"


def assert_same_model(loaded, config=CONFIG, arrays=ARRAYS):
    assert loaded[0] == config
    assert loaded[1].keys() == arrays.keys()
    for name, ours in loaded[1].items():
        assert (ours.dtype, ours.shape) == (arrays[name].dtype, arrays[name].shape)
        np.testing.assert_array_equal(ours, arrays[name])


def assert_refused(path, *words):
    with pytest.raises(ModelError) as caught:
        load_model(path)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    for word in words:
        assert word in message


# --- There and back ---


def test_round_trip(tmp_path):
    path = tmp_path / "model.safetensors"
    written = save_model(path, CONFIG, ARRAYS)
    loaded = load_model(path)
    assert_same_model(loaded)
    assert loaded[2] == written == fingerprint(CONFIG.to_json(), ARRAYS)
    assert len(written) == 16 and int(written, 16) >= 0
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


def test_the_same_model_is_the_same_file(tmp_path, model_bytes):
    """Runs are compared by their files, and safetensors orders its metadata anew each time."""
    for _ in range(10):
        save_model(tmp_path / "again", CONFIG, ARRAYS)
        assert (tmp_path / "again").read_bytes() == model_bytes


def test_arrays_of_jax_and_views_are_written_as_they_read(tmp_path):
    path = tmp_path / "model.safetensors"
    array = np.arange(12, dtype=np.int32).reshape(3, 4)
    first = save_model(path, CONFIG, {"a/view": array.T, "a/scalar": np.float32(3), "b": jnp.asarray(array)})
    expected = {"a/view": array.T.copy(), "a/scalar": np.full((), 3, np.float32), "b": array}
    assert_same_model(load_model(path), arrays=expected)
    assert save_model(path, CONFIG, expected) == first  # and written over the old one


# --- The fingerprint ---


def test_a_fingerprint_is_for_ever():
    """Files name their model by it."""
    arrays = {"c": np.float32([0.5]), "a/b": np.float32([[1, 2], [3, 4]])}
    assert fingerprint("configuration", arrays) == "6b6565b36a3194b4"


@given(st.data())
def test_a_fingerprint_changes_with_every_bit(data):
    name = data.draw(st.sampled_from(sorted(ARRAYS)))
    array = ARRAYS[name].copy()
    raw = array.view(np.uint8).reshape(-1)
    raw[data.draw(st.integers(0, raw.size - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert fingerprint(CONFIG.to_json(), {**ARRAYS, name: array}) != fingerprint(CONFIG.to_json(), ARRAYS)


def test_a_model_from_before_a_field_was_added_still_loads(tmp_path):
    text = json.dumps({name: value for name, value in json.loads(CONFIG.to_json()).items() if name != "ema_decay"})
    about = {"format": FORMAT, "config": text, "fingerprint": fingerprint(text, ARRAYS)}
    (tmp_path / "old.safetensors").write_bytes(save(ARRAYS, metadata=about))
    loaded = load_model(tmp_path / "old.safetensors")
    assert_same_model(loaded)
    assert loaded[2] == about["fingerprint"]


def test_a_fingerprint_changes_with_names_shapes_types_and_the_configuration():
    name, array = "decoder/level_1/Conv_0/bias", ARRAYS["decoder/level_1/Conv_0/bias"]
    rest = {n: t for n, t in ARRAYS.items() if n != name}
    others = [
        fingerprint(CONFIG.to_json(), rest),
        fingerprint(CONFIG.to_json(), {**rest, "decoder/level_2/Conv_0/bias": array}),
        fingerprint(CONFIG.to_json(), {**rest, name: array.reshape(-1, 1)}),
        fingerprint(CONFIG.to_json(), {**rest, name: array.view(np.float32)}),
        fingerprint(dataclasses.replace(CONFIG, conditional="laplace").to_json(), ARRAYS),
        fingerprint(dataclasses.replace(CONFIG, lmbda=0.02).to_json(), ARRAYS),
        fingerprint(CONFIG.to_json(), ARRAYS),
    ]
    assert len(set(others)) == len(others)
    assert fingerprint(CONFIG.to_json(), dict(reversed(ARRAYS.items()))) == others[-1]  # but not with their order


# --- What is not a model ---


@given(st.data())
def test_a_damaged_byte_is_noticed(model_bytes, scratch, data):
    """Anywhere: in the header's length, the header or the weights."""
    header_end = 8 + struct.unpack("<Q", model_bytes[:8])[0]
    place = data.draw(st.integers(0, header_end + 8) | st.integers(0, len(model_bytes) - 1))
    damaged = bytearray(model_bytes)
    damaged[place] ^= data.draw(st.integers(1, 255))
    scratch.write_bytes(damaged)
    try:
        loaded = load_model(scratch)
    except ModelError as error:
        assert "\n" not in str(error)
    else:  # a space of the header's that became another one
        assert place < header_end
        assert_same_model(loaded)


@given(st.data())
def test_a_truncated_file_is_refused(model_bytes, scratch, data):
    scratch.write_bytes(model_bytes[: data.draw(st.integers(0, len(model_bytes) - 1))])
    assert_refused(scratch, "not a model file")


def test_bytes_after_the_end_are_refused(model_bytes, scratch):
    scratch.write_bytes(model_bytes + b"\0")
    assert_refused(scratch, "not a model file")


def test_a_missing_file_is_refused(tmp_path):
    assert_refused(tmp_path / "model.safetensors", "no such")
    assert_refused(tmp_path, "not a model file")  # a folder


def safetensors_of(kind, size):
    """A safetensors file with one tensor of a type that NumPy may not have, as other programs write them."""
    header = json.dumps({"weight": {"dtype": kind, "shape": [2], "data_offsets": [0, size]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(size)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"a text file, not a model",
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        bytes(1000),
        b"\xff" * 1000,
        save({"weight": np.ones(3)}),
        save({"weight": np.ones(3)}, metadata={"format": "pt"}),
        save({"weight": np.ones(3)}, metadata={"format": "nlvc-999"}),
        save({"weight": np.ones(3)}, metadata={"format": "nlvc-float-1", "config": CONFIG.to_json()}),
        safetensors_of("BF16", 4),
        safetensors_of("F8_E4M3", 2),
    ],
    ids=["empty", "text", "picture", "zeros", "ones", "plain", "torch", "newer", "older", "bfloat16", "float8"],
)  # fmt: skip
def test_a_foreign_file_is_refused(scratch, data):
    scratch.write_bytes(data)
    assert_refused(scratch, "model")


@pytest.mark.parametrize(
    ("config", "word"),
    [(None, "config"), ("not JSON", "JSON"), ('{"L": 99}', "L=99"), ('{"levels": 2}', "levels")],
)
def test_a_configuration_that_cannot_be_read_is_named(scratch, config, word):
    metadata = {"format": FORMAT} | ({} if config is None else {"config": config})
    scratch.write_bytes(save(ARRAYS, metadata=metadata))
    assert_refused(scratch, word)


def test_another_configuration_under_the_same_weights_is_refused(scratch):
    metadata = {"format": FORMAT, "config": base().to_json(), "fingerprint": fingerprint(CONFIG.to_json(), ARRAYS)}
    scratch.write_bytes(save(ARRAYS, metadata=metadata))
    assert_refused(scratch, "fingerprint")


def test_a_model_without_a_fingerprint_is_refused(scratch):
    scratch.write_bytes(save(ARRAYS, metadata={"format": FORMAT, "config": CONFIG.to_json()}))
    assert_refused(scratch, "fingerprint")

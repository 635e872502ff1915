"""A model as one file: it comes back whole, or is refused with one line."""

import dataclasses
import json
import struct

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from nlvc.config import base, tiny
from nlvc.models.nested import NestedLatentModel
from nlvc.models.weights import FORMAT, ModelError, fingerprint, load_model, save_model

CONFIG = tiny(L=2, prior="factorized", channels=3, filters=2, latent_filters=2, strides=(4, 2))


def random_params(config):
    rng = np.random.default_rng(0)
    key, x = jax.random.key(0), jax.ShapeDtypeStruct((1, 16, 16, 3), np.float32)
    shapes = jax.eval_shape(NestedLatentModel(config).init, key, x, key)["params"]
    return jax.tree.map(lambda p: rng.normal(size=p.shape).astype(p.dtype), shapes)


PARAMS = random_params(CONFIG)
TENSORS = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf
           for path, leaf in jax.tree.flatten_with_path(PARAMS)[0]}  # fmt: skip


@pytest.fixture(scope="module")
def model_bytes(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_model(path, CONFIG, PARAMS)
    return path.read_bytes()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """A path that a Hypothesis test may write to again and again."""
    return tmp_path_factory.mktemp("scratch") / "model.safetensors"


def assert_same_model(loaded, config=CONFIG, params=PARAMS):
    assert loaded[0] == config
    assert jax.tree.structure(loaded[1]) == jax.tree.structure(params)
    for ours, expected in zip(jax.tree.leaves(loaded[1]), jax.tree.leaves(params), strict=True):
        assert ours.dtype == expected.dtype
        np.testing.assert_array_equal(ours, expected)


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
    written = save_model(path, CONFIG, PARAMS)
    loaded = load_model(path)
    assert_same_model(loaded)
    assert loaded[2] == written == fingerprint(CONFIG.to_json(), TENSORS)
    assert len(written) == 16 and int(written, 16) >= 0
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


def test_the_same_model_is_the_same_file(tmp_path, model_bytes):
    """Runs are compared by their files, and safetensors orders its metadata anew each time."""
    for _ in range(10):
        save_model(tmp_path / "again", CONFIG, PARAMS)
        assert (tmp_path / "again").read_bytes() == model_bytes


def test_arrays_of_jax_and_views_are_written_as_they_read(tmp_path):
    path = tmp_path / "model.safetensors"
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    params = {"a": {"view": array.T, "scalar": np.float32(3)}, "b": jax.numpy.asarray(array)}
    first = save_model(path, CONFIG, params)
    expected = {"a": {"view": array.T.copy(), "scalar": np.float32(3).reshape(())}, "b": array}
    assert_same_model(load_model(path), params=expected)
    assert save_model(path, CONFIG, expected) == first  # and written over the old one


# --- The fingerprint ---


def test_a_fingerprint_is_for_ever():
    """Files name their model by it."""
    tensors = {"c": np.float32([0.5]), "a/b": np.float32([[1, 2], [3, 4]])}
    assert fingerprint("configuration", tensors) == "6b6565b36a3194b4"


@given(st.data())
def test_a_fingerprint_changes_with_the_last_bit_of_any_weight(data):
    name = data.draw(st.sampled_from(sorted(TENSORS)))
    tensor = TENSORS[name].copy()
    index = data.draw(st.integers(0, tensor.size - 1))
    tensor.flat[index] = np.nextafter(tensor.flat[index], np.float32(np.inf))
    assert fingerprint(CONFIG.to_json(), {**TENSORS, name: tensor}) != fingerprint(CONFIG.to_json(), TENSORS)


def test_a_model_from_before_a_field_was_added_still_loads(tmp_path):
    text = json.dumps({name: value for name, value in json.loads(CONFIG.to_json()).items() if name != "ema_decay"})
    about = {"format": FORMAT, "config": text, "fingerprint": fingerprint(text, TENSORS)}
    (tmp_path / "old.safetensors").write_bytes(save(TENSORS, metadata=about))
    loaded = load_model(tmp_path / "old.safetensors")
    assert_same_model(loaded)
    assert loaded[2] == about["fingerprint"]


def test_a_fingerprint_changes_with_names_shapes_types_and_the_configuration():
    name, tensor = "log_scale_1", TENSORS["log_scale_1"]
    rest = {n: t for n, t in TENSORS.items() if n != name}
    others = [
        fingerprint(CONFIG.to_json(), rest),
        fingerprint(CONFIG.to_json(), {**rest, "log_scale_3": tensor}),
        fingerprint(CONFIG.to_json(), {**rest, name: tensor.reshape(-1, 1)}),
        fingerprint(CONFIG.to_json(), {**rest, name: tensor.view(np.int32)}),
        fingerprint(dataclasses.replace(CONFIG, conditional="laplace").to_json(), TENSORS),
        fingerprint(dataclasses.replace(CONFIG, lmbda=0.02).to_json(), TENSORS),
        fingerprint(CONFIG.to_json(), TENSORS),
    ]
    assert len(set(others)) == len(others)
    assert fingerprint(CONFIG.to_json(), dict(reversed(TENSORS.items()))) == others[-1]  # but not with their order


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
        save({"weight": np.ones(3)}, metadata={"format": "nlvc-float-999"}),
        safetensors_of("BF16", 4),
        safetensors_of("F8_E4M3", 2),
    ],
    ids=["empty", "text", "picture", "zeros", "ones", "plain", "torch", "newer", "bfloat16", "float8"],
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
    scratch.write_bytes(save(TENSORS, metadata=metadata))
    assert_refused(scratch, word)


def test_another_configuration_under_the_same_weights_is_refused(scratch):
    metadata = {"format": FORMAT, "config": base().to_json(), "fingerprint": fingerprint(CONFIG.to_json(), TENSORS)}
    scratch.write_bytes(save(TENSORS, metadata=metadata))
    assert_refused(scratch, "fingerprint")


def test_a_model_without_a_fingerprint_is_refused(scratch):
    scratch.write_bytes(save(TENSORS, metadata={"format": FORMAT, "config": CONFIG.to_json()}))
    assert_refused(scratch, "fingerprint")

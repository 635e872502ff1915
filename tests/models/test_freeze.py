"""What is frozen is the trained model: the integer networks' own arithmetic in float, beside Flax."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from random_models import random_model, random_params

from nlvc.config import tiny
from nlvc.image_codec.freezing import freeze_model
from nlvc.models import freeze_transform, frozen
from nlvc.models.freeze import SCALE_STEP, level_calibrator
from nlvc.models.freeze_transform import around
from nlvc.models.frozen import MEAN_UNITS, SCALE_UNITS
from nlvc.models.nested import SCALE_MIN, NestedLatentModel, bounded

CONFIG = tiny(L=3, channels=5, filters=4, latent_filters=6, strides=(16, 2, 2), dims="tapered", patch_size=128)


@pytest.mark.parametrize("linear_path", [True, False])
@pytest.mark.parametrize("level", [1, 2])
def test_priors_are_those_of_the_flax_model(level, linear_path):
    config = tiny(**{**vars(CONFIG), "linear_path": linear_path})
    params = random_params(config)
    z = np.random.default_rng(level).integers(-2, 3, (1, 14, 12, config.level_channels[level])).astype(np.float32)
    expected = NestedLatentModel(config).apply({"params": params}, level, jnp.asarray(z), method="conditional")
    margin = frozen.level_margins(config, level)[0]
    units = around(z * MEAN_UNITS, margin).astype(np.int32)
    networks = frozen.level_synthesis(level_calibrator(config, params, level), config, level, units)
    # Flax continues every layer by its edge, the frozen networks what goes in: they agree inside.
    inside = lambda x: frozen.crop(np.asarray(x), margin * config.level_strides[level])  # noqa: E731
    mean, log_scale = map(inside, frozen.level_parameters(config, level, *networks))
    np.testing.assert_allclose(mean / MEAN_UNITS, inside(expected.mean), rtol=1e-3, atol=1e-3)
    log_scale = log_scale * SCALE_STEP / SCALE_UNITS + math.log(SCALE_MIN)
    np.testing.assert_allclose(bounded(log_scale), inside(expected.scale), rtol=2e-3)


def test_kernels_are_the_same_at_all_rates():
    arrays = random_model(tiny(**{**vars(CONFIG), "rate": "variable"}))
    assert "decoder/synthesis/Conv_0/kernel" in arrays
    assert {"rates/decoder/synthesis/Conv_0/bias"} <= set(arrays)
    assert not [name for name in arrays if name.startswith("rates/") and name.endswith("kernel")]


def test_a_transform_is_frozen_once_for_all_chains_on_it(monkeypatch):
    config = tiny(**{**vars(CONFIG), "rate": "variable"})
    params, crops = random_params(config), np.random.default_rng(0).random((1, 128, 128, 3), np.float32)
    first = freeze_model(config, params, crops)
    again = freeze_model(config, params, crops)
    assert first.keys() == again.keys()
    for name, value in first.items():
        np.testing.assert_array_equal(again[name], value)

    def frozen_again(*_):
        raise AssertionError("the transform was frozen again")

    monkeypatch.setattr(freeze_transform, "_frozen", frozen_again)
    other = {**params, "log_scale_2": params["log_scale_2"] + 0.5}
    chain = freeze_model(config, other, crops)
    assert any(not np.array_equal(chain[name], first[name]) for name in first if "level_1" in name)
    for name in (name for name in first if "synthesis" in name):
        np.testing.assert_array_equal(chain[name], first[name])
    # Another transform, or other photos, are frozen anew; a rate between the first and the last counts, too.
    gains = np.array(params["log_gain"])
    gains[3] += 0.1
    for changed, photos in (({"log_gain": gains}, crops), ({}, crops + np.float32(0.1))):
        with pytest.raises(AssertionError, match="frozen again"):
            freeze_model(config, {**params, **changed}, photos)

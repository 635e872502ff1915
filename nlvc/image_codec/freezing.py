"""A trained model to what codes photos: the integer networks of `models.freeze`, and the coder's tables."""

import jax
import numpy as np

from nlvc import coding
from nlvc.config import PREDEFINED_PRIORS, Config
from nlvc.image_codec.model import MAX_SYMBOL, CodecError
from nlvc.models.freeze import SCALE_STEP, at_rate, freeze
from nlvc.models.frozen import MEAN_UNITS, SCALE_UNITS
from nlvc.models.nested import NestedLatentModel, bounded
from nlvc.models.rates import QUALITIES, hats, lmbda_of

_LOG_SCALES = np.log(coding.SCALES)
_LOWEST = -512
"""Below it `bounded` gives the smallest scale, as near as the tables go."""


def freeze_model(config: Config, params: dict, crops: np.ndarray) -> dict[str, np.ndarray]:
    """The arrays of a frozen model, for `models.weights.save_model`.

    params: of `NestedLatentModel(config)`; crops: float32 (N, P, P, 3) in [0, 1], to measure ranges on, a dozen of 256
    pixels or more. Raises CodecError for a model that is not finite.
    """
    model = NestedLatentModel(config)
    prior = model.apply({"params": params}, config.L, None, None, method="conditional")
    tables, indices, means = top_codec_parameters(config, prior)
    if config.rate == "variable":
        rates = [at_rate(params, weights) for weights in np.asarray(hats(all_lambdas()), np.float64)]
        arrays = freeze(config, rates, means, crops, seen=range(0, QUALITIES, 25))
    else:
        arrays = freeze(config, [params], means, crops)
    arrays.update({"top/indices": indices, "top/means": means})
    for name, table in (("top", tables), ("levels", coding.scale_tables(config.conditional))):
        arrays.update({f"tables/{name}/{field}": getattr(table, field) for field in ("first", "size", "order", "cdf")})
    arrays["tables/lowest"], arrays["tables/index"] = np.array([_LOWEST], np.int32), scale_indices()
    return arrays


def all_lambdas() -> np.ndarray:
    """(QUALITIES,) float32."""
    return np.array([lmbda_of(quality) for quality in range(QUALITIES)], np.float32)


def scale_indices() -> np.ndarray:
    """The coder's table for every log scale in units, from _LOWEST on: the nearest to the model's bounded scale."""
    units = np.arange(_LOWEST, 63 * SCALE_UNITS + 1)
    scales = np.asarray(bounded(np.float32(_LOG_SCALES[0] + units * SCALE_STEP / SCALE_UNITS)), np.float64)
    return np.clip(np.rint((np.log(scales) - _LOG_SCALES[0]) / SCALE_STEP), 0, 63).astype(np.int32)


def top_codec_parameters(config: Config, prior) -> tuple[coding.Tables, np.ndarray, np.ndarray]:
    """(tables, indices (C or 1,), offsets (C or 1,)) of p(z_L): one table for all, or one for each learned channel."""
    channels = 1 if config.prior in PREDEFINED_PRIORS else config.level_channels[-1]

    def per_channel(values) -> np.ndarray:
        return np.broadcast_to(np.asarray(values, np.float64), (1, 1, 1, channels)).reshape(channels)

    tail = 2.0**-18
    marks = np.array([0.5, tail, 1 - tail], np.float32).reshape(3, 1, 1, 1)
    median, low, high = map(per_channel, jax.jit(lambda prior, p: prior.quantile(p))(prior, marks))
    if not np.all(np.isfinite(median)):
        raise CodecError("p(z_L) of this model is not finite; it was not trained well")
    # Bins lie as they do in training: about the mean, or 0 for a factorised prior, whose median training does not know.
    centre = per_channel(getattr(prior, "mean", 0.0))
    offsets = np.rint(np.clip(centre * MEAN_UNITS, -MAX_SYMBOL, MAX_SYMBOL)).astype(np.int32)
    reach = 1 + np.maximum(np.abs(low - offsets / MEAN_UNITS), np.abs(high - offsets / MEAN_UNITS))
    half = int(np.ceil(min(reach.max(), coding.SCALES[-1] * 16)))
    symbols = np.arange(-half, half + 1)
    places = (symbols[:, None] + offsets / MEAN_UNITS).astype(np.float32)
    log_masses = jax.jit(lambda prior, z: prior.log_mass(z))(prior, places[None, None])
    masses = np.exp(np.asarray(log_masses, np.float64)[0, 0])
    # Float32 masses may sum to a little over 1.
    masses = np.broadcast_to(masses, places.shape) / np.maximum(masses.sum(0), 1.0)
    return coding.tables_from_masses([(-half, m) for m in masses.T]), np.arange(channels, dtype=np.int32), offsets

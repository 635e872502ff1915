"""Where a run starts: from crops of its photos, or from what another run has saved."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Sharding

from nlvc import data
from nlvc.config import TRANSFORM_FIELDS, Config, ConfigError
from nlvc.models.nested import TRANSFORM
from nlvc.training.checkpoint import Checkpoints
from nlvc.training.loop import TrainState, abstract_state, create_state, state_of

START_CROPS = 1024


def stream(config: Config, photos, workers: int = 0, **batches):
    """Batches of the config's crops, as a context manager that ends their threads and processes."""
    return contextlib.closing(data.batches(photos, patch_size=config.patch_size, workers=workers, **batches))


def start_crops(config: Config, photos: data.Photos) -> np.ndarray:
    """The crops that a model of that seed starts from, (START_CROPS, P, P, 3)."""
    # One batch, and none ahead of it: nine would be 1.8 GB at 128 pixels.
    with stream(config, photos, seed=config.seed + 1, batch_size=START_CROPS, prefetch=0) as crops:
        return next(crops)


def first_state(config: Config, crops: Callable[[], np.ndarray], place: Sharding | None = None) -> TrainState:
    """The state at step 0: from `start_crops`, the model of another run, which is read to `place`, or both.

    Raises ConfigError if that run has none, or one of other shapes.
    """
    if not config.init_from:
        return create_state(config, crops())
    source = Config.of_run(config.init_from)
    if config.trained == "chain":
        other = config.differences(source, TRANSFORM_FIELDS)
        if other or config.level_strides[0] != source.level_strides[0]:
            raise ConfigError(f"init_from={config.init_from}: its transform has {other or 'another first stride'}")
        found = saved_state(Path(config.init_from), source, place).ema
        return create_state(config, crops(), {name: found[name] for name in TRANSFORM if name in found})
    params, expected = saved_state(Path(config.init_from), source, place).ema, abstract_state(config).params
    shapes = lambda tree: jax.tree.map(lambda leaf: leaf.shape, tree)  # noqa: E731
    if shapes(params) != shapes(expected):
        raise ConfigError(
            f"init_from={config.init_from}: that model has other parameters; its run had {config.differences(source)}"
        )
    return state_of(config, params)


def saved_state(workdir: Path, config: Config, place: Sharding | None = None) -> TrainState:
    """The newest checkpoint of a run, or the best of one with patience, in `place` or on the first device.

    Raises ConfigError if there is none.
    """
    if (workdir / "checkpoints").is_dir():
        with Checkpoints(workdir) as checkpoints:
            if state := checkpoints.restore(abstract_state(config, place), best=config.patience > 0):
                return state
    raise ConfigError(f"{workdir}: this run has no checkpoint yet")

"""z_1 of the crops that chains on one transform learn from: computed once for all cells of a seed."""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack

import jax
import numpy as np

from nlvc import data
from nlvc.config import TRANSFORM_FIELDS, Config
from nlvc.models.nested import TRANSFORM
from nlvc.training.loop import make_transform
from nlvc.training.states import stream

MOST = 4 << 30
"""Bytes that are kept in memory; beyond them z_1 is computed for each cell."""

_kept: dict[tuple, dict[int, np.ndarray]] = {}
"""z_1 by step, of each transform with its crops."""


def latents(config: Config, params: dict, photos: data.Photos, start: int) -> Iterator[np.ndarray]:
    """Endless batches of z_1, float32 (B, h, w, C), from a step on.

    config: of a chain (`trained=chain`); params: with its transform's.
    """
    transform, key = jax.jit(make_transform(config)), jax.random.key(config.seed)
    kept = _kept.setdefault(_identity(config, params), {})
    step = start
    while True:
        with ExitStack() as open_:
            while step in kept:
                yield kept[step]
                step += 1
            batches = {"seed": config.seed, "batch_size": config.batch_size, "start": step}
            crops = open_.enter_context(stream(config, photos, **batches))
            while step not in kept:
                z = np.asarray(transform(params, next(crops), np.int32(step), key))
                # Lists, because packs on other devices add to these in threads of their own.
                if sum(each.nbytes for its in list(_kept.values()) for each in list(its.values())) + z.nbytes <= MOST:
                    kept[step] = z
                yield z
                step += 1


def _identity(config: Config, params: dict) -> tuple:
    """What z_1 depends on beside the step."""
    digest = hashlib.sha256()
    for path, value in jax.tree.leaves_with_path({name: params[name] for name in TRANSFORM if name in params}):
        digest.update(f"{jax.tree_util.keystr(path)} {value.shape}".encode())
        digest.update(np.asarray(value).tobytes())
    fields = (*TRANSFORM_FIELDS, "data", "seed", "batch_size", "patch_size", "dtype")
    return digest.hexdigest(), config.level_strides[0], *(getattr(config, field) for field in fields)

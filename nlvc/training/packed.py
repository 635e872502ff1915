"""Several models in one program: those whose configurations differ in nothing but lambda and seed.

    device 0: models 0 1 2     device 1: models 3 4 5     ...     shard_map over devices, vmap over a device's models

Every array of the packed state has the models as its first axis. They share nothing: no number of one depends on
another, so one that is not finite harms only itself.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nlvc.config import Config
from nlvc.training.loop import TrainState, abstract_state, make_measure, make_update

AXIS = "models"
MODELS, EVERYWHERE = PartitionSpec(AXIS), PartitionSpec()

MOST = 32
"""Models on a device by default, whatever its memory: each has files that are open, and more do not make it faster."""


def shape_of(config: Config) -> Config:
    """What decides about the program: the configuration without lambda, seed and workdir."""
    return dataclasses.replace(config, lmbda=0.013, seed=0, workdir="")


def mesh_of(devices: Sequence[jax.Device]) -> Mesh:
    """The devices of one pack, side by side."""
    return jax.make_mesh((len(devices),), (AXIS,), axis_types=(jax.sharding.AxisType.Auto,), devices=devices)


def filled(values: Sequence, mesh: Mesh) -> list:
    """As many values as the devices share evenly: the last one again for the places that are left."""
    return [*values, *[values[-1]] * (-len(values) % mesh.size)]


def pack(trees: Sequence, mesh: Mesh):
    """Trees of equal shapes, one a model -> one tree with a first axis of models, spread over the mesh."""
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *map(jax.device_get, filled(trees, mesh)))
    return jax.device_put(stacked, NamedSharding(mesh, MODELS))


def unpack(tree, model: int):
    """One model's tree of a packed one, as NumPy arrays of their own: the packed state may be given away."""
    return jax.tree.map(lambda leaf: np.array(leaf[model]), tree)


def pack_keys(seeds: Sequence[int], mesh: Mesh) -> Array:
    """The keys that `make_update` wants, one a model."""
    keys = jnp.stack([jax.random.key(seed) for seed in filled(seeds, mesh)])
    return jax.device_put(keys, NamedSharding(mesh, MODELS))


@lru_cache(maxsize=8)
def make_packed_step(shape: Config, mesh: Mesh) -> Callable[..., tuple[TrainState, dict[str, Array]]]:
    """The jitted step (state, batches (N, B, P, P, 3), keys (N,), lambdas (N,)) -> (state, metrics), each with a first
    axis of the N models. The given state is donated. Batches as `make_update` takes them: z_1 for chains.

    shape: by `shape_of`, so that packs of one shape find the program compiled.
    """
    update = jax.shard_map(jax.vmap(make_update(shape)), mesh=mesh, in_specs=MODELS, out_specs=MODELS)
    return jax.jit(update, donate_argnums=0)


@lru_cache(maxsize=8)
def make_packed_validation(shape: Config, mesh: Mesh) -> Callable[..., dict[str, Array]]:
    """The jitted measure (params, crops (K, P, P, 3) that all models share, lambdas (N,)) -> metrics of N models."""
    measure = jax.vmap(make_measure(shape), in_axes=(0, None, 0))
    specs = (MODELS, EVERYWHERE, MODELS)
    return jax.jit(jax.shard_map(measure, mesh=mesh, in_specs=specs, out_specs=MODELS))


@lru_cache(maxsize=64)
def bytes_per_model(shape: Config) -> int:
    """What a model of a pack needs on its device, by XLA's account of the step of a pack of one.

    Beside the step's scratch and its arguments there is a second copy of these, for what is being saved.
    """
    mesh = mesh_of(jax.local_devices()[:1])
    place = NamedSharding(mesh, MODELS)

    def stacked(shape: tuple[int, ...], dtype) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((1, *shape), dtype, sharding=place)

    state = jax.tree.map(lambda leaf: stacked(leaf.shape, leaf.dtype), abstract_state(shape))
    batch = (shape.batch_size, shape.patch_size, shape.patch_size, 3)
    if shape.trained == "chain":
        batch = (shape.batch_size, *shape.level_shapes(*batch[1:3])[0], shape.channels)
    batch = stacked(batch, jnp.float32)
    step = make_packed_step(shape, mesh)
    compiled = step.lower(state, batch, stacked((), jax.random.key(0).dtype), stacked((), jnp.float32)).compile()
    memory = compiled.memory_analysis()
    return memory.temp_size_in_bytes + 2 * memory.argument_size_in_bytes


def models_that_fit(shape: Config) -> int:
    """Models of a shape that share the first device, from 1 to MOST: as many as four fifths of its memory hold.

    The same at every time, so that a sweep that is resumed has the same packs. On a CPU, which tells of no memory, it
    is 1: a model keeps the cores busy, and several small products at once are slower there than one after the other
    (benchmarks/sweep.py). The models of a shape share their program all the same.
    """
    stats = jax.local_devices()[0].memory_stats()
    return max(1, min(MOST, int(0.8 * stats["bytes_limit"]) // bytes_per_model(shape))) if stats else 1

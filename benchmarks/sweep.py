"""What packing saves: two lambdas, two seeds and two priors, packed by prior or not, against runs of nlvc.train.

    python benchmarks/sweep.py [--preset tiny] [--L 2] [--patch 128] [--batch 8] [--steps 5] [--of 700]

    nlvc.train       each model compiles its own step, one after the other
    packs of 1       the models of a prior share a program, and take turns
    packs of 4       one program steps all models of a prior at once

All compile what they need, without a cache, and then take the same steps on the same crops; the time of runs of --of
steps is made of these two. CPU seconds, of all cores together, say more than the clock on a shared machine.
"""

import argparse
import dataclasses
import itertools
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from nlvc.config import PRESETS
from nlvc.process import keep_freed_memory
from nlvc.training import packed
from nlvc.training.loop import TrainState, create_state, make_train_step

LAMBDAS, SEEDS, PRIORS = (0.0067, 0.025), (0, 1), ("logistic", "factorized")


class Clock:
    """Seconds on the wall and of all cores since it was made."""

    def __init__(self):
        self._began = time.perf_counter(), time.process_time()

    def read(self) -> np.ndarray:
        """(wall, CPU)."""
        return np.array([time.perf_counter() - self._began[0], time.process_time() - self._began[1]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="tiny", choices=sorted(PRESETS))
    parser.add_argument("--L", type=int, default=2)
    parser.add_argument("--patch", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--of", type=int, default=700, help="steps of a run that the totals are for")
    arguments = parser.parse_args()
    keep_freed_memory()
    device = jax.devices()[0]
    usual = PRESETS[arguments.preset](
        L=arguments.L, patch_size=arguments.patch, batch_size=arguments.batch, steps=arguments.of
    )
    crops = np.random.default_rng(0).random((16, arguments.patch, arguments.patch, 3), np.float32)
    ways = {"nlvc.train": alone, "packs of 1": partial(together, size=1), "packs of 4": partial(together, size=4)}
    compiling, stepping = (dict.fromkeys(ways, 0.0) for _ in range(2))
    for prior in PRIORS:
        configs = [
            dataclasses.replace(usual, prior=prior, lmbda=lmbda, seed=seed)
            for lmbda, seed in itertools.product(LAMBDAS, SEEDS)
        ]
        # All start alike: where they start costs both ways the same.
        start = jax.device_get(create_state(configs[0], crops))
        for name, way in ways.items():
            compiled, stepped = way(configs, start, crops[: arguments.batch], arguments.steps)
            compiling[name] += compiled
            stepping[name] += stepped / arguments.steps
    print(f"8 models on {device.platform} ({device.device_kind}), {arguments.preset} L={arguments.L}, "
          f"{arguments.batch} crops of {arguments.patch} pixels; seconds on the clock (of all cores)")  # fmt: skip
    rows = {name: (compiling[name], stepping[name], compiling[name] + arguments.of * stepping[name]) for name in ways}
    heads = "compilation", "a step of all 8", f"{arguments.of} steps in all"
    print(f"{'':<12}" + "".join(f"{head:>24}" for head in heads) + f"{'times as fast':>20}")
    for name, row in rows.items():
        ratio = rows["nlvc.train"][2] / row[2]
        print(f"{name:<12}" + "".join(f"{f'{wall:.2f} ({cpu:.2f})':>24}" for wall, cpu in row)
              + f"{f'{ratio[0]:.2f} ({ratio[1]:.2f})':>20}")  # fmt: skip


def alone(configs, start: TrainState, batch: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """(seconds of compiling, seconds of stepping) of python -m nlvc.train for each of the models."""
    compiling = stepping = np.zeros(2)
    for config in configs:
        state, batch_ = jax.device_put((jax.tree.map(np.copy, start), batch))
        clock = Clock()
        step = make_train_step(config).lower(state, batch_).compile()
        compiling = compiling + clock.read()
        stepping = stepping + stepped(lambda state, step=step, batch=batch_: step(state, batch), state, steps)
    return compiling, stepping


def together(configs, start: TrainState, batch: np.ndarray, steps: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The same of packs of `size` models, which share one program."""
    mesh, compiled, stepping = packed.mesh_of(jax.local_devices()[:1]), None, np.zeros(2)
    for first in range(0, len(configs), size):
        some = configs[first : first + size]
        state, batches = packed.pack([start] * size, mesh), packed.pack([batch] * size, mesh)
        keys = packed.pack_keys([config.seed for config in some], mesh)
        lambdas = packed.pack([jnp.float32(config.lmbda) for config in some], mesh)
        if not compiled:
            clock = Clock()
            program = packed.make_packed_step(packed.shape_of(some[0]), mesh)
            compiled = program.lower(state, batches, keys, lambdas).compile()
            compiling = clock.read()
        step = partial(lambda program, others, state: program(state, *others), compiled, (batches, keys, lambdas))
        stepping = stepping + stepped(step, state, steps)
    return compiling, stepping


def stepped(step, state: TrainState, steps: int) -> np.ndarray:
    """Seconds of some steps, after one that is not counted."""
    state, _ = jax.block_until_ready(step(state))
    clock = Clock()
    for _ in range(steps):
        state, _ = step(state)
    jax.block_until_ready(state)
    return clock.read()


if __name__ == "__main__":
    main()

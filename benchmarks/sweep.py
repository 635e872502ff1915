"""What packing saves: two lambdas, two seeds and two priors, packed by prior against one model after the other.

    python benchmarks/sweep.py [--preset tiny] [--L 2] [--patch 128] [--batch 8] [--steps 5] [--of 1400]

Both ways compile what they need, without a cache, and then take the same steps on the same crops; the time of a run of
--of steps is made of these two. CPU seconds, of all cores together, say more than the clock on a shared machine.
"""

import argparse
import dataclasses
import itertools
import time

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
    parser.add_argument("--of", type=int, default=1400, help="steps of a run that the totals are for")
    arguments = parser.parse_args()
    keep_freed_memory()
    device = jax.devices()[0]
    usual = PRESETS[arguments.preset](
        L=arguments.L, patch_size=arguments.patch, batch_size=arguments.batch, steps=arguments.of
    )
    crops = np.random.default_rng(0).random((16, arguments.patch, arguments.patch, 3), np.float32)
    ways = {"one after the other": alone, "packed": together}
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
    print(f"{'':<22}{'compilation':>18}{'a step of all 8':>18}{f'{arguments.of} steps in all':>22}")
    for name, row in rows.items():
        print(f"{name:<22}" + "".join(f"{f'{wall:.2f} ({cpu:.2f})':>{18 + 4 * (n == 2)}}" for n, (wall, cpu) in
                                      enumerate(row)))  # fmt: skip
    ratios = [first / second for first, second in zip(*rows.values(), strict=True)]
    print(f"{'times as fast':<22}" + "".join(f"{f'{wall:.2f} ({cpu:.2f})':>{18 + 4 * (n == 2)}}" for n, (wall, cpu) in
                                             enumerate(ratios)))  # fmt: skip


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


def together(configs, start: TrainState, batch: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The same of a pack."""
    mesh = packed.mesh_of(jax.local_devices()[:1])
    state = packed.pack([start] * len(configs), mesh)
    batches = packed.pack([batch] * len(configs), mesh)
    keys = packed.pack_keys([config.seed for config in configs], mesh)
    lambdas = packed.pack([jnp.float32(config.lmbda) for config in configs], mesh)
    clock = Clock()
    step = packed.make_packed_step(packed.shape_of(configs[0]), mesh).lower(state, batches, keys, lambdas).compile()
    return clock.read(), stepped(lambda state: step(state, batches, keys, lambdas), state, steps)


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

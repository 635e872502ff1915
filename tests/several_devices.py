"""Trainings on several devices, in processes of their own: `training/test_devices.py` reads what this prints.

    python several_devices.py FOLDER [ACCUMULATE] [flags of Machine]

One process prints the losses of four steps on 1 device and on several, uninterrupted and resumed from a checkpoint of
the other number. Of several processes each prints those of all together, and those of a run resumed from a checkpoint
that one process has left in the same folder.
"""

import json
import re
import sys
from itertools import count
from pathlib import Path

import jax
import numpy as np

from nlvc.config import Config, tiny
from nlvc.training import devices
from nlvc.training.checkpoint import Checkpoints
from nlvc.training.feed import Feed
from nlvc.training.loop import abstract_state, create_state, make_train_step
from nlvc.training.machine import Machine

STEPS = 4


def batch_at(number: int, rows: int) -> np.ndarray:
    """(rows, 16, 16, 3), the same whoever asks."""
    return np.random.default_rng([3, number]).random((rows, 16, 16, 3), np.float32)


class Run:
    """A training of a very small model on the devices that `machine` names, from a state that all have alike."""

    def __init__(self, config, machine: Machine):
        self.config, self.mesh = config, devices.make_mesh(config, machine)
        self.step = make_train_step(config, devices.everywhere(self.mesh))

    def start(self, first):
        return devices.place_state(jax.tree.map(np.copy, first), self.mesh)

    def advance(self, state, steps):
        """(the state after so many steps, their losses)."""
        process, processes = jax.process_index(), jax.process_count()
        share = self.config.batch_size // processes
        own = slice(process * share, (process + 1) * share)
        rows = (batch_at(number, self.config.batch_size)[own] for number in count(int(state.step)))
        losses = []
        with Feed(rows, self.mesh) as feed:
            for _ in range(steps):
                state, metrics = self.step(state, feed.take())
                feed.watch(metrics)
                losses.append(float(metrics["loss"]))
        return state, losses

    def save(self, folder, state):
        with Checkpoints(folder) as checkpoints:
            checkpoints.save(state, 1.0)

    def restore(self, folder):
        with Checkpoints(folder) as checkpoints:
            return checkpoints.restore(abstract_state(self.config, devices.everywhere(self.mesh)))

    def communication(self) -> list[str]:
        """The kinds of messages between the devices in a step."""
        state = abstract_state(self.config, devices.everywhere(self.mesh))
        batch = devices.place_rows(batch_at(0, self.config.batch_size), self.mesh)
        text = self.step.lower(state, batch).compile().as_text()
        kinds = "all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute"
        return sorted(set(re.findall(rf" ({kinds})(?:-start)?\(", text)))


def small(accumulate: int = 1) -> Config:
    size = {"channels": 6, "filters": 4, "latent_filters": 4, "patch_size": 16, "strides": (4, 2), "batch_size": 8}
    return tiny(L=2, steps=40, accumulate=accumulate, **size)


def main(folder: Path, accumulate: int, machine: Machine) -> dict:
    devices.join(machine)
    config = small(accumulate)
    run, first = Run(config, machine), jax.device_get(create_state(config, batch_at(0, 64)))
    state, losses = run.advance(run.start(first), 2)
    run.save(folder / ("many" if jax.process_count() == 1 else "processes"), state)
    state, more = run.advance(state, STEPS - 2)
    told = {"devices": devices.describe(run.mesh), "many": losses + more}
    if jax.process_count() > 1:
        told["anywhere"] = [devices.anywhere(jax.process_index() == 1), devices.anywhere(False)]
        told["one, resumed on many"] = losses + run.advance(run.restore(folder / "one"), STEPS - 2)[1]
        return told
    told["messages"] = run.communication()
    one = Run(config, Machine(devices=1))
    state, losses = one.advance(one.start(first), 2)
    one.save(folder / "one", state)
    told["one"] = losses + one.advance(state, STEPS - 2)[1]
    told["one, resumed on many"] = losses + run.advance(run.restore(folder / "one"), STEPS - 2)[1]
    told["many, resumed on one"] = told["many"][:2] + one.advance(one.restore(folder / "many"), STEPS - 2)[1]
    return told


if __name__ == "__main__":
    jax.config.update("jax_disable_most_optimizations", True)
    folder, accumulate, *flags = sys.argv[1:]
    fields = dict(flag.removeprefix("--").split("=") for flag in flags)
    kinds = {field: type(value) for field, value in vars(Machine()).items()}
    print(json.dumps(main(Path(folder), int(accumulate), Machine(**{k: kinds[k](v) for k, v in fields.items()}))))

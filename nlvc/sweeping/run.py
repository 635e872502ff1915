"""A pack from its cells to their reports, on the devices that it is given."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np

from nlvc import data, train
from nlvc.sweeping.grid import Cell
from nlvc.sweeping.latents import latents
from nlvc.sweeping.member import Member
from nlvc.sweeping.plan import is_finished
from nlvc.sweeping.progress import DONE, FAILED, Progress, Tell, one_line
from nlvc.training import packed
from nlvc.training.loop import abstract_state
from nlvc.training.states import first_state, start_crops, stream


def run_pack(cells: Sequence[Cell], devices: Sequence[jax.Device], tell: Tell, stopping: Callable[[], bool]) -> None:
    """Trains cells of one shape in one program, and codes the test photos with each. Never raises an Exception.

    Each workdir becomes what python -m nlvc.train makes of the cell's configuration: the same crops, the same noise,
    and the same numbers but for the order in which a packed program adds. What is finished is only told of; what was
    interrupted goes on from its checkpoint. stopping is asked after every step: then all is saved, and it returns.
    """
    for cell in cells:
        if is_finished(cell):
            tell(Progress(cell.name, DONE, cell.config.steps, cell.config.steps))
    cells = [cell for cell in cells if not is_finished(cell)]
    if not cells:
        return
    told: dict[str, Progress] = {}

    def remember(progress: Progress) -> None:
        told[progress.cell] = progress
        tell(progress)

    try:
        with jax.default_device(devices[0]):
            photos = {split: photos_of(cells[0].config.data, split) for split in data.SPLITS}
            members = []
            for cell in cells:
                with failing(lambda error, cell=cell: remember(failure(cell, error))):
                    members.append(Member(cell, remember))
            try:
                started = start(members, photos["train"])
                if started:
                    train_together(started, photos, devices, stopping)
            finally:
                for member in members:
                    with failing(member.fail):
                        member.close()
            for member in members:
                if not member.failed:
                    with failing(member.fail):
                        member.stop() if member.active or stopping() else member.finish(photos)
    except Exception as error:  # of no cell in particular: an unreadable folder of photos, a device out of memory
        for cell in cells:
            if cell.name not in told or not told[cell.name].ended:
                tell(failure(cell, error))


@functools.lru_cache(maxsize=len(data.SPLITS))
def photos_of(name: str, split: str) -> data.Photos:
    """A split of the newest data set, opened once for all packs of a process; threads may share it."""
    return data.photos(name, split)


@contextlib.contextmanager
def failing(fail: Callable[[Exception], None]):
    """What goes wrong inside is one cell's, and told by `fail`."""
    try:
        yield
    except Exception as error:  # whatever it is, the other cells shall not suffer from it
        fail(error)


def failure(cell: Cell, error: Exception) -> Progress:
    """That a cell cannot go on."""
    return Progress(cell.name, FAILED, steps=cell.config.steps, text=one_line(error))


def start(members: Sequence[Member], photos: data.Photos) -> list[Member]:
    """Gives each member its state; returns those for whom that went well."""
    if not members:
        return []
    like = abstract_state(members[0].config)

    @functools.lru_cache(maxsize=1)  # the members of one seed follow each other, or nearly
    def crops(seed: int) -> np.ndarray:
        return start_crops(dataclasses.replace(members[0].config, seed=seed), photos)

    for member in members:
        with failing(member.fail):
            drawn = functools.partial(crops, member.config.seed)
            member.start(like, functools.partial(first_state, member.config, drawn))
    return [member for member in members if not member.failed]


def train_together(
    members: Sequence[Member], photos: dict, devices: Sequence[jax.Device], stopping: Callable[[], bool]
) -> None:
    """Steps until no member is active or `stopping`; every member's journal and checkpoints are as of a run alone.

    Members may be at different steps: each has its own place in the crops, the noise and the schedule. One that has
    ended stays in the program, whose shape must not change, and what becomes of its numbers is not looked at.
    """
    shape, mesh = packed.shape_of(members[0].config), packed.mesh_of(devices[: len(members)])
    step_fn, validate = packed.make_packed_step(shape, mesh), packed.make_packed_validation(shape, mesh)
    validation = data.validation_crops(photos["validation"], shape.patch_size, train.VALIDATION_CROPS)
    state = packed.pack([member.state for member in members], mesh)
    keys = packed.pack_keys([member.config.seed for member in members], mesh)
    lambdas = packed.pack([np.float32(member.config.lmbda) for member in members], mesh)
    pending = []
    with batches(members, photos["train"]) as crops:
        for member in members:
            member.began = time.perf_counter()
        while any(member.active for member in members):
            state, metrics = step_fn(state, packed.pack(next(crops), mesh), keys, lambdas)
            pending.append(metrics)
            stop = stopping()
            active = [member for member in members if member.active]
            for member in active:
                member.step += 1
            if any(stop or member.wants_line() for member in active):
                write_lines(members, active, jax.device_get(pending), stop)
                pending = []
            saved = [m for m in active if not m.failed and (stop or m.wants_saving())]
            if saved:
                save(members, saved, state, jax.device_get(validate(state.ema, validation, lambdas)))
            if stop:
                return


def write_lines(members: Sequence[Member], active: Sequence[Member], pending: Sequence[dict], stop: bool) -> None:
    """Deals the metrics of some steps out to the members, and lets those write whose turn it is."""
    for place, member in enumerate(members):
        if member in active:
            member.pending += [{name: values[place] for name, values in metrics.items()} for metrics in pending]
            if stop or member.wants_line():
                with failing(member.fail):
                    member.write_line()


def save(members: Sequence[Member], saved: Sequence[Member], state, metrics: dict) -> None:
    """Saves some members' part of the packed state; the time it takes is nobody's time of training."""
    began, host = time.perf_counter(), jax.device_get(state)
    for place, member in enumerate(members):
        if member in saved:
            with failing(member.fail):
                member.save(packed.unpack(host, place), {name: values[place] for name, values in metrics.items()})
    for member in members:
        member.began += time.perf_counter() - began


@contextlib.contextmanager
def batches(members: Sequence[Member], photos: data.Photos):
    """An iterator of each step's batches, one a member: crops, float32 (B, P, P, 3), or for chains z_1 of these.

    Members of one seed share theirs.
    """
    with contextlib.ExitStack() as open_:
        streams = {}
        for member in members:
            config, place = member.config, (member.config.seed, member.step)
            if place not in streams:
                if config.trained == "chain":
                    opened = contextlib.closing(latents(config, member.state.params, photos, place[1]))
                else:
                    opened = stream(config, photos, seed=place[0], batch_size=config.batch_size, start=place[1])
                streams[place] = open_.enter_context(opened)
        places = [(member.config.seed, member.step) for member in members]

        def deal():
            while True:
                drawn = {place: next(stream) for place, stream in streams.items()}
                yield [drawn[place] for place in places]

        yield deal()

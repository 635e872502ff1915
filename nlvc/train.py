"""`python -m nlvc.train`: trains a model, resumes it where it stopped, and ends with real files of the test photos."""

import contextlib
import dataclasses
import functools
import os
import signal
import sys
import time
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from nlvc import data
from nlvc.config import Config, ConfigError, parse_flags
from nlvc.evaluation import code_photos, table, write_rows
from nlvc.files import remove_leftovers, write_whole
from nlvc.image_codec import load
from nlvc.image_codec.freezing import freeze_model
from nlvc.models.weights import save_model
from nlvc.process import keep_freed_memory, keep_programs
from nlvc.training import devices
from nlvc.training.checkpoint import Checkpoints
from nlvc.training.feed import Feed
from nlvc.training.journal import Journal
from nlvc.training.loop import TrainState, abstract_state, make_train_step, make_validation
from nlvc.training.machine import Machine
from nlvc.training.optimiser import schedule
from nlvc.training.profile import Profile
from nlvc.training.states import first_state, saved_state, start_crops, stream

VALIDATION_CROPS, FREEZING_CROPS = 16, 12
SILENT = 1e-3
"""Share of the bits below which a level is reported."""


class TrainingError(RuntimeError):
    """A run that cannot go on: one line that says why and what to do."""


def main(argv: list[str] | None = None) -> int:
    """The command. Returns the exit status: 0, 1 for a failed run, 2 for wrong flags, 128 + n for signal n."""
    try:
        config, machine = parse_flags(argv, Machine)
        keep_freed_memory()
        keep_programs()
        devices.join(machine)
        # Of several processes one speaks.
        with contextlib.redirect_stdout(sys.stdout if jax.process_index() == 0 else None):
            return run(config, machine)
    except (ConfigError, TrainingError, ValueError, OSError) as error:
        print(f"nlvc.train: {error}", file=sys.stderr)
        status = 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        print("nlvc.train: stopped; the same command resumes", file=sys.stderr)
        status = 128 + signal.SIGINT
    if jax.distributed.is_initialized():
        os._exit(status)  # an ordinary end waits minutes for the other processes, which wait for this one
    return status


def run(config: Config, machine: Machine) -> int:
    """Trains `config` to its last step and writes model.safetensors and the report into the workdir.

    Of several processes all train, and process 0 does the rest.
    """
    workdir = Path(config.workdir or default_workdir(config))
    mesh = devices.make_mesh(config, machine)
    print(f"{devices.describe(mesh)}, workdir: {workdir}", flush=True)
    photos = {split: data.photos(config.data, split) for split in data.SPLITS}
    claim(workdir, config)
    skipped = {name for split in photos.values() for name, _ in split.skipped}
    print("photos: " + ", ".join(f"{len(p)} {split}" for split, p in photos.items()) + f", {len(skipped)} skipped")

    with Checkpoints(workdir) as checkpoints:
        place = devices.everywhere(mesh)
        like = abstract_state(config, place)
        state = checkpoints.restore(like)
        if state:
            print(f"resuming at step {int(state.step)}")
        else:
            crops = functools.partial(start_crops, config, photos["train"])
            state = devices.place_state(first_state(config, crops, place), mesh)
        share = jax.process_index(), jax.process_count()
        batches = {"seed": config.seed, "batch_size": config.batch_size, "start": int(state.step), "share": share}
        with stream(config, photos["train"], machine.workers, **batches) as rows, Feed(rows, mesh) as feed:
            state, received = train(config, machine, state, feed, photos["validation"], checkpoints, workdir)
        if config.patience and not received:
            state = checkpoints.restore(like, best=True)
            print(f"the model is that of step {int(state.step)}, the best in validation", flush=True)
    if received:
        print(f"stopped by {signal.Signals(received).name} at step {int(state.step)}; the same command resumes")
        return 128 + received

    if machine.several:
        jax.distributed.shutdown()  # else the others would wait for what process 0 still does
    if jax.process_index() == 0:
        path = workdir / "model.safetensors"
        print(f"model: {path}, fingerprint {save_frozen(path, config, state, photos['train'])}", flush=True)
        print(report(workdir, photos["test"]))
    return 0


def save_frozen(path: Path, config: Config, state: TrainState, photos: data.Photos) -> str:
    """Freezes the running mean of the parameters into a file. Returns its fingerprint."""
    crops = data.validation_crops(photos, max(config.patch_size, 256), FREEZING_CROPS)
    return save_model(path, config, freeze_model(config, jax.device_get(state.ema), crops))


def freeze_run(workdir: Path, path: Path) -> str:
    """Freezes the newest checkpoint of a run. Returns the model's fingerprint. Raises ValueError if there is none."""
    config = Config.of_run(workdir)
    return save_frozen(path, config, saved_state(workdir, config), data.photos(config.data, "train"))


def report(workdir: Path, photos: data.Photos) -> str:
    """Codes the test photos with the model of the workdir; writes files/, picture.png and the reports. Their table.

    report.csv has the same figures unrounded. It is written last: where it is, the run is complete.
    """
    model = load(workdir)
    rows = code_photos(model, photos, photos.names, workdir / "files", workdir / "picture.png")
    text = table(rows)
    write_whole(workdir / "report.txt", f"{text}\n".encode())
    write_rows(workdir / "report.csv", rows)
    return f"{text}\nfiles, picture.png and report.txt are in {workdir}"


def train(
    config: Config, machine: Machine, state: TrainState, feed: Feed, photos, checkpoints: Checkpoints, workdir: Path
) -> tuple[TrainState, int]:
    """Steps to the end or to the first signal, with validation on `photos`. The state at the end, which is saved, and
    the number of the signal or 0."""
    start, main = int(state.step), jax.process_index() == 0
    step_fn, rate = make_train_step(config, state.step.sharding), schedule(config)
    validate = make_validation(config, data.validation_crops(photos, config.patch_size, VALIDATION_CROPS))
    recorder = Journal(workdir, start) if main else contextlib.nullcontext()
    profile = Profile(workdir / "profile" if machine.profile and main else None, start, config.steps)
    exhausted = checkpoints.exhausted(config)
    with recorder as journal, profile, signals() as received, progress(config, start, hidden=not main) as bar:
        pending, silent, began, feed.idle = [], [], time.perf_counter(), 0.0
        for step in range(start + 1, start + 1 if exhausted else config.steps + 1):
            profile.before(step)
            batch = feed.take()
            with jax.profiler.StepTraceAnnotation("train", step_num=step):
                state, metrics = step_fn(state, batch)
            feed.watch(metrics)
            pending.append(metrics)
            if told := profile.after(step, metrics):
                bar.write(told)
            # Asked once: a signal that arrives further down is seen after the next step, which is then saved. Several
            # processes have to agree, which takes a moment, so they ask with the lines of metrics only.
            stopping = (not machine.several or step % config.log_every == 0) and devices.anywhere(bool(received))
            last = stopping or step == config.steps
            if last or step % config.log_every == 0 or step % config.checkpoint_every == 0:
                values = summary(jax.device_get(pending), step)
                seconds = time.perf_counter() - began
                speed, wait = len(pending) * config.batch_size / seconds, feed.idle / seconds
                if main:
                    clock = {"images_per_second": speed, "data_wait": wait}
                    journal.write(step, {**values, **clock, "learning_rate": float(rate(step - 1))})
                bar.set_postfix_str(postfix(values, config.L, speed, wait))
                pending, began, feed.idle = [], time.perf_counter(), 0.0
            bar.update()
            if last or step % config.checkpoint_every == 0:
                # Before the state is saved: it raises if the last update has broken the parameters.
                values = summary(jax.device_get([validate(state.ema)]), step)
                if main:
                    journal.write(step, {f"validation_{name}": value for name, value in values.items()})
                    for level in set(found := silent_levels(values, config.L)) - set(silent):
                        bar.write(f"step {step}: z_{level} carries less than {SILENT:.1%} of the bits")
                    silent = found
                checkpoints.save(state, values["loss"])
                exhausted = devices.anywhere(checkpoints.exhausted(config))
                began, feed.idle = time.perf_counter(), 0.0
            if stopping or exhausted:
                break
    stopped = int(state.step) < config.steps and not exhausted
    # Of several processes perhaps another one has received it.
    return state, (received or [signal.SIGTERM])[0] if stopped else 0


def summary(pending: list[dict], step: int) -> dict[str, float]:
    """The means of some steps' metrics by name, bpp_levels as bpp_1..bpp_L. Raises TrainingError if not finite."""
    means = {name: np.mean([np.asarray(metrics[name]) for metrics in pending], axis=0) for name in pending[0]}
    values = {f"bpp_{level}": float(bpp) for level, bpp in enumerate(means.pop("bpp_levels"), start=1)}
    values = {**{name: float(mean) for name, mean in means.items()}, **values}
    if not np.isfinite(values["loss"]):
        raise TrainingError(
            f"the loss is not finite at step {step} or in the {len(pending)} before; try a lower --learning-rate or "
            "--clip-norm, in another --workdir"
        )
    return values


def silent_levels(values: dict[str, float], levels: int) -> list[int]:
    """The levels that carry less than SILENT of the bits: they have collapsed, or the photos do not need them."""
    return [level for level in range(1, levels + 1) if values[f"bpp_{level}"] < SILENT * values["bpp"]]


def postfix(values: dict[str, float], levels: int, speed: float, wait: float) -> str:
    """loss, bpp by level from z_1 on, PSNR if known, speed and share of the time spent waiting, for the bar."""
    bpp = "+".join(f"{values[f'bpp_{level}']:.3f}" for level in range(1, levels + 1))
    psnr = f"  PSNR {values['psnr']:.2f} dB" if "psnr" in values else ""
    return f"loss {values['loss']:.3f}  bpp {bpp}{psnr}  {speed:.0f} images/s  data {wait:.0%}"


def progress(config: Config, start: int, hidden: bool) -> tqdm:
    """The bar: steps done and the time left."""
    return tqdm(total=config.steps, initial=start, unit="step", dynamic_ncols=True, mininterval=1.0, disable=hidden)


@contextlib.contextmanager
def signals():
    """A list that receives SIGINT and SIGTERM, so that the loop can save and leave; a second one ends at once."""
    received: list[int] = []

    def receive(number, _):
        received.append(number)
        signal.signal(number, previous[number])

    previous = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def default_workdir(config: Config) -> str:
    """runs/ and what most often differs between runs."""
    name = Path(config.data.removeprefix("tfds:")).name
    rate = f"{config.lmbda:g}" if config.rate == "fixed" else config.rate
    return f"runs/{config.preset}-L{config.L}-{config.prior}-{rate}-{name}-seed{config.seed}"


def claim(workdir: Path, config: Config) -> None:
    """Makes the workdir this config's own. Raises ConfigError if it holds a run of another."""
    check_owner(workdir, config)
    if jax.process_index() == 0:
        workdir.mkdir(parents=True, exist_ok=True)
        remove_leftovers(workdir)
        if not (workdir / "config.json").exists():
            write_whole(workdir / "config.json", config.to_json().encode())
    devices.meet("the workdir is claimed")
    check_owner(workdir, config)  # of several processes, one with other flags ends here


def check_owner(workdir: Path, config: Config) -> None:
    """Raises ConfigError if the workdir holds a run of another config."""
    path = workdir / "config.json"
    if path.exists() and (found := Config.from_json(path.read_text())) != config:
        names = [f.name for f in dataclasses.fields(Config) if getattr(found, f.name) != getattr(config, f.name)]
        raise ConfigError(f"{workdir} holds a run with other {', '.join(names)}; give another --workdir")


if __name__ == "__main__":
    sys.exit(main())

"""One cell while its pack is trained: what python -m nlvc.train does for a run, beside the step itself."""

import contextlib
import time
from collections.abc import Callable

import jax

from nlvc import train
from nlvc.sweeping.grid import Cell
from nlvc.sweeping.progress import CODING, DONE, FAILED, STARTING, STOPPED, TRAINING, Progress, Tell, one_line
from nlvc.training.checkpoint import Checkpoints
from nlvc.training.journal import Journal
from nlvc.training.loop import TrainState
from nlvc.training.optimiser import schedule
from nlvc.training.states import saved_state


class Member:
    """A cell of a pack: its workdir, the step it has reached, and the metrics since the last line of its journal.

    What goes wrong with it is its own: `fail` says so, and the others go on. `state` is the newest that was saved.
    """

    def __init__(self, cell: Cell, tell: Tell):
        """Claims the workdir. Raises ConfigError if it holds another run, OSError if it cannot be written."""
        self.cell, self.config = cell, cell.config
        self.failed = self.exhausted = False
        self.state: TrainState | None = None
        self.step, self.pending, self.began = 0, [], 0.0
        self._tell, self._figures = tell, {}
        self._rate = schedule(self.config)
        self._files = contextlib.ExitStack()
        train.claim(cell.workdir, self.config)
        self.tell(STARTING)

    def close(self) -> None:
        """Waits for the last checkpoint and closes the journal. Raises what went wrong with saving."""
        self._files.close()

    @property
    def active(self) -> bool:
        """Whether it has steps to go."""
        return not self.failed and not self.exhausted and self.step < self.config.steps

    def start(self, like: TrainState, first_state: Callable[[], TrainState]) -> None:
        """Takes the state from the newest checkpoint, which is of the shapes of `like`, or the first one."""
        self._checkpoints = self._files.enter_context(Checkpoints(self.cell.workdir))
        state = self._checkpoints.restore(like)
        self.state = jax.device_get(first_state() if state is None else state)
        self.step = int(self.state.step)
        self.exhausted = self._checkpoints.exhausted(self.config)
        self._journal = self._files.enter_context(Journal(self.cell.workdir, self.step))
        self.tell(TRAINING)

    def wants_line(self) -> bool:
        """Whether this step is one of the journal's."""
        return self.step % self.config.log_every == 0 or self.wants_saving()

    def wants_saving(self) -> bool:
        """Whether this step is one of the checkpoints'."""
        return self.step == self.config.steps or self.step % self.config.checkpoint_every == 0

    def write_line(self) -> None:
        """The means of what is pending. Raises TrainingError if they are not finite."""
        values = train.summary(self.pending, self.step)
        speed = len(self.pending) * self.config.batch_size / (time.perf_counter() - self.began)
        rate = float(self._rate(self.step - 1))
        self._journal.write(self.step, {**values, "images_per_second": speed, "learning_rate": rate})
        left = (self.config.steps - self.step) * self.config.batch_size / speed
        self._figures = {name: values[name] for name in ("loss", "bpp", "psnr") if name in values}
        self._figures.update(images_per_second=speed, seconds_left=left)
        self.pending, self.began = [], time.perf_counter()
        self.tell(TRAINING)

    def save(self, state: TrainState, metrics: dict) -> None:
        """Saves the state at this step, after its validation metrics. Raises TrainingError if they are not finite."""
        values = train.summary([metrics], self.step)
        self._journal.write(self.step, {f"validation_{name}": value for name, value in values.items()})
        self._checkpoints.save(state, values["loss"])
        self.exhausted = self._checkpoints.exhausted(self.config)
        self.state = state

    def finish(self, photos: dict) -> None:
        """The model's file and the report, made of the last state, or of the best if there is patience."""
        self.tell(CODING)
        state = saved_state(self.cell.workdir, self.config) if self.config.patience else self.state
        train.save_frozen(self.cell.workdir / "model.safetensors", self.config, state, photos["train"])
        train.report(self.cell.workdir, photos["test"])
        self.tell(DONE)

    def stop(self) -> None:
        """Says that it waits for the same command."""
        self.tell(STOPPED)

    def fail(self, error: Exception) -> None:
        """Gives up, and says why: the first reason counts."""
        if not self.failed:
            self.failed = True
            self.tell(FAILED, one_line(error))

    def tell(self, state: str, text: str = "") -> None:
        """Reports a state with the newest figures."""
        self._tell(Progress(self.cell.name, state, self.step, self.config.steps, **self._figures, text=text))

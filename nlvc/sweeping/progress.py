"""What is told of a cell while it is trained: small records that go between threads, processes and computers."""

from collections.abc import Callable
from typing import NamedTuple

WAITING, STARTING, TRAINING, CODING, DONE, FAILED, STOPPED = (
    "waiting", "starting", "training", "coding", "done", "failed", "stopped"
)  # fmt: skip


class Progress(NamedTuple):
    """A cell's state, and from its first step on its figures.

    step of steps; loss, bpp and psnr (dB): means of the last lines of the journal, of the crops; images_per_second: its
    own; text: of a failed cell why, in one line.
    """

    cell: str
    state: str
    step: int = 0
    steps: int = 0
    loss: float = float("nan")
    bpp: float = float("nan")
    psnr: float = float("nan")
    images_per_second: float = 0.0
    seconds_left: float = float("nan")
    text: str = ""

    @property
    def ended(self) -> bool:
        """Whether nothing more will be told."""
        return self.state in (DONE, FAILED, STOPPED)


Tell = Callable[[Progress], None]


def one_line(error: BaseException) -> str:
    """What an error says, in one line of at most 300 characters; its kind where it says nothing."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."

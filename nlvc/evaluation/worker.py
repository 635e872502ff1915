"""A codec in a process of its own, so that its memory is its own, and its crash is no more than a failure.

The process imports what the codec needs and no more; the measures are taken by the process that asked.
"""

import contextlib
import multiprocessing
import signal
import sys
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from nlvc.evaluation.trip import Codec, CodecFailure, Trip, failure, round_trip
from nlvc.process import keep_freed_memory, keep_programs, peak_mib

_PATIENCE = 5.0
"""Seconds that a process gets to end by itself."""


class Answer(NamedTuple):
    """A round trip, and the largest resident memory of the process so far, MiB; nan where the system does not say.

    That memory includes Python, its libraries, and the photo twice at the most; a model's process keeps what it frees.
    """

    trip: Trip
    peak_mib: float


class Worker:
    """Starts the process of a codec at its first photo, and again after a crash. A context manager: ends it.

    Args:
      name: of the codec, for what is raised.
      make: makes the codec over there, so it has to be picklable: a function of a module, or a partial of one.
    """

    def __init__(self, name: str, make: Callable[[], Codec]):
        self._name, self._make, self._process = name, make, None

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def code(self, photo: np.ndarray, setting: float, name: str = "") -> Answer:
        """uint8 (H, W, 3) through the codec over there. Raises CodecFailure, also if the process ends."""
        if self._process is None:
            self._start()
        try:
            self._connection.send((photo, setting, name))
            answer = self._connection.recv()
        except (EOFError, OSError) as error:
            self._process.join(_PATIENCE)
            status = self._process.exitcode
            self.close()
            raise failure(self._name, setting, name, f"its process ended with status {status}") from error
        if isinstance(answer, str):
            raise CodecFailure(answer)
        return answer

    def close(self) -> None:
        """Ends the process, if there is one."""
        process, self._process = self._process, None
        if process is not None:
            self._connection.close()
            process.terminate()
            process.join(_PATIENCE)
            if process.exitcode is None:
                process.kill()
                process.join()

    def _start(self) -> None:
        # Not a fork, which would share our memory, and our threads' locks.
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._make), daemon=True)
        self._process.start()
        theirs.close()


def _serve(connection, make: Callable[[], Codec]) -> None:
    """The process: photos in, answers out, until nobody is there any more."""
    # Ctrl-C reaches all processes of a terminal, but it is the other one that decides what is to be done.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # By an exception, so that what the codec has started is ended as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    codec, made, warm = None, "", set()
    try:
        codec = make()
    except Exception as error:  # as of any codec
        made = " ".join(str(error).split()) or type(error).__name__
    if codec and codec.levels:
        keep_freed_memory()
        keep_programs()
    with contextlib.suppress(EOFError, OSError):
        while True:
            photo, setting, name = connection.recv()
            try:
                if codec is None:
                    raise failure("the codec", setting, name, made)
                # A model compiles its programs for the first photo of a size, and prepares each setting once.
                if codec.levels and not {photo.shape, repr(setting)} <= warm:
                    round_trip(codec, photo, setting, name)
                    warm |= {photo.shape, repr(setting)}
                trip = round_trip(codec, photo, setting, name)
                connection.send(Answer(trip, peak_mib()))
            except CodecFailure as error:
                connection.send(str(error))
    # Nothing is left to be ended by an exception, which would only disturb the end of Python.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

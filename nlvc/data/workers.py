"""Batches made in other processes by grain, which end when they should and speak in one line when they fail."""

import contextlib
import gc
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np

_GRACE = 3.0  # seconds


class WorkerIterator(Iterator):
    """What `dataset` (a grain IterDataset) gives, made by `workers` processes that take turns, then `finish`ed here.

    The processes start at once, each with its own copy of the data set. `close` ends them; so does the end of this
    process, whatever ends it. An error in one is raised here as it is; ChildProcessError if one was killed.
    """

    def __init__(self, dataset, workers: int, ahead: int, finish: Callable[[np.ndarray], np.ndarray]):
        import grain
        from absl import flags

        if not flags.FLAGS.is_parsed():  # grain reads its flags, whose defaults are right
            flags.FLAGS.mark_as_parsed()
        dataset = dataset.mp_prefetch(
            grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=ahead), worker_init_fn=_end_with_us
        )
        self._finish = finish
        self._iterator = iter(dataset)
        self._iterator.get_state()  # makes all the iterators that start_prefetch starts and close ends
        with _without_interrupts():
            self._iterator.start_prefetch()

    def __next__(self) -> np.ndarray:
        try:
            return self._finish(next(self._iterator))
        except RuntimeError as error:  # what grain says of a process that is gone
            reason = str(error).split(". ")[0]
            raise ChildProcessError(f"a data worker is gone, perhaps for want of memory: {reason}") from error

    def get_state(self) -> dict:
        """Where the stream stands, for `set_state`."""
        return self._iterator.get_state()

    def set_state(self, state: dict) -> None:
        """Continues where the stream stood."""
        self._iterator.set_state(state)

    def close(self) -> None:
        """Ends the processes, and frees the shared memory of what was made ahead."""
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None
            gc.collect()  # the iterators of grain refer to each other


@contextlib.contextmanager
def _without_interrupts():
    """Processes started in this block never see Ctrl-C, which goes to all of a terminal: ending them is our part."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_us(*_) -> None:
    """Ends a worker when its parent is gone, also if that was killed; run in the worker."""
    parent = multiprocessing.parent_process()

    def wait() -> None:
        parent.join()
        # By then the queue is full and the worker idle; ended while it makes a block of shared memory, it would leave
        # that behind. Finished blocks are removed by Python's resource tracker, which outlives the parent.
        time.sleep(_GRACE)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()

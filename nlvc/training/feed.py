"""Batches on their way to the devices, and how long these have stood idle for want of one."""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from nlvc.training.devices import place_rows


class Feed:
    """Takes batches (this process's rows) and places them on a mesh. A context manager: it ends its thread.

    idle: seconds in which a batch was waited for and no step was running; whoever reads it sets it back. While steps
    are slower than batches come, it hardly grows.
    """

    def __init__(self, rows: Iterator[np.ndarray], mesh: Mesh):
        self._rows, self._mesh = rows, mesh
        # A thread of its own sees when a step ends, because a step is computed while the next batch is waited for.
        self._watcher = ThreadPoolExecutor(1)
        self._running: list[Future] = []
        self.idle = 0.0

    def __enter__(self) -> "Feed":
        return self

    def __exit__(self, *_) -> None:
        self._watcher.shutdown()

    def take(self) -> Array:
        """The next batch, (B, P, P, 3), shared by its rows. At most one step is still running when it is asked for."""
        while len(self._running) > 1:
            self._running.pop(0).result()
        asked = time.perf_counter()
        rows = next(self._rows)
        came = time.perf_counter()
        if not self._running:
            self.idle += came - asked
        elif self._running[-1].done():
            self.idle += max(came - max(asked, self._running[-1].result()), 0)
        return place_rows(rows, self._mesh)

    def watch(self, results) -> None:
        """Tells of a step that has been started: any arrays that it computes."""
        self._running.append(self._watcher.submit(_end, results))


def _end(results) -> float:
    """Waits for arrays. Returns the time."""
    jax.block_until_ready(results)
    return time.perf_counter()

"""The engine of one computer: a thread for each pack that is being trained, on the devices of this process."""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence

import jax

from nlvc.config import Config
from nlvc.sweeping.plan import Pack
from nlvc.sweeping.progress import Progress
from nlvc.sweeping.run import run_pack
from nlvc.training.packed import bytes_per_model, models_that_fit

LISTEN = 0.5
"""Seconds between looks at what else there is to do while nothing is told."""


class Local:
    """Packs on the devices that JAX has here; `devices` is how many, and the most that a pack may have."""

    def __init__(self, work: Callable = run_pack, devices: Sequence | None = None):
        """work and devices: others for tests of the order alone."""
        self._work = work
        self._devices = list(jax.local_devices() if devices is None else devices)
        self.devices = len(self._devices)

    def __str__(self) -> str:
        kinds = sorted({device.device_kind for device in self._devices})
        return f"{self.devices} {self._devices[0].platform} device{'s' * (self.devices > 1)} ({', '.join(kinds)})"

    def bytes_per_model(self, shape: Config) -> int:
        """What a model takes on its device."""
        return bytes_per_model(shape)

    def fitting(self, shape: Config) -> int:
        """How many models of a shape share a device."""
        return models_that_fit(shape)

    def run(self, packs: Sequence[Pack], stopping: Callable[[], bool]) -> Iterator[Progress | None]:
        """Starts each pack, in order, as soon as there are devices for it. Yields what is told, and None now and then.

        After the first time that `stopping` is true no pack starts, and those that run save and end.
        """
        told: queue.Queue = queue.Queue()
        free, waiting, running = list(self._devices), list(packs), 0

        def work(pack: Pack, devices: list) -> None:
            try:
                self._work(pack.cells, devices, told.put, stopping)
            finally:
                told.put(devices)

        while waiting or running:
            while waiting and waiting[0].devices <= len(free) and not stopping():
                pack = waiting.pop(0)
                devices, free = free[: pack.devices], free[pack.devices :]
                # Daemons, so that a second Ctrl-C ends at once: what is saved is whole.
                threading.Thread(target=work, args=(pack, devices), daemon=True).start()
                running += 1
            if not running:
                return
            try:
                message = told.get(timeout=LISTEN)
            except queue.Empty:
                yield None
                continue
            if isinstance(message, Progress):
                yield message
            else:
                free, running = free + message, running - 1

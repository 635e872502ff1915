"""The engine of several computers: Ray gives each pack a process with its own devices, on one of them.

All computers see the same files under the same names: what a pack writes goes to its workdirs directly, so a pack that
dies with its computer is started again elsewhere and goes on from its checkpoint.
"""

import functools
import os
from collections.abc import Callable, Iterator, Sequence

from nlvc.config import Config, ConfigError
from nlvc.sweeping.plan import Pack
from nlvc.sweeping.progress import FAILED, Progress, one_line

LISTEN = 0.5
"""Seconds between looks at what has been told."""


class Cluster:
    """Packs as Ray's tasks. devices: how many a pack may have at most; cpus: what a pack asks for without a GPU."""

    def __init__(self, address: str | None, cpus: int | None):
        """address: of a cluster; without it, the one that runs here, or a new one of this computer alone.

        Raises ConfigError if Ray is not installed or cannot be reached.
        """
        try:
            import ray
            from ray.util.queue import Queue
        except ImportError:
            raise ConfigError("--engine ray: Ray is not installed here; pip install -e '.[ray]'") from None
        try:
            ray.init(address=address, log_to_driver=False, logging_level="error")
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ConfigError(f"--engine ray: {one_line(error)}") from None
        self._ray, self._queue = ray, Queue
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus = [int(node.get("GPU", 0)) for node in nodes]
        self._on_gpus = max(gpus) > 0
        # A pack lives in one process: it has the GPUs of one computer, or its cores.
        self.devices = max(gpus) if self._on_gpus else 1
        self._packs = sum(gpus) if self._on_gpus else len(nodes)
        self._cpus = cpus or (1 if self._on_gpus else int(min(node.get("CPU", 1) for node in nodes)))

    def __str__(self) -> str:
        return f"Ray, {self._packs} {'GPU' if self._on_gpus else 'computer'}{'s' * (self._packs > 1)}"

    def bytes_per_model(self, shape: Config) -> int:
        """What a model takes on its device, found out on one of them."""
        return self._survey(shape)[0]

    def fitting(self, shape: Config) -> int:
        """How many models of a shape share a device."""
        return self._survey(shape)[1]

    @functools.lru_cache(maxsize=64)  # noqa: B019  (there is one engine, for as long as the program runs)
    def _survey(self, shape: Config) -> tuple[int, int]:
        return self._ray.get(self._remote(survey, 1).remote(shape))

    def _remote(self, function: Callable, devices: int):
        resources = {"num_cpus": self._cpus, "num_gpus": devices if self._on_gpus else 0}
        # A process for each task: JAX keeps a device and its memory for as long as the process lives.
        return self._ray.remote(max_calls=1, max_retries=3, **resources)(function)

    def run(self, packs: Sequence[Pack], stopping: Callable[[], bool]) -> Iterator[Progress | None]:
        """Hands all packs to Ray, which starts them as devices become free. Yields what is told, and None in between.

        When `stopping` is true, packs that have not started are taken back, and those that run save and end.
        """
        told = self._queue()
        tasks = {self._remote(work, pack.devices).remote(os.getcwd(), pack, told): pack for pack in packs}
        ended: set[str] = set()
        cancelled = False
        while tasks:
            if stopping() and not cancelled:
                cancelled = True
                for task in tasks:
                    self._ray.cancel(task)
            done, _ = self._ray.wait(list(tasks), timeout=LISTEN)
            for progress in told.get_nowait_batch(told.qsize()):
                ended |= {progress.cell} if progress.ended else set()
                yield progress
            for task in done:
                pack = tasks.pop(task)
                try:
                    self._ray.get(task)
                except self._ray.exceptions.TaskCancelledError:
                    continue
                except self._ray.exceptions.RayError as error:  # its process or its computer died, several times
                    for cell in pack.cells:
                        if cell.name not in ended:
                            yield Progress(cell.name, FAILED, steps=cell.config.steps, text=one_line(error))
            yield None
        told.shutdown()


def survey(shape: Config) -> tuple[int, int]:
    """(bytes of a model, models that share a device), found out by a worker."""
    from nlvc.training.packed import bytes_per_model, models_that_fit

    return bytes_per_model(shape), models_that_fit(shape)


def work(folder: str, pack: Pack, told) -> None:
    """A pack in a process of its own. Ray cancels it as Ctrl-C would: it saves and ends."""
    import jax

    from nlvc import process, train
    from nlvc.sweeping.run import run_pack

    os.chdir(folder)
    process.keep_freed_memory()
    process.keep_programs()
    with train.signals() as received:
        run_pack(pack.cells, jax.local_devices()[: pack.devices], told.put, lambda: bool(received))

"""The real commands, each in a process of its own, and how far they have come; for tests that stop and kill them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]


class Commands:
    """Commands in one folder, with the photos in it, and a cache of compiled programs that all of them share."""

    limit = 900
    """Seconds after which a command is taken to hang."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.environment.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder / "cache"))
        self.environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
        # Halves the time of compilation.
        flags = os.environ.get("XLA_FLAGS", "")
        self.environment["XLA_FLAGS"] = f"{flags} --xla_backend_optimization_level=0".strip()

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen:
        """A command that writes its stdout and stderr to the files `out` and `err`."""
        with (self.folder / "out").open("w") as out, (self.folder / "err").open("w") as err:
            return subprocess.Popen(
                [sys.executable, "-m", *arguments], cwd=self.folder, env={**self.environment, **environment},
                stdin=subprocess.DEVNULL, stdout=out, stderr=err,
            )  # fmt: skip

    def run(self, *arguments: str, **environment: str) -> tuple[int, str, str]:
        """(exit status, stdout, stderr) of a command."""
        return self.finish(self.start(*arguments, **environment))

    def finish(self, process: subprocess.Popen) -> tuple[int, str, str]:
        """The same of one that has been started."""
        try:
            status = process.wait(self.limit)
        finally:
            process.kill()
        return status, (self.folder / "out").read_text(), (self.folder / "err").read_text()

    def until(self, moment: Callable[[], bool], number: signal.Signals, *arguments: str) -> int:
        """Starts a command, sends it a signal as soon as it is that moment; returns its exit status."""
        process = self.start(*arguments)
        try:
            while process.poll() is None and not moment():
                time.sleep(0.002)
            process.send_signal(number)
        except BaseException:
            process.kill()
            raise
        return self.finish(process)[0]

    def step_of(self, workdir: str) -> int:
        """The last step of which the journal in that folder has a whole line."""
        path = self.folder / workdir / "metrics.jsonl"
        whole = path.read_text().split("\n")[:-1] if path.exists() else []
        return json.loads(whole[-1])["step"] if whole else 0

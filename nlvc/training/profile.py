"""A look at where the time of a step goes: JAX's profiler, for a few steps of a run."""

from pathlib import Path

import jax

WARM_UP, TRACED = 10, 10


class Profile:
    """Traces ten steps into a folder, after ten others (fewer of both in a short run). A context manager."""

    def __init__(self, folder: Path | None, start: int, steps: int):
        """folder: None for no trace; start: the step that the run begins or resumes at; steps: its last one."""
        self._folder = folder
        self._first = start + min(WARM_UP, (steps - start) // 2) + 1
        self._last = min(self._first + TRACED - 1, steps)
        self._tracing = False

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, *_) -> None:
        if self._tracing:
            jax.profiler.stop_trace()

    def before(self, step: int) -> None:
        """To be called when a step is about to start."""
        if self._folder and step == self._first:
            jax.profiler.start_trace(self._folder)
            self._tracing = True

    def after(self, step: int, results) -> str:
        """To be called with what a step computes. After the last one it waits for it and says where the trace is."""
        if not self._tracing or step != self._last:
            return ""
        jax.block_until_ready(results)
        jax.profiler.stop_trace()
        self._tracing = False
        return f"profile: steps {self._first} to {self._last} are in {self._folder} (TensorBoard, or ui.perfetto.dev)"

"""What a run says of itself: metrics as JSON lines and as TensorBoard events in its workdir."""

import json
from pathlib import Path

from nlvc.files import write_whole


class Journal:
    """Appends to WORKDIR/metrics.jsonl and WORKDIR/tensorboard. A context manager: it closes at the end."""

    def __init__(self, workdir: Path, start: int):
        """start: the step that the run begins or resumes at. Lines of later steps, which a killed run wrote, go."""
        from tensorboardX import SummaryWriter

        path = workdir / "metrics.jsonl"
        kept = []
        if path.exists():
            for line in path.read_text().splitlines():
                try:
                    kept += [line] if json.loads(line)["step"] <= start else []
                except ValueError:  # the last line of a killed process may be cut
                    continue
        write_whole(path, "".join(line + "\n" for line in kept).encode())
        self._lines = path.open("a")
        self._events = SummaryWriter(str(workdir / "tensorboard"), purge_step=start + 1)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_) -> None:
        self._lines.close()
        self._events.close()

    def write(self, step: int, values: dict[str, float]) -> None:
        """One line: the step and named numbers."""
        self._lines.write(json.dumps({"step": step, **values}) + "\n")
        self._lines.flush()
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

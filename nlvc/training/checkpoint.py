"""Saving and resuming a run, by Orbax. A checkpoint appears whole or not at all, whatever kills the process."""

from pathlib import Path

import jax
import orbax.checkpoint as ocp

from nlvc.training.loop import TrainState


class Checkpoints:
    """The checkpoints of one run, the newest three, in WORKDIR/checkpoints. A context manager: it waits at the end."""

    def __init__(self, workdir: Path):
        options = ocp.CheckpointManagerOptions(max_to_keep=3)
        self._manager = ocp.CheckpointManager(workdir.absolute() / "checkpoints", options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_) -> None:
        self._manager.close()

    def save(self, state: TrainState) -> None:
        """Writes in the background; the state may be donated at once."""
        self._manager.save(int(state.step), args=ocp.args.StandardSave(state))

    def restore(self, like: TrainState) -> TrainState | None:
        """The newest state, placed as `like` is (which may be abstract), or None in a fresh workdir."""
        step = self._manager.latest_step()
        if step is None:
            return None
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        return self._manager.restore(step, args=ocp.args.StandardRestore(abstract))

"""Saving and resuming a run, by Orbax. A checkpoint appears whole or not at all, whatever kills the process."""

from pathlib import Path

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from nlvc.config import Config
from nlvc.training.loop import TrainState


def _loss(metrics: dict) -> float:
    return metrics["loss"]


class Checkpoints:
    """The checkpoints of one run in WORKDIR/checkpoints: the newest three and the best. A context manager: it waits at
    the end."""

    def __init__(self, workdir: Path):
        kept = AnyPreservationPolicy([LatestN(3), BestN(n=1, get_metric_fn=_loss, reverse=True)])
        options = ocp.CheckpointManagerOptions(best_fn=_loss, best_mode="min", preservation_policy=kept)
        self._manager = ocp.CheckpointManager(workdir.absolute() / "checkpoints", options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_) -> None:
        self._manager.close()

    def save(self, state: TrainState, loss: float) -> None:
        """Writes in the background; the state may be donated at once. loss: of the validation, by which one is best."""
        self._manager.save(int(state.step), args=ocp.args.StandardSave(state), metrics={"loss": float(loss)})

    def restore(self, like: TrainState, best: bool = False) -> TrainState | None:
        """The newest state, or the best, placed as `like` is (which may be abstract); None in a fresh workdir."""
        step = self._manager.best_step() if best else self._manager.latest_step()
        if step is None:
            return None
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        return self._manager.restore(step, args=ocp.args.StandardRestore(abstract))

    def exhausted(self, config: Config) -> bool:
        """Whether the patience of the run, if it has any, has ended: the best checkpoint is that old."""
        newest, best = self._manager.latest_step(), self._manager.best_step()
        if not config.patience or best is None:
            return False
        return newest - best >= config.patience * config.checkpoint_every

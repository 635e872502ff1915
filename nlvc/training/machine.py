"""How a run is computed, which is no part of what it computes: its machines may be others when it is resumed."""

import dataclasses
import os
import re

from nlvc.config import ConfigError

_TASKS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
"""Where srun and mpirun say how many processes they have started together."""


@dataclasses.dataclass(frozen=True)
class Machine:
    """The part of the flags that is not saved with a run: the result is the same but for the rounding of sums."""

    workers: int = 0
    """Processes that decode photos. 0: threads of this process."""
    devices: int = 0
    """Devices of each process that share a batch. 0: all, or the most that can share it evenly."""
    coordinator: str = ""
    """HOST:PORT of process 0, where the processes of a run on several hosts meet."""
    processes: int = 0
    """How many processes. 0: one, or as many as srun or mpirun has started."""
    process: int = -1
    """Which of them this is, from 0; process 0 writes everything."""
    profile: bool = False
    """Trace ten steps into WORKDIR/profile, for TensorBoard, XProf or ui.perfetto.dev."""

    def __post_init__(self):
        for name in ("workers", "devices", "processes"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}={getattr(self, name)}: must not be negative")
        if not self.coordinator:
            if self.processes > 1 or self.process > 0:
                raise ConfigError("coordinator: several processes need to meet; give --coordinator=HOST:PORT")
            return
        if not re.fullmatch(r".+:[0-9]{1,5}", self.coordinator):
            raise ConfigError(f"coordinator={self.coordinator!r}: must be HOST:PORT of process 0")
        if self.processes < 2:
            raise ConfigError(f"processes={self.processes}: a coordinator is for at least 2")
        if not 0 <= self.process < self.processes:
            raise ConfigError(f"process={self.process}: must be from 0 to {self.processes - 1}")

    @property
    def several(self) -> bool:
        """Whether this process is one of several, by its flags or, where they are silent, by its environment."""
        if self.processes:
            return self.processes > 1
        return any(os.environ.get(name, "1") not in ("", "0", "1") for name in _TASKS)

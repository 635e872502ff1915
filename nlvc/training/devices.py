"""Where a run is computed: each device has the whole state and its share of every batch, on one host or several.

The loss is a mean over the batch, so XLA adds up the devices' gradients by itself; noise is drawn for the whole batch.
"""

import jax
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from nlvc.config import Config, ConfigError
from nlvc.training.machine import Machine


def join(machine: Machine) -> None:
    """Meets the other processes of a run on several hosts; before the first use of a device.

    Without a coordinator JAX finds the others through the cluster's environment. Raises ValueError if that fails.
    """
    if not machine.several:
        return
    named = (machine.coordinator, machine.processes, machine.process) if machine.coordinator else ()
    try:
        jax.distributed.initialize(*named)
    except (RuntimeError, ValueError) as error:
        advice = "give --coordinator, --processes and --process, or --processes=1 to train alone"
        raise ValueError(f"the processes have not met ({str(error).splitlines()[0]}); {advice}") from None


def make_mesh(config: Config, machine: Machine) -> Mesh:
    """The devices that share a batch, on an axis called "batch": as many of each process, one process after another.

    Raises ConfigError if there are not so many, or if they cannot share the batch evenly.
    """
    processes = jax.process_count()
    devices = [[d for d in jax.devices() if d.process_index == process] for process in range(processes)]
    available, rows = min(map(len, devices)), config.batch_size // config.accumulate
    if machine.devices > available:
        raise ConfigError(f"devices={machine.devices}: there are {available}")
    fitting = [count for count in range(1, available + 1) if rows % (count * processes) == 0]
    if not fitting or (machine.devices and machine.devices not in fitting):
        total = processes * (machine.devices or 1)
        parts = f" in {config.accumulate} parts" if config.accumulate > 1 else ""
        raise ConfigError(
            f"batch_size={config.batch_size}{parts}: cannot be shared evenly by {total} devices; "
            f"give a multiple of {total * config.accumulate}, or other --devices"
        )
    count = machine.devices or fitting[-1]
    return Mesh(np.array([own[:count] for own in devices]).ravel(), ("batch",), axis_types=(AxisType.Auto,))


def describe(mesh: Mesh) -> str:
    """The devices in words, such as "device: cpu (cpu)" or "devices: 4 of 6 cuda (NVIDIA H200)"."""
    first, total = mesh.devices.flat[0], jax.device_count()
    kind, processes = f"{first.platform} ({first.device_kind})", jax.process_count()
    if total == 1:
        return f"device: {kind}"
    count = f"{mesh.size}" if mesh.size == total else f"{mesh.size} of {total}"
    return f"devices: {count} {kind}" + (f" of {processes} processes" if processes > 1 else "")


def everywhere(mesh: Mesh) -> NamedSharding:
    """The place of the state: all of it on each device."""
    return NamedSharding(mesh, PartitionSpec())


def place_state(state, mesh: Mesh):
    """A state (or any tree) of this process -> the same on all devices, as process 0 has it."""
    if jax.process_count() > 1:
        # What is computed from the first crops may differ in its last bits between processors.
        state = multihost_utils.broadcast_one_to_all(jax.device_get(state))
    return jax.device_put(state, everywhere(mesh))


def place_rows(rows: np.ndarray, mesh: Mesh) -> Array:
    """This process's rows of a batch -> the batch (B, ...), shared by its rows."""
    return jax.make_array_from_process_local_data(NamedSharding(mesh, PartitionSpec("batch")), rows)


def meet(name: str) -> None:
    """Waits until all processes are here."""
    multihost_utils.sync_global_devices(name)


def anywhere(flag: bool) -> bool:
    """Whether any process has the flag set; all processes must ask."""
    return bool(np.any(multihost_utils.process_allgather(np.array(flag)))) if jax.process_count() > 1 else flag

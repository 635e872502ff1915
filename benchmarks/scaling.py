"""Weak scaling: the same crops a device on 1, 2, 4 and 8 devices, and the same batches on one device beside them.

    python benchmarks/scaling.py [--devices 1 2 4 8] [--each 2] [--steps 4] [--preset tiny]

Where there are fewer devices, a CPU is divided into virtual ones: these share its cores, so that a step takes as much
longer as there is more to compute. Then the figures say that the losses agree, and what the division itself costs.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--each", type=int, default=2, help="crops a device")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        measure(arguments)
        return
    # In a process of its own, because the number of virtual devices is fixed before JAX starts; GPUs are not divided.
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={max(arguments.devices)}"
    subprocess.run([sys.executable, *sys.argv, "--child"], env={**os.environ, "XLA_FLAGS": flags}, check=True)


def measure(arguments: argparse.Namespace) -> None:
    """Prints a line for each number of devices."""
    import jax
    import numpy as np

    from nlvc.config import PRESETS
    from nlvc.training import devices
    from nlvc.training.loop import create_state, make_train_step
    from nlvc.training.machine import Machine

    if max(arguments.devices) > jax.device_count():
        raise SystemExit(f"there are {jax.device_count()} devices; give fewer --devices, or JAX_PLATFORMS=cpu")
    print(f"{jax.devices()[0].device_kind}, {arguments.each} crops of 128 pixels a device, preset {arguments.preset}")
    print("devices  batch  ms a step and crop  loss of the last step  on one device  difference")
    for count in arguments.devices:
        config = PRESETS[arguments.preset](batch_size=count * arguments.each, steps=100)
        rng = np.random.default_rng(0)
        crops = rng.random((64, 128, 128, 3), np.float32)
        batches = [rng.random((config.batch_size, 128, 128, 3), np.float32) for _ in range(arguments.steps)]
        first, found = jax.device_get(create_state(config, crops)), {}
        for used in {count, 1}:
            mesh = devices.make_mesh(config, Machine(devices=used))
            step = make_train_step(config, devices.everywhere(mesh))
            state, times = devices.place_state(jax.tree.map(np.copy, first), mesh), []
            for rows in batches:
                batch, began = devices.place_rows(rows, mesh), time.perf_counter()
                state, metrics = jax.block_until_ready(step(state, batch))
                times.append(time.perf_counter() - began)
            found[used] = float(metrics["loss"]), 1000 * statistics.median(times[1:]) / config.batch_size
        (loss, pace), (alone, _) = found[count], found[1]
        print(f"{count:7}  {config.batch_size:5}  {pace:18.1f}  {loss:21.6f}  {alone:13.6f}  {loss - alone:+10.1e}")


if __name__ == "__main__":
    main()

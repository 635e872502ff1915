"""How fast a training step is: as a share of plain matrix products, and beside CompressAI's hyperprior if installed.

    python benchmarks/train_step.py [--patches 128 256] [--levels 2 5] [--presets paper base]
                                    [--dtypes float32 bfloat16] [--batch 8] [--repeats 7]

Every figure is a median of turns taken one after the other in the same process; on a shared machine look at the
ratios. The FLOPs are those of the matrix products and convolutions in the step's own program, gradients included;
"matrix products" is the time that the same number of FLOPs takes as square products of the same type, of 2048 x 2048 on
a CPU and 8192 x 8192 elsewhere. XLA's own count, in brackets, has the elementwise work too.
"""

import argparse
import math
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr

from nlvc.config import PRESETS, Config
from nlvc.models import layers
from nlvc.process import keep_freed_memory
from nlvc.training.loop import create_state, make_train_step

BATCH = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--levels", type=int, nargs="+", default=[2, 5])
    parser.add_argument("--presets", nargs="+", default=["paper", "base"], choices=sorted(PRESETS))
    parser.add_argument("--dtypes", nargs="+", default=["float32"], choices=["float32", "bfloat16"])
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    keep_freed_memory()
    device = jax.devices()[0]
    print(f"{device.platform} ({device.device_kind}), batch {arguments.batch}")
    layer(arguments.repeats)
    for patch in arguments.patches:
        peer = compressai_step(patch, arguments.batch)
        if peer:
            print(f"{'CompressAI bmshj2018-hyperprior':<34}{patch:>4} px {median(peer, 3):8.3f} s a step")
        else:
            print("CompressAI is not installed: no peer in this run")
        for preset in arguments.presets:
            for levels in arguments.levels:
                for dtype in arguments.dtypes:
                    changes = {"L": levels, "patch_size": patch, "batch_size": arguments.batch, "dtype": dtype}
                    report(PRESETS[preset](**changes, steps=1000), arguments.repeats, peer)


def report(config: Config, repeats: int, peer) -> None:
    """One line: the step, its FLOPs, its share of the matrix products' speed, and the ratio to the peer."""
    batch, patch = config.batch_size, config.patch_size
    crops = np.random.default_rng(0).random((batch, patch, patch, 3), np.float32)
    step = make_train_step(config)
    # The step gives its state away, so the newest one is kept here.
    states = [create_state(config, crops)]
    flops = count_flops(jax.make_jaxpr(step)(states[0], crops))
    step = step.lower(states[0], crops).compile()
    costs = step.cost_analysis() or {}
    crops = jax.device_put(crops)

    def train():
        states[0], metrics = step(states[0], crops)
        jax.block_until_ready(metrics)

    side = 2048 if jax.default_backend() == "cpu" else 8192
    matrix = jnp.ones((side, side), config.dtype)
    multiply = jax.jit(jnp.dot)
    train(), jax.block_until_ready(multiply(matrix, matrix))
    own, bound, other = [], [], []
    for _ in range(repeats):
        own.append(timed(train))
        bound.append(timed(lambda: jax.block_until_ready(multiply(matrix, matrix))) * flops / (2 * side**3))
        if peer:
            other.append(timed(peer))
    seconds = statistics.median(own)
    share = statistics.median(b / o for b, o in zip(bound, own, strict=True))
    text = f"{config.preset} L={config.L} {config.dtype}"
    text = f"{text:<34}{patch:>4} px {seconds:8.4f} s a step, {batch / seconds:7.1f} images/s, "
    text += f"{flops / 1e9:6.1f} GFLOP ({costs.get('flops', math.nan) / 1e9:.1f}), "
    text += f"{flops / seconds / 1e12:6.3f} TFLOP/s, {share:4.0%} of matrix products"
    if other:
        text += f", {statistics.median(p / o for p, o in zip(other, own, strict=True)):.2f} x as fast as CompressAI"
    print(text, flush=True)


def layer(repeats: int) -> None:
    """One 3x3 layer, 70 to 70 filters on (8, 32, 32), value and gradients: as a dot and as a native convolution."""
    x, kernel = jnp.ones((BATCH, 32, 32, 70)), jnp.ones((3, 3, 70, 70))
    native = lambda x, k: jax.lax.conv_general_dilated(  # noqa: E731
        x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    times = {}
    for name, function in (("dot", layers.convolve_as_dot), ("native", native)):
        gradient = jax.jit(jax.grad(lambda x, k, f=function: jnp.sum(f(x, k) ** 2), (0, 1)))
        run = lambda g=gradient: jax.block_until_ready(g(x, kernel))  # noqa: E731
        run()
        times[name] = median(run, repeats)
    print(f"one layer with gradients: the dot form is {times['native'] / times['dot']:.2f} x as fast as the native one")


def compressai_step(patch: int, batch: int):
    """A training step of CompressAI's bmshj2018-hyperprior, quality 4, as a function; None if it is not installed."""
    try:
        import torch
        from compressai.losses import RateDistortionLoss
        from compressai.zoo import bmshj2018_hyperprior
    except ImportError:
        return None
    model, loss = bmshj2018_hyperprior(4).train(), RateDistortionLoss(0.013)
    optimiser = torch.optim.Adam(model.parameters(), 1e-4)
    x = torch.rand(batch, 3, patch, patch)

    def train():
        optimiser.zero_grad()
        loss(model(x), x)["loss"].backward()
        optimiser.step()

    train()
    return train


def count_flops(program: ClosedJaxpr | Jaxpr) -> float:
    """FLOPs of all matrix products and convolutions of a program, inner ones included."""
    total = 0.0
    for equation in program.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            total += 2 * np.prod(equation.outvars[0].aval.shape) * np.prod([left[axis] for axis in contracted])
        elif equation.primitive.name == "conv_general_dilated":
            kernel, numbers = equation.invars[1].aval.shape, equation.params["dimension_numbers"]
            taps = np.prod(kernel) / kernel[numbers.rhs_spec[0]]
            total += 2 * np.prod(equation.outvars[0].aval.shape) * taps
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda p: hasattr(p, "eqns")):
            if hasattr(inner, "eqns"):
                total += count_flops(inner)
    return total


def timed(function) -> float:
    begin = time.perf_counter()
    function()
    return time.perf_counter() - begin


def median(function, repeats: int) -> float:
    return statistics.median(timed(function) for _ in range(repeats))


if __name__ == "__main__":
    main()

"""Multiply-accumulates and parameters of a model, counted in the program that JAX traces."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jax.extend import core

from nlvc.config import Config
from nlvc.models.nested import NestedLatentModel


def macs(function, *arguments) -> int:
    """Multiply-accumulates of the convolutions and matrix products in a function of arrays (or of their shapes)."""
    return _count(jax.make_jaxpr(function)(*arguments).jaxpr)


def _count(jaxpr: core.Jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        ins, outs = ([variable.aval.shape for variable in side] for side in (equation.invars, equation.outvars))
        name, options = equation.primitive.name, equation.params
        if name == "dot_general":
            (contracted, _), _ = options["dimension_numbers"]
            total += math.prod(outs[0]) * math.prod(ins[0][axis] for axis in contracted)
        elif name == "conv_general_dilated":
            # Each output sums over the kernel but for the axis of its outputs.
            outputs = ins[1][options["dimension_numbers"].rhs_spec[0]]
            total += math.prod(outs[0]) * math.prod(ins[1]) // outputs
        else:
            times = options.get("length", 1) if name == "scan" else 1
            total += times * sum(map(_count, core.jaxprs_in_params(options)))
    return total


def per_pixel(config: Config, side: int = 512) -> tuple[float, float, int]:
    """(MACs a pixel to compress, MACs a pixel to decompress, parameters) of a model, without the margins of tiles.

    To compress is to infer all latents and to compute what they are coded by; a context's networks count once. A model
    of variable rate is counted at one of its rates, as it codes.
    """
    model = NestedLatentModel(dataclasses.replace(config, rate="fixed"))
    x, key = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32), jax.random.key(0)
    params = jax.eval_shape(lambda x: model.init(key, x, key), x)
    latents = jax.eval_shape(lambda p, x: model.apply(p, x, method="infer"), params, x)

    def told(params, latents):
        return [
            model.apply(params, level, latents[level], latents[level - 1].shape[1:3], None,
                        lambda _: latents[0], method="conditional")
            for level in range(1, config.L)
        ]  # fmt: skip

    inferred = macs(lambda p, x: model.apply(p, x, method="infer"), params, x)
    conditionals = macs(told, params, latents)
    synthesised = macs(lambda p, z: model.apply(p, z, method="synthesise"), params, latents[0])
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    return (inferred + conditionals) / side**2, (conditionals + synthesised) / side**2, count

"""One frozen record holds every choice of an experiment; its fields are the flags of `python -m nlvc.train`."""

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

PREDEFINED_PRIORS = ("logistic", "gaussian", "laplace")
LEARNED_PRIORS = ("trainable-logistic", "factorized")
LAMBDAS = (0.0018, 0.0035, 0.0067, 0.0130, 0.0250, 0.0483, 0.0932, 0.1800)
"""The field's usual grid for the MSE Lagrangian, so that rate-distortion points compare."""

MAX_LEVELS = 8

TRANSFORM_FIELDS = (
    "channels", "filters", "latent_filters", "transform", "activation", "linear_path", "distortion", "rate",
)  # fmt: skip
"""What, with the first stride, makes a transform: those of `trained=chain` must be its run's."""


class ConfigError(ValueError):
    """A configuration that cannot be: one line that says what is wrong and what to do."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that defines a model and its training.

    The loss is ``bits/pixel + lmbda * 255^2 * MSE`` (``distortion=mse``, x in [0, 1]) or
    ``bits/pixel + lmbda * (1 - MS-SSIM)`` (``distortion=ms-ssim``; the usual lambdas there are 2.4 to 220).
    """

    preset: Literal["base", "paper", "tiny"] = "base"
    """The starting point that the other flags change: base, paper or tiny (for tests)."""

    # The Markov chain p(x|z_1) p(z_1|z_2) ... p(z_L).
    L: int = 2
    """Number of latent levels, 1 to 8: 1 is the factorised-prior model, 2 the mean-scale hyperprior."""
    prior: Literal["logistic", "gaussian", "laplace", "trainable-logistic", "factorized"] = "logistic"
    """p(z_L): the first three are predefined, the last two learned."""
    prior_scale: float = 0.25
    """Scale of a predefined p(z_L) in bins; the standard logistic (1.0) costs 2.03 bits an element even at z_L = 0."""
    conditional: Literal["gaussian", "logistic", "laplace"] = "gaussian"
    """p(z_l | z_{l+1}): family with trainable mean and scale, convolved with the bin."""
    context: Literal["none", "spatial", "channel"] = "none"
    """What p(z_1 | z_2) is also given of z_1, a rival of more levels: none; spatial: what is decoded above and to the
    left, serially (Minnen et al. 2018); channel: the channels decoded before, in five slices (Minnen & Singh 2020)."""
    dims: Literal["common", "tapered"] = "common"
    """Channels of the latents: all the same, or two thirds of the level below (the hyperprior's 192 to 128)."""
    channels: int = 150
    """Channels of z_1 (and of every level, if common)."""
    filters: int = 70
    """Filters of most convolutions."""
    latent_filters: int = 150
    """Filters of the convolutions that touch a latent."""
    strides: tuple[int, ...] = ()
    """Downsampling before each level, z_1 first, powers of two. Empty: 16, 16 4, 16 2 2, 16 2 2 1, ..."""

    # The transforms.
    transform: Literal["plain", "residual"] = "residual"
    """plain: a convolution and a nonlinearity per halving; residual: a quarter at once, then residual blocks."""
    activation: Literal["gdn", "gelu"] = "gelu"
    """Nonlinearity of analysis and synthesis (between levels it is always GELU)."""
    linear_path: bool = True
    """A transform code beside the networks, where training starts: lapped cosines, and energies between levels."""

    # The objective.
    lmbda: float = 0.013
    """Weight of the distortion."""
    distortion: Literal["mse", "ms-ssim"] = "mse"
    """What is traded against the rate."""
    rate: Literal["fixed", "variable"] = "fixed"
    """fixed: one model for lmbda; variable: one for all lambdas from 0.0018 to 0.18, chosen when a photo is coded."""
    quantization: Literal["noise", "mixed"] = "mixed"
    """Stand-in for rounding: noise everywhere, or noise in a level's own rate, straight-through rounding elsewhere."""

    quantize_aware: bool = False
    """Train with the roundings of the frozen model's 8-bit layers."""

    # The training.
    steps: int = 700
    """Optimiser steps."""
    batch_size: int = 8
    """Crops per step."""
    patch_size: int = 128
    """Side of the square crops, pixels."""
    optimiser: Literal["muon", "adam"] = "muon"
    """muon: orthogonalised steps for the networks' kernels, Adam for the rest; adam: for all."""
    learning_rate: float = 1e-3
    """Peak of the schedule: linear warm-up, and in the last fifth of the steps linearly to a hundredth."""
    warmup_steps: int = 100
    """Steps of the linear warm-up."""
    clip_norm: float = 1.0
    """Largest global norm of a gradient; longer ones are scaled down."""
    ema_decay: float = 0.999
    """Decay of the running mean of the parameters, which is what codes photos; shorter at the start."""
    seed: int = 0
    """Of everything random: parameters, crops, noise."""
    data: str = "embedded"
    """embedded (photos of scikit-image's wheel), a folder of photos, one made by `nlvc pack`, or tfds:NAME."""
    workdir: str = ""
    """Where checkpoints and results go. Empty: runs/ and a name made of the flags."""
    init_from: str = ""
    """Workdir of a run whose model is trained further. All flags but --workdir start as its own; give what differs."""
    trained: Literal["all", "chain"] = "all"
    """all; or chain: the transform of --init-from stays, and p(z_1|z_2)..p(z_L) and its inference start anew on it."""
    patience: int = 0
    """Checkpoints without a better validation after which the run ends; the best one is the model. 0: never."""
    checkpoint_every: int = 500
    """Steps between checkpoints."""
    log_every: int = 25
    """Steps between lines of metrics."""

    # The arithmetic of the training.
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the networks' arithmetic; parameters, optimiser, linear path and rates are float32 always."""
    accumulate: int = 1
    """Parts that a batch is computed in, one after the other, for batches that do not fit into memory at once."""
    remat: bool = False
    """Compute the networks' activations again for the gradient instead of keeping them: less memory, more time."""

    def __post_init__(self):
        for field in dataclasses.fields(self):
            _check_kind(field, getattr(self, field.name))
        self._check_chain()
        self._check_training()

    def _check_chain(self):
        if not 1 <= self.L <= MAX_LEVELS:
            raise ConfigError(f"L={self.L}: the number of latent levels must be from 1 to {MAX_LEVELS}")
        if self.strides and len(self.strides) != self.L:
            raise ConfigError(f"strides={self.strides}: give one stride for each of the L={self.L} levels, or none")
        if any(s < 1 or s & (s - 1) for s in self.strides):
            raise ConfigError(f"strides={self.strides}: each must be a power of two")
        if not 2 <= self.level_strides[0] <= 64:
            raise ConfigError(f"strides={self.strides}: the first, from the photo to z_1, must be from 2 to 64")
        if math.prod(self.level_strides) > 4096:
            raise ConfigError(f"strides={self.strides}: together they must not exceed 4096")
        for name in ("channels", "filters", "latent_filters"):
            if not 1 <= getattr(self, name) <= 4096:
                raise ConfigError(f"{name}={getattr(self, name)}: must be from 1 to 4096")
        if self.linear_path and self.channels > 3 * self.level_strides[0] ** 2:
            raise ConfigError(
                f"channels={self.channels}: a linear path at stride {self.level_strides[0]} has at most "
                f"{3 * self.level_strides[0] ** 2}; lower --channels or give --no-linear-path"
            )
        if self.context != "none" and self.L == 1:
            raise ConfigError(f"context={self.context}: is given to p(z_1|z_2), so it needs L of at least 2")
        if not 1e-2 <= self.prior_scale <= 256:
            raise ConfigError(f"prior_scale={self.prior_scale}: must be from 0.01 to 256 bins")

    def _check_training(self):
        for name in ("steps", "batch_size", "patch_size", "checkpoint_every", "log_every", "accumulate"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: must be at least 1")
        for name in ("lmbda", "learning_rate", "clip_norm"):
            if not 0 < getattr(self, name) <= sys.float_info.max:
                raise ConfigError(f"{name}={getattr(self, name)}: must be positive and finite")
        if not 0 <= self.ema_decay < 1:
            raise ConfigError(f"ema_decay={self.ema_decay}: must be in [0, 1)")
        for name in ("warmup_steps", "patience"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}={getattr(self, name)}: must not be negative")
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed={self.seed}: must be from 0 to {2**32 - 1}")
        if self.patch_size % self.level_strides[0]:
            raise ConfigError(
                f"patch_size={self.patch_size}: must be a multiple of the first stride, {self.level_strides[0]}"
            )
        if self.patch_size < 2 * math.prod(self.level_strides):
            raise ConfigError(
                f"patch_size={self.patch_size}: must be at least twice the strides' product, "
                f"{math.prod(self.level_strides)}, or the deepest level never sees a neighbour while it is trained"
            )
        if self.batch_size % self.accumulate:
            raise ConfigError(f"accumulate={self.accumulate}: must divide the batch size, {self.batch_size}")
        if self.trained == "chain" and not self.init_from:
            raise ConfigError("trained=chain: needs --init-from, a run whose transform it is trained on")
        if self.dtype == "bfloat16" and self.quantize_aware:
            raise ConfigError("dtype=bfloat16: is too coarse for the 8-bit steps of --quantize-aware")
        if self.rate == "variable" and (self.distortion != "mse" or not self.linear_path):
            raise ConfigError("rate=variable: needs --distortion=mse and --linear-path")
        if self.distortion == "ms-ssim" and self.patch_size < 161:
            raise ConfigError(f"patch_size={self.patch_size}: the five scales of MS-SSIM need at least 161, say 176")

    @property
    def level_strides(self) -> tuple[int, ...]:
        """`strides`, or the default: 16 to z_1 and, as in the hyperprior, 4 more to z_L, in one or two steps."""
        return self.strides or {1: (16,), 2: (16, 4)}.get(self.L, (16, 2, 2, *[1] * (self.L - 3)))

    @property
    def level_channels(self) -> tuple[int, ...]:
        """Channels of z_1..z_L."""
        taper = 1.0 if self.dims == "common" else 2 / 3
        return tuple(max(1, round(self.channels * taper**level)) for level in range(self.L))

    def level_shapes(self, height: int, width: int) -> tuple[tuple[int, int], ...]:
        """Spatial shapes of z_1..z_L for a photo of that size; every division rounds up."""
        shapes = []
        for stride in self.level_strides:
            height, width = -(-height // stride), -(-width // stride)
            shapes.append((height, width))
        return tuple(shapes)

    def differences(self, other: "Config", among: Iterable[str] = ()) -> str:
        """The fields, all or those among some, in which two differ, such as "other channels, steps"; "" for none."""
        names = among or [field.name for field in dataclasses.fields(self)]
        found = [name for name in names if getattr(self, name) != getattr(other, name)]
        return f"other {', '.join(found)}" if found else ""

    def to_json(self) -> str:
        """One JSON object; `from_json` gives an equal Config back."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> "Config":
        """Reads what `to_json` wrote. Raises ConfigError for anything that is not a whole, known configuration."""
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:  # also numbers of thousands of digits, and deep nesting
            raise ConfigError(f"the configuration is not JSON: {error}") from None
        if not isinstance(values, dict):
            raise ConfigError("the configuration must be one JSON object")
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(values.keys() - known):
            raise ConfigError(f"unknown configuration key {', '.join(unknown)}; known are: {', '.join(sorted(known))}")
        if isinstance(values.get("strides"), list):
            values["strides"] = tuple(values["strides"])
        return cls(**values)

    @classmethod
    def of_run(cls, workdir: str | Path) -> "Config":
        """The configuration of a run of nlvc.train. Raises ConfigError if that folder is none."""
        try:
            return cls.from_json((Path(workdir) / "config.json").read_text())
        except OSError:
            raise ConfigError(f"{workdir}: not the workdir of a run of nlvc.train: it has no config.json") from None

    @classmethod
    def from_args(cls, argv: list[str] | None = None) -> "Config":
        """Flags to a Config, as `parse_flags` does."""
        return parse_flags(argv)[0]


def parse_flags(argv: list[str] | None = None, *others: type, prog: str = "python -m nlvc.train") -> tuple:
    """The flags of one flat command line as a Config and a record of each of the dataclasses `others`, in that order.

    `--preset` chooses the Config's starting point, or `--init-from` that of another run, and the other flags change it.
    A wrong flag ends the program with tyro's message; an impossible combination raises ConfigError.
    """
    import tyro

    argv = list(sys.argv[1:] if argv is None else argv)
    first = argparse.ArgumentParser(prog=prog, add_help=False, allow_abbrev=False)
    first.add_argument("--preset")
    first.add_argument("--init-from", "--init_from")
    first, _ = first.parse_known_args(argv)
    if first.init_from:
        start = dataclasses.replace(Config.of_run(first.init_from), workdir="")
    else:
        # An unknown preset falls through to tyro, whose message lists the choices.
        start = PRESETS.get(first.preset, base)()
    starts = [start, *(record() for record in others)]
    kinds = [_unchecked(type(start)) for start in starts]
    flat = dataclasses.make_dataclass("Flags", [(kind.__name__.lower(), kind) for kind in kinds])
    start = flat(*(kind(**dataclasses.asdict(start)) for kind, start in zip(kinds, starts, strict=True)))
    settings = {"prog": prog, "description": Config.__doc__, "config": (tyro.conf.OmitArgPrefixes,)}
    flags = dataclasses.astuple(tyro.cli(flat, args=argv, default=start, **settings))
    return tuple(type(start)(*values) for start, values in zip(starts, flags, strict=True))


def _unchecked(record: type) -> type:
    """The record without its check, of whose one line tyro would make a framed message of many."""
    return type(record.__name__, (record,), {"__post_init__": lambda self: None, "__doc__": record.__doc__})


def base(**changes) -> Config:
    """The chain with everything that makes a small budget go far: linear path, residual blocks, mixed quantisation."""
    return Config(**{"preset": "base", **changes})


def paper(**changes) -> Config:
    """As close to Pérez-Gonzalo et al. 2024 (arXiv 2406.06165) as is known.

    Known: a Markov chain of L = 2..5 levels, Gaussian conditionals with trainable sigma, uniform binning, ANS,
    predefined logistic p(z_L), common dimensionality, 70 filters in most convolutions and 150 in those that touch a
    latent. Assumed, after the hyperprior (Ballé et al. 2018): stride 16 to z_1, GDN, four halvings each way, trainable
    means beside the sigmas, additive noise as the stand-in for rounding, Adam. Not known: initialisation, strides of
    the deeper levels, schedule, crops.
    """
    plain = {"transform": "plain", "activation": "gdn", "linear_path": False}
    # From noise, with nothing in small units, 1e-3 is slower: Lagrangian 37 against 16 after 100 steps.
    noise = {"quantization": "noise", "optimiser": "adam", "learning_rate": 3e-4}
    return Config(**{"preset": "paper", "L": 5, "prior_scale": 1.0, **noise, **plain, **changes})


def tiny(**changes) -> Config:
    """Seconds of training, for tests: few channels, small crops."""
    small = {"channels": 12, "filters": 8, "latent_filters": 12, "batch_size": 2}
    short = {"steps": 30, "warmup_steps": 5, "log_every": 5, "checkpoint_every": 10}
    return Config(**{"preset": "tiny", **small, **short, **changes})


PRESETS = {"base": base, "paper": paper, "tiny": tiny}


def _check_kind(field: dataclasses.Field, value) -> None:
    """Values from JSON come unchecked; a wrong kind must not surface as a traceback deep in the model."""
    choices = getattr(field.type, "__args__", ()) if getattr(field.type, "__origin__", None) is Literal else ()
    if choices:
        valid = value in choices
    elif field.name == "strides":
        valid = isinstance(value, tuple) and all(type(s) is int for s in value)
    elif field.type is float:
        valid = type(value) in (int, float)
    else:
        valid = type(value) is field.type
    if not valid:
        expected = " or ".join(choices) if choices else getattr(field.type, "__name__", str(field.type))
        raise ConfigError(f"{field.name}={value!r}: must be {expected}")

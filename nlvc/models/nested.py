"""The nested latent variable model: one Markov chain, used by training, compression and decompression alike.

    x --infer--> z_1 --> z_2 --> ... --> z_L          q, bottom up
    x_hat <--synthesise-- z_1 <-- z_2 <-- ... <-- z_L     p, top down: conditional(l, z_{l+1})

Pérez-Gonzalo et al. 2024 (arXiv 2406.06165); L = 2 is the mean-scale hyperprior (Minnen et al. 2018), L = 1 the
factorised-prior model (Ballé et al. 2017).
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from nlvc.config import LAMBDAS, PREDEFINED_PRIORS, Config
from nlvc.models import context, priors
from nlvc.models.energy import EnergyPath
from nlvc.models.factorized import Factorized, init_factorized
from nlvc.models.lapped import postfilter, prefilter
from nlvc.models.layers import depth_to_space, pad_to_multiple, space_to_depth
from nlvc.models.quantize import add_uniform_noise, bin_uniform, round_straight_through
from nlvc.models.rates import KNOTS, at, hats
from nlvc.models.transforms import Analysis, Context, LevelAnalysis, LevelSynthesis, Refinement, Synthesis

SCALE_MIN, SCALE_MAX = 0.11, 256.0
"""Range of the scales of p(z_l | z_{l+1}), in bins: that of the coder's tables."""


TRANSFORM = ("analysis", "synthesis", "analysis_basis", "synthesis_basis", "log_gain")
"""Parameters of p(x|z_1) and q(z_1|x); all others are the chain's."""


SETTLING = 4
"""How often the bins of z_1 are chosen anew for what a context says of them. A file has the bins that no longer change;
after four times only few do."""


class Output(struct.PyTreeNode):
    """One stochastic pass. bits: for z_1..z_L, the bits of each photo, (B,); x_hat (B, H, W, 3), None from `rates`."""

    x_hat: Array | None
    bits: tuple[Array, ...]


def step_gain(lmbda: float) -> float:
    """Bins per unit of an orthonormal transform of x in [0, 1] that is best at high rates.

    A bin of width D costs distortion D^2/12 and saves log2 D bits on each of 3 samples a pixel; the Lagrangian
    3 log2(1/D) + lmbda 255^2 D^2 / 12 is least at D^2 = 18 / (lmbda 255^2 ln 2).
    """
    return 255 * math.sqrt(lmbda * math.log(2) / 18)


class NestedLatentModel(nn.Module):
    """p(x|z_1) p(z_1|z_2) ... p(z_L) and q(z_1|x) q(z_2|z_1) ... as Flax modules; photos are float32 in [0, 1]."""

    config: Config

    def setup(self):
        config = self.config
        stride, channels = config.level_strides[0], config.level_channels
        widths = {"filters": config.filters, "latent_filters": config.latent_filters, "dtype": config.dtype}
        image = {"transform": config.transform, "activation": config.activation, "stride": stride, **widths}
        image = {**image, "remat": config.remat}
        self.analysis = Analysis(channels=channels[0], zero=config.linear_path, **image)
        if config.linear_path:
            self.synthesis = Refinement(
                config.activation, stride, config.filters, config.quantize_aware, config.dtype, config.remat
            )
        else:
            self.synthesis = Synthesis(fake=config.quantize_aware, **image)
        self.level_analyses = [
            LevelAnalysis(stride=s, channels=c, zero=config.linear_path, **widths)
            for s, c in zip(config.level_strides[1:], channels[1:], strict=True)
        ]
        self.level_syntheses = [
            LevelSynthesis(stride=s, channels=2 * c, fake=config.quantize_aware, **widths)
            for s, c in zip(config.level_strides[1:], channels[:-1], strict=True)
        ]
        self.contexts = [
            Context(context.SIZE, config.latent_filters, 2 * (part.stop - part.start), config.context == "spatial",
                    config.quantize_aware, config.dtype)
            for part in context.parts(config)
        ]  # fmt: skip
        # The ordinary size of each channel: networks between levels see z / spread and speak of mean / spread.
        knots = (KNOTS,) if config.rate == "variable" else ()
        self.log_scales = [self.param(f"log_scale_{level}", nn.initializers.zeros, (*knots, c)) for level, c in
                           enumerate(channels, start=1)]  # fmt: skip
        self.log_gain = self.param("log_gain", lambda _, shape: log_gains(config, shape), (*knots, channels[0]))
        # Of the deeper levels, at all rates: which bins are best for z_2.. hardly depends on lambda.
        self.level_log_gains = [self.param(f"log_gain_{level}", nn.initializers.zeros, (c,)) for level, c in
                                enumerate(channels[1:], start=2)]  # fmt: skip
        if config.linear_path:
            # Stored with entries around 1, so that a step of Adam turns it by a thousandth and not by a thirtieth: the
            # samples of a block share their mean, and larger steps move z_1 by whole bins at once.
            samples = 3 * stride * stride
            start = nn.initializers.orthogonal(samples**0.5)
            self.analysis_basis = self.param("analysis_basis", start, (samples, channels[0])) / samples**0.5
            self.synthesis_basis = self.param("synthesis_basis", start, (samples, channels[0])) / samples**0.5
            self.energy_paths = [
                EnergyPath(stride=s, below=below, above=above, knots=knots)
                for s, below, above in zip(config.level_strides[1:], channels[:-1], channels[1:], strict=True)
            ]
        if config.prior == "trainable-logistic":
            self.prior_mean = self.param("prior_mean", nn.initializers.zeros, (channels[-1],))
        if config.prior == "factorized":
            self.prior_factors = self.param("prior_factors", init_factorized, channels[-1])

    def gain(self, weights: Array | None) -> Array:
        """Bins of z_1 per unit of the analysis, (1 or B, 1, 1, C)."""
        return jnp.exp(at(self.log_gain, weights))

    def infer(self, x: Array, weights: Array | None = None) -> tuple[Array, ...]:
        """x (B, H, W, 3) in [0, 1] -> z_1..z_L, unquantised, z_l (B, h_l, w_l, C_l) by `Config.level_shapes`.

        weights: (B, KNOTS) by `rates.hats` for a model of variable rate, here and in the other methods.
        """
        return self.levels(self.transformed(x, weights), weights)

    def transformed(self, x: Array, weights: Array | None = None) -> Array:
        """x -> z_1, as `infer`."""
        stride = self.config.level_strides[0]
        x = pad_to_multiple(x, stride) - 0.5
        z = self.analysis(x, weights)
        if self.config.linear_path:
            z = z + jnp.dot(space_to_depth(prefilter(x, stride), stride), self.analysis_basis)
        return self.gain(weights) * z

    def levels(self, z: Array, weights: Array | None = None) -> tuple[Array, ...]:
        """z_1 -> z_1..z_L, as `infer`."""
        latents = [z]
        for level in range(1, self.config.L):
            latents.append(self.above(level, latents[-1], weights))
        return tuple(latents)

    def above(self, level: int, z: Array, weights: Array | None = None) -> Array:
        """z_level -> z_{level+1}, as `infer`."""
        higher = self.level_analyses[level - 1](z / spread(at(self.log_scales[level - 1], weights)))
        if self.config.linear_path:
            higher = higher + self.energy_paths[level - 1].analyse(z, weights)
        return jnp.exp(at(self.level_log_gains[level - 1], None)) * higher

    def conditional(
        self, level: int, above: Array | None = None, shape: tuple[int, int] | None = None,
        weights: Array | None = None, decoded: Callable[[priors.Prior], Array] | None = None,
    ):  # fmt: skip
        """p(z_level | z_{level+1} = above), or p(z_L) where level is L and above is None.

        above: (B, h, w, C). The result broadcasts over z_level; its spatial shape is cut to `shape` if that is given
        (a level whose size is not a multiple of its stride). decoded: of z_1 in a model with a context, a function from
        p(z_1 | z_2) alone to what the decoder has of z_1; each element of the result depends on those before it.
        """
        if level == self.config.L:
            return self._top()
        log_scale = at(self.log_scales[level - 1], weights)
        parameters, told = self.level_syntheses[level - 1](above / spread(at(self.log_scales[level], weights)))
        mean, change = jnp.split(parameters, 2, axis=-1)
        if self.config.linear_path:
            energies = above / jnp.exp(at(self.level_log_gains[level - 1], None))
            change = change + self.energy_paths[level - 1].synthesise(energies)
        if shape is not None:
            mean, change, told = (x[:, : shape[0], : shape[1]] for x in (mean, change, told))
        prior = lambda: priors.Prior(  # noqa: E731
            self.config.conditional, mean * spread(log_scale), bounded(change + log_scale)
        )
        if level == 1 and self.contexts:
            z = decoded(prior()) / spread(log_scale)
            more = [network(told, z[..., :count] if (count := context.seen(self.config, part)) else None)
                    for part, network in enumerate(self.contexts)]  # fmt: skip
            means, changes = zip(*(jnp.split(x, 2, axis=-1) for x in more), strict=True)
            mean, change = mean + jnp.concatenate(means, -1), change + jnp.concatenate(changes, -1)
        return prior()

    def _top(self):
        config = self.config
        if config.prior in PREDEFINED_PRIORS:
            return priors.Prior(config.prior, jnp.zeros((1, 1, 1, 1)), jnp.full((1, 1, 1, 1), config.prior_scale))
        if config.prior == "trainable-logistic":
            # The same at all rates, so that it has one table.
            log_scale = jnp.mean(self.log_scales[-1].reshape(-1, config.level_channels[-1]), axis=0)
            return priors.logistic(at(self.prior_mean, None), bounded(at(log_scale, None)))
        return Factorized(**self.prior_factors)

    def synthesise(self, z: Array, weights: Array | None = None) -> Array:
        """z_1 (B, h, w, C) -> x_hat (B, stride h, stride w, 3), near [0, 1] but not clipped."""
        z = z / self.gain(weights)
        if not self.config.linear_path:
            return self.synthesis(z) + 0.5
        stride = self.config.level_strides[0]
        x = postfilter(depth_to_space(jnp.dot(z, self.synthesis_basis.T), stride), stride)
        return x + self.synthesis(x, weights) + 0.5

    def __call__(self, x: Array, key: Array, weights: Array | None = None) -> Output:
        """One training pass: x (B, H, W, 3), a typed key for the noise, weights by `rates.hats` for variable rate."""
        if weights is None and self.config.rate == "variable":
            weights = hats(jnp.full(x.shape[:1], LAMBDAS[-1]))
        output, z = self._noisy(self.infer(x, weights), key, weights)
        return output.replace(x_hat=self.synthesise(z, weights)[:, : x.shape[1], : x.shape[2]])

    def rates(self, z: Array, key: Array, weights: Array | None = None) -> Output:
        """The same for z_1 by `transformed`, without the synthesis: all that the chain's parameters can change."""
        return self._noisy(self.levels(z, weights), key, weights)[0]

    def _noisy(self, latents: tuple[Array, ...], key: Array, weights: Array | None) -> tuple[Output, Array]:
        mixed, bits, above = self.config.quantization == "mixed", [], None
        for level in range(self.config.L, 0, -1):
            z = latents[level - 1]
            noisy = add_uniform_noise(jax.random.fold_in(key, level), z)
            # What stands in for the symbols that are decoded before: those that z_2 alone would give.
            decoded = lambda prior, z=z, noisy=noisy: round_straight_through(z, prior.mean) if mixed else noisy  # noqa: E731
            prior = self.conditional(level, above, z.shape[1:3], weights, decoded)
            bits.append(jnp.sum(prior.coded_bits(noisy), axis=(1, 2, 3)))
            # What the level below is given: with mixed quantisation just what the decoder will have. A level that says
            # little is nearly always 0 there, and noise would teach its readers something that never comes.
            above = round_straight_through(z, getattr(prior, "mean", 0.0)) if mixed else noisy
        return Output(None, tuple(reversed(bits))), above

    def binned(self, x: Array, weights: Array | None = None) -> Output:
        """What a file has of x: every latent in its bin, and the bits of these bins. For validation.

        Noise says too much of levels that are nearly always 0: they cost a little in it, and nothing in a file.
        """
        latents = self.infer(x, weights)
        bits, above = [], None
        for level in range(self.config.L, 0, -1):
            z = latents[level - 1]
            decoded = lambda prior, z=z: bin_uniform(z, prior.mean)  # noqa: E731
            for _ in range(SETTLING if level == 1 and self.contexts else 1):
                prior = self.conditional(level, above, z.shape[1:3], weights, decoded)
                decoded = lambda _, z=z, prior=prior: bin_uniform(z, prior.mean)  # noqa: E731
            above = bin_uniform(z, getattr(prior, "mean", 0.0))
            bits.append(jnp.sum(prior.coded_bits(above), axis=(1, 2, 3)))
        x_hat = self.synthesise(above, weights)
        return Output(x_hat[:, : x.shape[1], : x.shape[2]], tuple(reversed(bits)))


def bounded(log_scale: Array) -> Array:
    """exp(log_scale), smoothly kept above SCALE_MIN and cut at SCALE_MAX, so that the coder has a table for it."""
    low = math.log(SCALE_MIN)
    return jnp.exp(jnp.minimum(low + jax.nn.softplus(log_scale - low), math.log(SCALE_MAX)))


def spread(log_scale: Array) -> Array:
    """The ordinary size of z with its noise, in bins.

    The noise (standard deviation 1/sqrt 12) keeps a silent channel from being divided by next to nothing: one rare 1
    in it would drown all others, and a bin too far from the mean at a small scale costs thousands of bits.
    """
    return jnp.exp(log_scale) + 12**-0.5


def log_gains(config: Config, shape: tuple[int, ...]) -> Array:
    """The logarithm of `step_gain`: (C,), or (KNOTS, C) at the knots of a variable rate."""
    # The lambdas of MS-SSIM are on another scale.
    usual = config.lmbda if config.distortion == "mse" else 0.013
    gains = [step_gain(lmbda) for lmbda in (LAMBDAS if config.rate == "variable" else [usual])]
    return jnp.broadcast_to(jnp.log(jnp.array(gains))[:, None], (len(gains), shape[-1])).reshape(shape)

"""What each trick of training gains, alone, against the same run without it: one model, one budget, one measure.

    python experiments/training_tricks.py --tricks all --data FOLDER --out runs/tricks.jsonl
    python experiments/training_tricks.py --table --out runs/tricks.jsonl

Each run trains `base` with --L, --channels, --steps and --batch-size from the same crops and seeds, and is measured on
crops of the validation split of FOLDER: the Lagrangian of binned latents (what a file takes, not what noise says) and
PSNR, with the running mean of the parameters, and the Lagrangian with the last ones. Every trick that changed the
library is the rule there already, so some rows below take a rule away; the exception is Muon, the last that came.
Nothing here is used by nlvc itself.
"""

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from optax.contrib import MuonDimensionNumbers
from preconditioned import shampoo, soap
from tqdm import tqdm

from nlvc import data
from nlvc.config import Config, base
from nlvc.models import nested, start
from nlvc.models.loss import rate_distortion
from nlvc.models.nested import NestedLatentModel, Output
from nlvc.models.quantize import add_uniform_noise, round_straight_through, soft_round
from nlvc.models.start import initialise
from nlvc.training import loop
from nlvc.training.optimiser import ITERATIONS, SIZE, kernels
from nlvc.training.optimiser import matrices as whole
from nlvc.training.optimiser import schedule as cool_down

START_CROPS, VALIDATION_CROPS, VALIDATION_SIDE = 1024, 32, 256
MEDIAN_OF = 64
"""Steps that the running median of the gradient's norm looks back on."""


class Trick(NamedTuple):
    """What a run does differently. what: for the table; config: flags; the rest: see the functions below."""

    what: str
    config: dict = {}
    stand_in: str = "mixed"
    optimiser: Callable[[optax.Schedule], optax.GradientTransformation] = lambda rate: clipped(optax.adam(rate))
    schedule: str = "cool-down"
    params: Callable[[dict], dict] = lambda params: params
    crops: Callable[[np.ndarray, float], np.ndarray] = lambda crops, progress: crops
    linear: str = "lapped"
    deep: Callable[[jax.Array], jax.Array] = lambda progress: jnp.ones(())


def clipped(transform: optax.GradientTransformation) -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(1.0), transform)


def matrices(transform: Callable) -> Callable[[optax.Schedule], optax.GradientTransformation]:
    """The transform where nlvc takes Muon's steps, for kernels as matrices, and Adam for everything else."""
    return lambda rate: clipped(optax.partition({"muon": transform(rate), "adam": optax.adam(rate)}, kernels))


def faster(factor: float) -> Callable:
    """Adam at a multiple of the learning rate."""
    return lambda rate: optax.adam(lambda count: factor * rate(count))


def taps(kernels: dict) -> dict:
    """k k matrices (C, C') of each kernel."""
    return jax.tree.map(lambda _: MuonDimensionNumbers(2, 3), kernels)


def wide(kernels: dict) -> dict:
    """Of each kernel the one of (k k C, C') and (C, k k C') that costs less."""

    def cheaper(kernel, usual):
        return MuonDimensionNumbers(2, (0, 1, 3)) if kernel.shape[2] < kernel.shape[3] else usual

    return jax.tree.map(cheaper, kernels, whole(kernels))


FIVE = {"ns_steps": 5, "preconditioning": "frobenius"}


def muon(size: float, shapes: Callable = whole, ns_steps: int = ITERATIONS, preconditioning: str = "aol") -> Callable:
    """Muon with steps of that root mean square at a learning rate of one."""
    settings = {"ns_steps": ns_steps, "preconditioning": preconditioning, "muon_weight_dimension_numbers": shapes}
    return lambda rate: optax.contrib.muon(rate, consistent_rms=size, **settings)


class GuardState(struct.PyTreeNode):
    """The last norms, and how many there have been."""

    norms: jax.Array
    count: jax.Array


def median_guard(rate: optax.Schedule) -> optax.GradientTransformation:
    """Instead of a fixed clip: gradients longer than twice the running median of their norms are cut to that."""

    def init(_):
        return GuardState(jnp.full(MEDIAN_OF, jnp.nan), jnp.zeros((), jnp.int32))

    def update(gradients, state, params=None):
        norm = optax.tree.norm(gradients)
        usual = jnp.where(state.count > 0, jnp.nanmedian(state.norms), norm)
        scale = jnp.minimum(1.0, 2 * usual / jnp.maximum(norm, 1e-12))
        norms = state.norms.at[state.count % MEDIAN_OF].set(norm)
        return jax.tree.map(lambda g: g * scale, gradients), GuardState(norms, state.count + 1)

    return optax.chain(optax.GradientTransformation(init, update), optax.adam(rate))


def unit_scales(params: dict) -> dict:
    """The scales of all p(z_l | z_{l+1}) at one bin, not at what the crops say."""
    return {n: jnp.zeros_like(p) if n.startswith("log_scale") else p for n, p in params.items()}


def growing(crops: np.ndarray, progress: float) -> np.ndarray:
    """Four times as many crops of half the side in the first half of the run: as many pixels a step."""
    if progress >= 0.5:
        return crops
    half = crops.shape[1] // 2
    return np.concatenate([crops[:, y : y + half, x : x + half] for y in (0, half) for x in (0, half)])


def grainy(crops: np.ndarray, progress: float) -> np.ndarray:
    """Noise of two grey levels, which the training photos may have lost."""
    rng = np.random.default_rng(int(progress * 2**40))
    return np.clip(crops + rng.normal(0, 2 / 255, crops.shape).astype(np.float32), 0, 1)


TRICKS = {
    "baseline": Trick("the rules of `base`, but Adam for everything"),
    "noise": Trick("additive noise everywhere, not mixed quantisation", stand_in="noise"),
    "soft-rounding": Trick("soft rounding with noise, annealed from 0.5 to 0.1", stand_in="soft"),
    "straight-through-tail": Trick("noise, then rounding in the rate too for the last fifth", stand_in="tail"),
    "as-coded": Trick("in z_1 the bin of least rate and error, as the encoder chooses", stand_in="cheapest"),
    "cosine": Trick("a cosine to a hundredth, not a cool-down in the last fifth", schedule="cosine"),
    "constant": Trick("a constant learning rate", schedule="constant"),
    "twice-as-fast": Trick("twice the learning rate", {"learning_rate": 2e-3}),
    "half-as-fast": Trick("half the learning rate", {"learning_rate": 5e-4}),
    "fast-kernels": Trick("twice the learning rate for kernels alone", optimiser=matrices(faster(2))),
    "faster-kernels": Trick("four times the learning rate for kernels alone", optimiser=matrices(faster(4))),
    "unit-scales": Trick("scales of the priors start at one bin", params=unit_scales),
    "no-linear-path": Trick("ordinary initialisation, no linear path", {"linear_path": False}),
    "blocks": Trick("the linear path's blocks do not overlap", linear="blocks"),
    "klt": Trick("the same, and each block by its Karhunen-Loève transform", linear="klt"),
    "muon": Trick("Muon for kernels: three iterations, steps of 0.4", optimiser=matrices(muon(SIZE))),
    "muon-double": Trick("the same, steps of 0.8", optimiser=matrices(muon(0.8))),
    "muon-wide": Trick("as `muon`, matrices (C, k k C') where C < C'", optimiser=matrices(muon(SIZE, wide))),
    "muon-half": Trick("five iterations, steps of 0.2, about Adam's", optimiser=matrices(muon(0.2, **FIVE))),
    "muon-taps": Trick("the same, each of the k x k taps a matrix", optimiser=matrices(muon(0.2, taps, **FIVE))),
    "muon-taps-short": Trick("the same in three iterations", optimiser=matrices(muon(0.2, taps))),
    "soap": Trick("SOAP for kernels", optimiser=matrices(soap)),
    "shampoo": Trick("Shampoo for kernels, with the size of Adam's updates", optimiser=matrices(shampoo)),
    "level-warm-up": Trick(
        "bits of z_2.. count from 0 to 1 in the first fifth", deep=lambda p: jnp.minimum(1.0, 5 * p + 1e-3)
    ),
    "median-guard": Trick("clip at twice the running median of the norm", optimiser=median_guard),
    "growing-crops": Trick("crops of half the side for the first half", crops=growing),
    "grain": Trick("noise of two grey levels in the crops", crops=grainy),
}


class Tricky(NestedLatentModel):
    """The model with another stand-in for rounding. progress: 0 to 1 through the run."""

    stand_in: str = "mixed"
    progress: Any = 0.0

    def __call__(self, x: jax.Array, key: jax.Array, weights=None) -> Output:
        latents = self.infer(x, weights)
        bits, above = [], None
        for level in range(self.config.L, 0, -1):
            z = latents[level - 1]
            prior = self.conditional(level, above, z.shape[1:3], weights)
            noisy, above = self.replaced(level, z, prior, jax.random.fold_in(key, level))
            bits.append(jnp.sum(prior.coded_bits(noisy), axis=(1, 2, 3)))
        return Output(self.synthesise(above, weights), tuple(reversed(bits)))

    def replaced(self, level: int, z, prior, key):
        """(what the level's own rate is given, what the level below is)."""
        mean = getattr(prior, "mean", 0.0)
        noisy, rounded = add_uniform_noise(key, z), round_straight_through(z, mean)
        if self.stand_in == "noise":
            return noisy, noisy
        if self.stand_in == "tail":
            late = self.progress > 0.8
            return jnp.where(late, rounded, noisy), jnp.where(late, rounded, noisy)
        if self.stand_in == "soft":
            temperature = 0.5 * 0.2**self.progress
            soft = soft_round(add_uniform_noise(key, soft_round(z - mean, temperature)), temperature) + mean
            return soft, soft
        if self.stand_in == "cheapest" and level == 1:
            near = jnp.round(z - mean)
            low = near - jnp.sign(near)
            weight = 1.5 * self.config.lmbda * 255**2 / (3 * self.gain(None) ** 2)
            saved = prior.coded_bits(near + mean) - prior.coded_bits(low + mean)
            worse = (z - mean - low) ** 2 - (z - mean - near) ** 2
            chosen = jnp.where(saved > weight * worse, low, near) + mean
            return noisy, z + jax.lax.stop_gradient(chosen - z)
        return noisy, rounded


def schedule(kind: str, config: Config) -> optax.Schedule:
    """Learning rates after the same warm-up."""
    if kind == "cool-down":
        return cool_down(config)
    peak, warmup = config.learning_rate, config.warmup_steps
    after = {
        "cosine": optax.cosine_decay_schedule(peak, config.steps - warmup, 0.01),
        "constant": optax.constant_schedule(peak),
    }[kind]
    return optax.join_schedules([optax.linear_schedule(peak / 100, peak, warmup), after], [warmup])


def train(trick: Trick, config: Config, photos: data.Photos) -> tuple[dict, dict]:
    """(the running mean of the parameters, the last parameters)."""
    transform = trick.optimiser(schedule(trick.schedule, config))
    model = lambda progress: Tricky(config, trick.stand_in, progress)  # noqa: E731
    size = {"patch_size": config.patch_size}
    with_crops = data.batches(photos, batch_size=START_CROPS, seed=config.seed + 1, **size)
    params = trick.params(initialise(config, jax.random.key(config.seed), next(with_crops)))
    with_crops.close()

    @jax.jit
    def step(carry, batch, number):
        params, ema, state = carry
        progress = number / config.steps
        key = jax.random.fold_in(jax.random.key(config.seed), number)

        def loss(params):
            output = model(progress).apply({"params": params}, batch, key)
            first, *others = output.bits
            weighed = (first, *(bits * trick.deep(progress) for bits in others))
            return rate_distortion(config, output.replace(bits=weighed), batch)[0]

        updates, state = transform.update(jax.grad(loss)(params), state, params)
        params = optax.apply_updates(params, updates)
        decay = jnp.minimum(config.ema_decay, (1 + number) / (10 + number))
        return params, optax.incremental_update(params, ema, 1 - decay), state

    carry = params, jax.tree.map(jnp.copy, params), transform.init(params)
    batches = data.batches(photos, batch_size=config.batch_size, seed=config.seed, **size)
    for number in tqdm(range(config.steps), leave=False):
        batch = trick.crops(next(batches), number / config.steps)
        carry = jax.block_until_ready(step(carry, batch, jnp.float32(number)))
    batches.close()
    return carry[1], carry[0]


def with_linear_path(kind: str) -> None:
    """Takes the overlap, and the cosines, out of the library for the rest of the process."""
    if kind == "lapped":
        return
    for module in (nested, start):
        for name in ("prefilter", "postfilter"):
            if hasattr(module, name):
                setattr(module, name, lambda x, block: x)
    if kind == "klt":
        start.cosine_basis = karhunen_loeve


def karhunen_loeve(crops: np.ndarray, block: int, components: int) -> np.ndarray:
    """Orthonormal basis (3 block^2, components) of the blocks of crops - 1/2, strongest component first."""
    count, side = len(crops), crops.shape[1] // block
    blocks = (crops - 0.5).reshape(count, side, block, side, block, 3).transpose(0, 1, 3, 2, 4, 5)
    blocks = blocks.reshape(-1, 3 * block**2).astype(np.float64)
    return np.linalg.eigh(blocks.T @ blocks)[1][:, ::-1][:, :components].astype(np.float32)


def run(name: str, arguments: argparse.Namespace, photos: dict[str, data.Photos]) -> dict:
    trick = TRICKS[name]
    flags = {"L": arguments.L, "channels": arguments.channels, "steps": arguments.steps, **trick.config}
    config = base(batch_size=arguments.batch_size, data=str(arguments.data), seed=arguments.seed, **flags)
    with_linear_path(trick.linear)
    mean, last = train(trick, config, photos["train"])
    crops = data.validation_crops(photos["validation"], VALIDATION_SIDE, VALIDATION_CROPS)
    measure = loop.make_validation(config, crops)
    measured = {k: np.asarray(v).tolist() for k, v in measure(mean).items()}
    measured["loss_of_last"] = float(measure(last)["loss"])
    return {"trick": name, **vars(arguments), **measured}


def table(rows: list[dict]) -> str:
    """Markdown: one row a trick, its Lagrangian against the baseline's of the same seed."""
    usual = {row["seed"]: row for row in rows if row["trick"] == "baseline"}
    titles = ["trick", "what differs", "Lagrangian", "against baseline", "of the last parameters", "bpp", "PSNR"]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for name, trick in TRICKS.items():
        found = [row for row in rows if row["trick"] == name and row["seed"] in usual]
        if not found:
            continue
        mean = lambda key, found=found: float(np.mean([row[key] for row in found]))  # noqa: E731
        changes = [f"{100 * (row['loss'] / usual[row['seed']]['loss'] - 1):+.1f}" for row in found]
        lines.append(
            f"| `{name}` | {trick.what} | {mean('loss'):.4f} | {', '.join(changes)} % | "
            f"{mean('loss_of_last'):.4f} | {mean('bpp'):.4f} | {mean('psnr'):.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tricks", nargs="+", choices=[*TRICKS, "all"], default=["all"])
    parser.add_argument("--data", default="embedded", help="as of nlvc.train")
    parser.add_argument("--L", type=int, default=3)
    parser.add_argument("--channels", type=int, default=150)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/tricks.jsonl"), help="rows are added to it")
    parser.add_argument("--table", action="store_true", help="print the table of the rows that are there")
    arguments = parser.parse_args()
    if arguments.table:
        print(table([json.loads(line) for line in arguments.out.read_text().splitlines()]))
        return
    names = list(TRICKS) if "all" in arguments.tricks else arguments.tricks
    if len({TRICKS[name].linear for name in names}) > 1:
        names = [name for name in names if TRICKS[name].linear == "lapped"]
        print("tricks of the linear path change the library: run each in its own process")
    photos = {split: data.photos(arguments.data, split) for split in ("train", "validation")}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    for name in names:
        row = run(name, arguments, photos)
        row = {key: value if not isinstance(value, Path) else str(value) for key, value in row.items()}
        row.pop("tricks"), row.pop("out"), row.pop("table")
        with arguments.out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{name}: Lagrangian {row['loss']:.4f}, {row['bpp']:.4f} bpp, {row['psnr']:.2f} dB", flush=True)
        if not math.isfinite(row["loss"]):
            print(f"{name}: diverged")


if __name__ == "__main__":
    main()

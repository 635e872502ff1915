"""What the integers cost: a trained model's decoder in int8 beside the same decoder in float, on the same photos.

    python experiments/cost_of_exactness.py RUN --photos FOLDER

RUN is the workdir of a run of nlvc.train; its newest checkpoint counts. Encoder, symbols' rounding and coder's tables
are the same on both sides, so the difference is what int8 weights and activations do to the priors (rate) and to the
synthesis (PSNR). Rates are the ideal of the integer tables, without the few bytes of messages and header.

One model makes one point of a rate-distortion curve. For a BD-rate the same weights are run at five bin widths: z_1 and
the scale of its prior are multiplied by the same factor. BD-rate is the mean difference of the logarithm of the rate at
equal PSNR (Bjontegaard), over the common range, of the curves through the five mean points (PCHIP).

Also printed: time of the synthesis in integers (Exact, compiled) and in float (Flax, compiled), in turns.
"""

import argparse
import math
import statistics
import time
from pathlib import Path

import jax
import numpy as np
from PIL import Image
from tqdm import tqdm

from nlvc import coding, data
from nlvc.config import Config
from nlvc.data import to_rgb
from nlvc.evaluation import bd_rate, psnr
from nlvc.image_codec import Model
from nlvc.image_codec.coder import in_units
from nlvc.image_codec.freezing import freeze_model
from nlvc.image_codec.model import nested, part
from nlvc.models import frozen, inference
from nlvc.models.freeze import level_calibrator
from nlvc.models.freeze_encoder import gain_of
from nlvc.models.freeze_transform import around, synthesis_calibrator
from nlvc.models.lapped import borders
from nlvc.models.nested import NestedLatentModel
from nlvc.train import FREEZING_CROPS
from nlvc.training.checkpoint import Checkpoints
from nlvc.training.loop import abstract_state

FACTORS = (0.5, 0.71, 1.0, 1.41, 2.0)
"""Bins of z_1 for one of the trained model's."""


def at_bin_width(params: dict, factor: float) -> dict:
    """The same weights for z_1 times factor: the prior's scale goes along."""
    return {**params, **{name: params[name] + math.log(factor) for name in ("log_gain", "log_scale_1")}}


def inside(shape: tuple[int, ...], margin: int) -> tuple[np.ndarray, ...]:
    """Which borders of blocks lie inside a picture whose z_1, with a margin, is (1, h, w, C)."""
    return tuple(borders(0, side - 2 * margin, margin, side - 2 * margin) for side in shape[1:3])


class Arm:
    """One decoder: integer or float."""

    def __init__(self, model: Model, params: dict, exact: bool):
        self.model, self.params, self.exact = model, params, exact
        self.config = model.config
        self.encoder = nested(inference.unpacked(part(model.arrays, "encoder"), part(model.arrays, "encoder_steps")))

    def parameters(self, level: int, above: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(indices of tables, means in units) of z_level, given z_{level+1} with its margin."""
        if self.exact:
            means, indices = self.model._parameters(level, above)
            return np.asarray(indices), np.asarray(means)
        a = level_calibrator(self.config, self.params, level)
        network = frozen.level_synthesis(a, self.config, level, above)
        means, scales = map(np.asarray, frozen.level_parameters(self.config, level, *network))
        index, lowest = self.model.arrays["tables/index"], self.model.arrays["tables/lowest"][0]
        indices = index[np.clip(np.rint(scales).astype(int) - lowest, 0, len(index) - 1)]
        return indices, np.rint(means).astype(np.int32)

    def pixels(self, z: np.ndarray) -> np.ndarray:
        """uint8, given z_1 with its margin."""
        some = inside(z.shape, frozen.synthesis_margins(self.config)[0])
        if self.exact:
            return np.asarray(self.model._synthesise(z, some))
        a = synthesis_calibrator(self.config, self.params, gain_of(self.params), z)
        levels = frozen.grey_levels(self.config, *frozen.synthesis(a, self.config, z, some))
        return np.clip(np.rint(np.asarray(levels) / frozen.PIXEL_UNITS + 127.5), 0, 255).astype(np.uint8)

    def code(self, photo: np.ndarray) -> tuple[float, float]:
        """(bits per pixel, PSNR in dB) of a photo whose sides are multiples of the stride of z_L."""
        latents = [photo[None].astype(np.float32) / 255]
        for level in range(self.config.L):
            margin = inference.margins(self.config, level)
            x = around(latents[-1], margin)
            if level:
                latents.append(np.asarray(inference.level_analysis(self.encoder, self.config, level, x, margin)))
            else:
                stride = self.config.level_strides[0]
                sides = (1, *(side // stride + 2 for side in photo.shape[:2]))
                latents.append(np.asarray(inference.analysis(self.encoder, self.config, x, margin, inside(sides, 1))))
        bits, units = 0.0, None
        for level in range(self.config.L, 0, -1):
            if level == self.config.L:
                tables = self.model._tables["top"]
                indices, means = (self.model.arrays[f"top/{name}"] for name in ("indices", "means"))
                indices, means = (np.broadcast_to(v, latents[level].shape) for v in (indices, means))
            else:
                tables = self.model._tables["levels"]
                indices, means = self.parameters(level, around(units, frozen.level_margins(self.config, level)[0]))
            symbols = np.rint(latents[level] - means / np.float32(frozen.MEAN_UNITS)).astype(np.int32)
            bits += coding.ideal_bits(tables, symbols, np.ascontiguousarray(indices)).sum()
            units = in_units(symbols, means)
        margin, _ = frozen.synthesis_margins(self.config)
        pixels = self.pixels(around(units, margin).astype(np.int32))[0]
        return bits / (photo.shape[0] * photo.shape[1]), psnr(photo, pixels)


def times(model: Model, params: dict, runs: int = 9) -> tuple[float, float]:
    """Median seconds of the synthesis of 768 x 512 pixels in integers and in float."""
    config, stride = model.config, model.config.level_strides[0]
    z = np.random.default_rng(0).integers(-40, 40, (1, 512 // stride, 768 // stride, config.level_channels[0]))
    margin, _ = frozen.synthesis_margins(config)
    units, bins = around(z, margin).astype(np.int16), np.float32(z / frozen.MEAN_UNITS)
    some = inside(units.shape, margin)
    network = NestedLatentModel(config)
    in_float = jax.jit(lambda params, z: network.apply({"params": params}, z, method="synthesise"))
    programs = [lambda: model._synthesise(units, some), lambda: in_float(params, bins)]
    spent = [[], []]
    for run in range(runs + 1):
        for program, seconds in zip(programs, spent, strict=True):
            start = time.perf_counter()
            program().block_until_ready()
            if run:
                seconds.append(time.perf_counter() - start)
    return statistics.median(spent[0]), statistics.median(spent[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, metavar="RUN", help="workdir of a run of nlvc.train")
    parser.add_argument("--photos", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--data", help="training photos to measure ranges on; default: those of the run")
    flags = parser.parse_args()
    config = Config.from_json((flags.run / "config.json").read_text())
    with Checkpoints(flags.run) as checkpoints:
        params = jax.device_get(checkpoints.restore(abstract_state(config)).ema)
    crops = data.validation_crops(data.photos(flags.data or config.data, "train"), 256, FREEZING_CROPS)
    step = math.prod(config.level_strides)
    photos = []
    for path in sorted(flags.photos.rglob("*")):
        if path.suffix.lower() in data.SUFFIXES:
            photo = to_rgb(Image.open(path))
            photos.append(photo[: photo.shape[0] // step * step, : photo.shape[1] // step * step])
    curves, model = {True: [], False: []}, None
    print("bin width   integer: bpp    dB      float: bpp    dB     rate    PSNR")
    for factor in tqdm(FACTORS, unit="width"):
        changed = at_bin_width(params, factor)
        frozen_model = Model(config, freeze_model(config, changed, crops), "0" * 16)
        model = frozen_model if factor == 1.0 else model
        for exact in (True, False):
            arm = Arm(frozen_model, changed, exact)
            curves[exact].append(tuple(np.mean([arm.code(photo) for photo in photos], axis=0)))
        (bpp, dB), (float_bpp, float_dB) = curves[True][-1], curves[False][-1]
        tqdm.write(
            f"{1 / factor:9.2f} {bpp:14.4f} {dB:6.3f} {float_bpp:14.4f} {float_dB:6.3f} "
            f"{100 * (bpp / float_bpp - 1):+7.3f}% {dB - float_dB:+.4f} dB"
        )
    (float_bpp, float_dB), (bpp, dB) = (np.transpose(curves[exact]) for exact in (False, True))
    print(f"BD-rate of the integer priors alone {bd_rate(float_bpp, float_dB, bpp, float_dB):+.3f} %, of priors and "
          f"synthesis {bd_rate(float_bpp, float_dB, bpp, dB):+.3f} % ({len(photos)} photos)")  # fmt: skip
    integer, float_ = times(model, params)
    print(f"synthesis of 768 x 512 pixels: integer {1000 * integer:.0f} ms, float {1000 * float_:.0f} ms "
          f"({float_ / integer:.2f} times as fast in integers)")  # fmt: skip


if __name__ == "__main__":
    main()

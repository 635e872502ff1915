"""The frozen decoder gives the same bits everywhere: settings of JAX and XLA, threads, batches, tiles, devices."""

import hashlib
import json
import math
import platform

import exact_planes
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exact_planes import GOLDEN, PICTURES, coded_in, decoded, digests, known
from oracle import Oracle

from nlvc import coding, image_codec
from nlvc.image_codec.model import part
from nlvc.image_codec.tiles import Box, Grid, around
from nlvc.models import frozen

FILES = json.loads((GOLDEN / "files.json").read_text(encoding="utf-8"))
PATHS = {name: GOLDEN / f"{name}.nlvc" for name in [*FILES, "noise"]}
# What could change the order of a sum, or how something is rounded. Programs are compiled for NPROC threads, which says
# into how many parts their loops are cut. On x86 --xla_cpu_max_isa makes the programs of an older processor. That one,
# fast math and no programs were each seen to give the float encoder other latents.
OLDER = "--xla_cpu_max_isa=SSE4_2" if platform.machine() in ("x86_64", "AMD64") else ""
MATHS = "--xla_cpu_multi_thread_eigen={} --xla_cpu_enable_fast_math={}"
ENVIRONMENTS = {
    "one thread": {"NPROC": "1", "JAX_DEFAULT_MATMUL_PRECISION": "highest"},
    "two threads": {
        "NPROC": "2",
        "JAX_DEFAULT_MATMUL_PRECISION": "default",
        "XLA_FLAGS": MATHS.format("true", "false"),
    },
    "fast math": {"JAX_DEFAULT_MATMUL_PRECISION": "bfloat16", "XLA_FLAGS": MATHS.format("false", "true")},
    "64 bits": {"NPROC": "7", "JAX_ENABLE_X64": "1", "XLA_FLAGS": OLDER},
    # Each operation is a program of its own, more than a hundred of them: to optimise them all takes long.
    "no programs": {"JAX_DISABLE_JIT": "1", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
}


@pytest.fixture
def process(run_python, monkeypatch):
    """A function from files and settings to what `exact_planes` prints in a process of its own with these settings."""

    def run(paths, settings) -> dict:
        # Programs compiled under other settings must not be taken from the cache.
        for name, value in {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_COMPILATION_CACHE": "0", **settings}.items():
            monkeypatch.setenv(name, value)
        done = run_python(exact_planes.__file__, *paths)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture(scope="module")
def model():
    return image_codec.load(GOLDEN / "model.safetensors")


@pytest.fixture(scope="module")
def golden(model):
    """{name: `decoded` of a golden file, or of noise}."""
    return {name: decoded(model, *coded_in(path, model)) for name, path in PATHS.items()}


@pytest.mark.parametrize("name", FILES)
def test_golden_files_decode_to_what_they_always_did(model, golden, name):
    data = PATHS[name].read_bytes()
    pixels = image_codec.decompress(data, model=model)
    assert list(pixels.shape) == FILES[name]["shape"]
    assert hashlib.sha256(pixels.tobytes()).hexdigest() == FILES[name]["sha256"]
    # What the tests below look at is that, before it is made grey or joined by its alpha.
    seen = image_codec.in_mode(golden[name]["pixels"], coding.read_header(data).mode)
    np.testing.assert_array_equal(seen, pixels[..., :3] if name == "alpha" else pixels)


@pytest.mark.parametrize("name", FILES)
def test_golden_pictures_still_make_a_round_trip(model, name):
    """The encoder's networks are float: its file may differ from processor to processor, but decodes as it should."""
    data = image_codec.compress(PICTURES[name], model=model, verify=True)
    assert list(image_codec.decompress(data, model=model).shape) == FILES[name]["shape"]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_settings_do_not_matter(process, golden, environment):
    expected = {str(PATHS[name]): digests(seen) for name, seen in golden.items()}
    assert process(expected, ENVIRONMENTS[environment])["planes"] == expected


def test_devices_do_not_matter(process, tmp_path):
    """The CPU's files, which the golden ones are, decoded on a GPU or TPU; and the other way."""
    anywhere = {"JAX_PLATFORMS": ""}
    device = process([], anywhere)["device"]
    if device == "cpu":
        pytest.skip("JAX sees no GPU and no TPU on this machine")
    paths = [*PATHS.values(), *(tmp_path / f"{name}.nlvc" for name in FILES)]
    there = process(paths, anywhere)
    assert there["device"] == device
    assert process(paths, {}) == {"device": "cpu", "planes": there["planes"]}


@pytest.mark.parametrize(("side", "tiles"), [(32, 9), (64, 4), (96, 1)])
def test_tiles_do_not_matter(model, golden, side, tiles):
    """The same symbols give the same picture however it is cut: networks see over the borders of tiles."""
    grid = Grid(model.config, *PICTURES["tiles"].shape[:2], side)
    assert math.prod(grid.tiles) == tiles
    assert digests(decoded(model, *known(golden["tiles"], grid))) == digests(golden["tiles"])


@pytest.mark.parametrize("level", range(3))
def test_batches_do_not_matter(model, golden, level, monkeypatch):
    """Seven parts of z_{level+1} at once, and one by one, are what they are in the whole picture; level 0: pixels.

    Pixels are those of a larger picture, because a batch has the same borders for all of its parts: here all inside.
    """
    config, seen, first = model.config, *((golden["tiles"], 0) if level else (golden["noise"], 20))
    a = frozen.Exact(part(model.arrays, f"decoder/level_{level}" if level else "decoder/synthesis"))
    margin, _ = frozen.level_margins(config, level) if level else frozen.synthesis_margins(config)

    @jax.jit
    def run(z):
        if not level:
            return frozen.pixels(config, *frozen.synthesis(a, config, z))
        return jnp.concatenate(frozen.level_parameters(config, level, *frozen.level_synthesis(a, config, level, z)), -1)

    corners = [(0, 0), (0, 3), (1, 2), (2, 1), (2, 3), (3, 0), (3, 3)]
    boxes = [Box(first + top, first + left, 2, 3) for top, left in corners]
    z = np.concatenate([around(seen[f"z {level + 1}"], box, margin) for box in boxes]).astype(np.int32)
    together, whole = np.asarray(run(z)), seen[f"means {level}"] if level else seen["pixels"]
    for number, box in enumerate(boxes):
        np.testing.assert_array_equal(run(z[number : number + 1])[0], together[number])
        expected = Box(*(side * config.level_strides[level] for side in box)).of(whole)
        np.testing.assert_array_equal(together[number, ..., : whole.shape[-1]], expected)
    # GPUs convolve by matrix products; a new number of parts is traced anew.
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    np.testing.assert_array_equal(run(z[:3]), together[:3])


class InNumPy(image_codec.Model):
    """A model whose networks are computed by `Oracle`, for the very box that is asked for."""

    arithmetic = Oracle

    def conditional(self, grid, level, above, box):
        if level == self.config.L:
            return super().conditional(grid, level, above, box)
        a = self.arithmetic(part(self.arrays, f"decoder/level_{level}"))
        source = Box(*(side // self.config.level_strides[level] for side in box))
        z = around(above, source, frozen.level_margins(self.config, level)[0])
        network = frozen.level_synthesis(a, self.config, level, z)
        means, scales = frozen.level_parameters(self.config, level, *network)
        lowest, index = self.arrays["tables/lowest"], self.arrays["tables/index"]
        indices = index[np.clip(scales[0] - lowest, 0, len(index) - 1)]
        return coding.Tables(**part(self.arrays, "tables/levels")), indices, means[0]

    def synthesise(self, grid, z, box):
        a = self.arithmetic(part(self.arrays, "decoder/synthesis"))
        margin, _ = frozen.synthesis_margins(self.config)
        network = frozen.synthesis(a, self.config, around(z, box, margin), grid.borders(box, margin))
        return frozen.pixels(self.config, *network)[0]

    def preview(self, grid, z, box):
        a = self.arithmetic(part(self.arrays, "decoder/preview"))
        return frozen.preview(a, self.config, around(z, box, 0))[0]


@pytest.mark.parametrize("name", PATHS)
def test_the_oracle_agrees_index_by_index(model, golden, name):
    oracle = InNumPy(model.config, model.arrays, model.fingerprint)
    assert digests(decoded(oracle, *coded_in(PATHS[name], oracle))) == digests(golden[name])


class InFloat(Oracle):
    """The last step of a multiplication in float32, which is as near to its integers as can be."""

    def scaled(self, name, x):
        fields = ("limit", "before", "multiplier", "after")
        limit, before, multiplier, after = (self.arrays[f"{name}/{field}"] for field in fields)
        x = np.floor_divide(np.clip(x, -limit, limit) + 2**before // 2, 2**before)
        return np.rint(x.astype(np.float32) * (multiplier / 2**after).astype(np.float32)).astype(np.int64)


def test_another_rounding_would_be_seen(model, golden):
    other = InNumPy(model.config, model.arrays, model.fingerprint)
    other.arithmetic = InFloat
    assert digests(decoded(other, *coded_in(PATHS["noise"], other))) != digests(golden["noise"])

"""A folder of 200 photos whose compression is killed again and again: nothing is lost, half done, or left over."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_cli_folders import contents, pixels, read, save

from nlvc import image_codec

ROOT = Path(__file__).parents[1]
PHOTOS, KILLS = 200, 5
SUFFIXES = ".png .jpg .bmp .PNG .webp .tif .ppm".split()


@pytest.fixture
def photos(tmp_path):
    """A tree of small photos of many sizes and formats, grey, RGB and with alpha."""
    rng, root = random.Random(0), tmp_path / "photos"
    for number in range(PHOTOS):
        suffix = SUFFIXES[number % len(SUFFIXES)]
        channels = rng.choice([(), (3,), (3,)] + [(4,)] * (suffix == ".png"))
        folder = root / rng.choice(["", "a", "a/b", "a/b/c", "d e"])
        save(folder / f"{number:03}{suffix}", pixels(rng.randint(1, 300), rng.randint(1, 300), *channels, seed=number))
    return root


def start(source, target, model):
    command = [sys.executable, "-m", "nlvc", "compress", source, target, "--model", model]
    # As in setup.cfg: a kill may leave half an entry in JAX's cache, and JAX says so and compiles.
    quiet = "ignore:Error reading persistent compilation cache entry:UserWarning"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": quiet}
    return subprocess.Popen(list(map(os.fspath, command)), env=environment, stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip


def outputs(folder):
    return {name: data for name, data in contents(folder).items() if name.endswith(".nlvc")}


def times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0])
def test_killed_five_times(photos, tmp_path, model_file, seed):
    rng, codes = random.Random(seed), tmp_path / "codes"
    before, before_times, done = contents(photos), times(photos), {}
    for kill_at in sorted(rng.sample(range(3, PHOTOS - 20), KILLS)):
        process = start(photos, codes, model_file())
        try:
            while process.poll() is None and len(list(codes.rglob("*.nlvc"))) < max(kill_at, len(done) + 1):
                time.sleep(0.002)
            time.sleep(rng.uniform(0, 0.1))
        finally:
            process.kill()
            _, err = process.communicate()
        found = outputs(codes)
        print(f"killed with {len(found)} of {PHOTOS} outputs, {len(found) - len(done)} of them new")
        assert (process.returncode, err) == (-signal.SIGKILL, "")
        assert len(done) < len(found) < PHOTOS
        assert found.items() >= done.items()
        assert contents(photos) == before
        done = found
    process = start(photos, codes, model_file())
    out, err = process.communicate(timeout=1800)
    assert (process.returncode, err) == (0, "")
    rest = PHOTOS - len(done)
    assert out.endswith(f"{rest} written, {len(done)} skipped because they are already there, 0 failed\n")

    assert contents(photos) == before
    assert times(photos) == before_times
    after = contents(codes)
    assert after.items() >= done.items()
    assert after.keys() == {str(Path(name).with_suffix(".nlvc")) for name in before}
    model = image_codec.load(model_file())
    for name in before:
        picture = image_codec.decompress(after[str(Path(name).with_suffix(".nlvc"))], model=model)
        assert picture.shape == read(photos / name).shape

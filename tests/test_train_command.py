"""`python -m nlvc.train`, the real command: it learns, ends with real files, and survives whatever ends it."""

import json
import random
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from commands import Commands
from PIL import Image

from nlvc.config import Config
from nlvc.evaluation import psnr
from nlvc.models.weights import load_model

STEPS = 60
# From noise and in large steps, so that the loss falls far within few of them.
FLAGS = (
    "--preset=tiny --L=2 --strides 16 2 --patch-size=64 --transform=plain --no-linear-path --learning-rate=1e-2 "
    f"--prior-scale=1 --steps={STEPS} --checkpoint-every=3 --log-every=1 --data=photos --workdir=run"
).split()


class Runs(Commands):
    """Trainings in the folder `run`."""

    limit = 600

    def train_until(self, moment: Callable[[], bool], number: signal.Signals) -> int:
        """Starts the training, sends it a signal as soon as it is that moment; returns its exit status."""
        return self.until(moment, number, "nlvc.train", *FLAGS)

    def after(self, step: int) -> Callable[[], bool]:
        """Whether that step is done, as a question."""
        return lambda: self.last_step() >= step

    def unfinished(self) -> list[Path]:
        """The checkpoints that are being written, or of which a killed process has left a part."""
        return list((self.folder / "run" / "checkpoints").glob("*.orbax-checkpoint-tmp*"))

    def last_step(self) -> int:
        """The last step of which run/metrics.jsonl has a whole line."""
        return self.step_of("run")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train")
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[0:72, 0:96] / 32
    for part, count in (("train", 3), ("validation", 1), ("test", 2)):
        (folder / "photos" / part).mkdir(parents=True)
        for number in range(count):
            waves = (np.sin(rng.normal(0, 3) * rows + rng.normal(0, 3) * columns + rng.normal()) for _ in range(6))
            photo = 128 + sum(wave[:, :, None] * rng.normal(0, 40, 3) for wave in waves)
            photo = np.clip(photo + rng.normal(0, 4, photo.shape), 0, 255).astype(np.uint8)
            Image.fromarray(photo).save(folder / "photos" / part / f"{number}.png")
    return Runs(folder)


@pytest.fixture(scope="module")
def whole(runs):
    """(folder of an uninterrupted run, its stdout, its stderr)."""
    status, out, err = runs.run("nlvc.train", *FLAGS)
    assert status == 0, err
    # A run is compared with others under the same flags, so the workdir is moved out of their way.
    (runs.folder / "run").rename(runs.folder / "whole")
    return runs.folder / "whole", out, err


def lines(workdir, name="loss"):
    entries = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [entry for entry in entries if name in entry]


def test_what_a_run_leaves_behind(whole):
    workdir, out, err = whole
    assert {path.name for path in workdir.iterdir()} == {
        "checkpoints", "config.json", "files", "metrics.jsonl", "model.safetensors", "picture.png", "report.csv",
        "report.txt", "tensorboard",
    }  # fmt: skip
    first, second, third, *rest = out.splitlines()
    assert re.fullmatch(r"device: cpu \(.*\), workdir: run", first)
    assert second == "photos: 3 train, 1 validation, 2 test, 0 skipped"
    config, _, fingerprint = load_model(workdir / "model.safetensors")
    assert third == f"model: run/model.safetensors, fingerprint {fingerprint}"
    assert "\n".join(rest[:-1]) + "\n" == (workdir / "report.txt").read_text()
    assert rest[-1] == "files, picture.png and report.txt are in run"
    assert config == Config.from_args(FLAGS) == Config.from_json((workdir / "config.json").read_text())
    kept = sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())
    assert kept[-3:] == [STEPS - 6, STEPS - 3, STEPS] and len(kept) <= 4  # and the best, if that is another
    assert any(path.stat().st_size > 1000 for path in (workdir / "tensorboard").iterdir())
    with Image.open(workdir / "picture.png") as picture:
        assert picture.width > picture.height > 100
    assert re.search(r"60/60 .*loss \d+\.\d+  bpp \d\.\d+\+\d\.\d+  PSNR \d+\.\d\d dB  \d+ images/s", err)
    assert "Traceback" not in err


def test_the_loss_falls(whole):
    losses = [line["loss"] for line in lines(whole[0])]
    assert len(losses) == STEPS
    first, last = np.mean(losses[:15]), np.mean(losses[-15:])
    noise = np.hypot(np.std(losses[:15]), np.std(losses[-15:])) / 15**0.5
    assert last < 0.8 * first
    assert first - last > 3 * noise
    validation = [line["validation_loss"] for line in lines(whole[0], "validation_loss")]
    assert len(validation) == STEPS / 3
    assert validation[-1] < validation[0]


def test_the_table_tells_the_truth(runs, whole):
    """Every figure of it, from the files alone and through the other command."""
    workdir = whole[0]
    status, _, err = runs.run("nlvc", "decompress", "whole/files", "decoded", "--model", "whole")
    assert (status, err) == (0, "")
    rows = [line.split() for line in (workdir / "report.txt").read_text().splitlines() if re.match(r"\d", line)]
    assert [row[:2] for row in rows] == [["0", "96x72"], ["1", "96x72"]]
    for name, _, size, real, estimated, quality, ms_ssim, *levels in rows:
        data = (workdir / "files" / f"{name}.nlvc").read_bytes()
        assert int(size) == len(data)
        assert float(real) == pytest.approx(8 * len(data) / (96 * 72), abs=1e-4)
        assert 0 < float(estimated) < float(real)
        assert sum(map(float, levels)) == pytest.approx(float(estimated), rel=0.05, abs=0.005)
        photos = (Path("photos", "test", f"{name}.png"), Path("decoded", f"{name}.png"))
        original, decoded = (np.asarray(Image.open(runs.folder / path)) for path in photos)
        assert float(quality) == pytest.approx(psnr(original, decoded), abs=0.005)
        assert ms_ssim == "-"


@pytest.fixture
def no_run(runs, whole):
    """Clears `run` away after a test that trains there."""
    yield
    shutil.rmtree(runs.folder / "run", ignore_errors=True)


def check_same_as_whole(runs, whole):
    """Ends the training in `run` and compares it with the uninterrupted one. Returns its stdout."""
    status, out, err = runs.run("nlvc.train", *FLAGS)
    assert status == 0, err
    run = runs.folder / "run"
    for name in ("model.safetensors", "files/0.nlvc", "files/1.nlvc", "report.txt"):
        assert (run / name).read_bytes() == (whole[0] / name).read_bytes(), name
    assert [line["step"] for line in lines(run)] == list(range(1, STEPS + 1))
    assert [line["loss"] for line in lines(run)] == [line["loss"] for line in lines(whole[0])]
    return out


@pytest.mark.usefixtures("no_run")
def test_killed_then_terminated_then_finished(runs, whole):
    """The promise: whatever kills a run, the same command ends with the very parameters of one that nothing killed."""
    # Step 7 comes after the save of step 6, which has waited for that of step 3.
    moment = random.randint(7, STEPS // 2)
    print(f"kill -9 after step {moment}")
    assert runs.train_until(runs.after(moment), signal.SIGKILL) == -signal.SIGKILL
    assert not (runs.folder / "run" / "model.safetensors").exists()
    reached = runs.last_step()
    assert moment <= reached < STEPS

    later = random.randint(reached + 1, STEPS - 10)
    print(f"kill -15 after step {later}")
    assert runs.train_until(runs.after(later), signal.SIGTERM) == 128 + signal.SIGTERM
    out = (runs.folder / "out").read_text()
    resumed, stopped = map(int, re.findall(r"at step (\d+)", out))
    assert re.search(r"^resuming at step", out, re.MULTILINE)
    assert out.endswith(f"stopped by SIGTERM at step {stopped}; the same command resumes\n")
    assert 3 <= resumed <= reached
    assert later <= stopped < STEPS
    assert not (runs.folder / "run" / "model.safetensors").exists()

    assert f"resuming at step {stopped}" in check_same_as_whole(runs, whole)


@pytest.mark.slow
@pytest.mark.usefixtures("no_run")
@pytest.mark.parametrize("attempt", range(4))
def test_killed_again_and_again(runs, whole, attempt):
    done = 0
    while (moment := done + random.randint(4, 20)) < STEPS:
        print(f"kill -9 after step {moment}")
        assert runs.train_until(runs.after(moment), signal.SIGKILL) == -signal.SIGKILL
        done = runs.last_step()
    check_same_as_whole(runs, whole)


@pytest.mark.slow
@pytest.mark.usefixtures("no_run")
def test_killed_ten_times_while_a_checkpoint_is_written(runs, whole):
    hit, left = 0, set()

    def saving():
        found = set(runs.unfinished()) - left
        if found:
            time.sleep(random.uniform(0, 0.01))
        return bool(found)

    while hit < 10:
        left = set(runs.unfinished())
        if runs.train_until(saving, signal.SIGKILL) == 0:
            check_same_as_whole(runs, whole)
            shutil.rmtree(runs.folder / "run")
        elif set(runs.unfinished()) - left:  # else it was finished in time
            hit += 1
            print(f"killed while it saved {[path.name for path in runs.unfinished()]}")
    check_same_as_whole(runs, whole)


@pytest.mark.slow
@pytest.mark.usefixtures("no_run")
def test_interrupted(runs, whole):
    assert runs.train_until(runs.after(10), signal.SIGINT) == 128 + signal.SIGINT
    assert "stopped by SIGINT at step" in (runs.folder / "out").read_text()
    check_same_as_whole(runs, whole)


@pytest.mark.slow
def test_learning_far_too_fast(runs):
    status, out, err = runs.run("nlvc.train", *FLAGS, "--learning-rate=1e30", "--workdir=fast")
    assert status == 1
    assert re.fullmatch(r"nlvc\.train: the loss is not finite at step .*", err.splitlines()[-1])
    assert "Traceback" not in err
    assert "model:" not in out
    assert not (runs.folder / "fast" / "model.safetensors").exists()


@pytest.mark.slow
def test_the_embedded_photos(runs):
    """What the README proposes to see that it works, in fewer steps."""
    status, out, err = runs.run("nlvc.train", "--preset=tiny", "--L=3", "--steps=3", "--workdir=embedded")
    assert status == 0, err
    assert "photos: 5 train, 2 validation, 2 test, 0 skipped" in out
    assert re.search(r"^chelsea  451x300 ", out, re.MULTILINE)
    assert re.search(r"^coffee   600x400 ", out, re.MULTILINE)

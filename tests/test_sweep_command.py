"""`python -m nlvc.sweep`, the real command: kills, failures, devices, and what it leaves behind."""

import csv
import json
import random
import re
import shutil
import signal
import time
from collections.abc import Callable

import numpy as np
import pytest
from commands import Commands
from PIL import Image

from nlvc.config import Config
from nlvc.models.weights import load_model

STEPS = 24
# The smallest model there is, from noise: its programs compile in seconds.
TRAINING = (
    "--preset=tiny --L=1 --strides 4 --channels=4 --filters=4 --latent-filters=4 --patch-size=16 --transform=plain "
    f"--no-linear-path --prior-scale=1 --steps={STEPS} --checkpoint-every=3 --log-every=1 --data=photos"
).split()
GRID = [*TRAINING, "--lmbda", "0.01", "0.1", "--seed", "0", "1", "--pack=4"]
CELLS = [f"L=1,prior=logistic,lmbda={lmbda},seed={seed}" for lmbda in ("0.01", "0.1") for seed in (0, 1)]


class Sweeps(Commands):
    """Sweeps in the folder `sweep`."""

    def sweep_until(self, condition: Callable[[], bool], number: signal.Signals) -> int:
        """Starts the sweep, sends it a signal as soon as the condition holds; returns its exit status."""
        return self.until(condition, number, "nlvc.sweep", *GRID, "--workdir=sweep")

    def last_step(self) -> int:
        """The last step of which the last cell's journal has a whole line."""
        return self.step_of(f"sweep/{CELLS[-1]}")

    def progress(self) -> int:
        """Steps of the last cell, and reports of all."""
        return self.last_step() + len(list((self.folder / "sweep").glob("*/report.csv")))


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweeps")
    rng = np.random.default_rng(0)
    for part, count in (("train", 3), ("validation", 1), ("test", 2)):
        (folder / "photos" / part).mkdir(parents=True)
        for number in range(count):
            photo = np.clip(rng.normal(128, 40, (6, 8, 3)).repeat(8, axis=0).repeat(8, axis=1), 0, 255)
            Image.fromarray(photo.astype(np.uint8)).save(folder / "photos" / part / f"{number}.png")
    return Sweeps(folder)


@pytest.fixture(scope="module")
def whole(sweeps):
    """(folder of an uninterrupted sweep, its stdout, its stderr)."""
    status, out, err = sweeps.run("nlvc.sweep", *GRID, "--workdir=sweep")
    assert status == 0, err
    # A sweep is compared with others under the same flags, so it is moved out of their way.
    (sweeps.folder / "sweep").rename(sweeps.folder / "whole")
    return sweeps.folder / "whole", out, err


@pytest.fixture
def no_sweep(sweeps, whole):
    """Clears `sweep` away after a test that trains there."""
    yield
    shutil.rmtree(sweeps.folder / "sweep", ignore_errors=True)


def results(folder):
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def losses(folder):
    """{cell: losses of the steps}, and the journals hold each step once."""
    found = {}
    for cell in folder.glob("*/metrics.jsonl"):
        lines = [line for line in map(json.loads, cell.read_text().splitlines()) if "loss" in line]
        assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
        found[cell.parent.name] = [line["loss"] for line in lines]
    return found


def check_same_as_whole(sweeps, whole):
    """Ends the sweep and compares it with the uninterrupted one, to the last bit. Returns its stdout."""
    status, out, err = sweeps.run("nlvc.sweep", *GRID, "--workdir=sweep")
    assert status == 0, err
    assert losses(sweeps.folder / "sweep") == losses(whole[0])
    for cell in CELLS:
        for name in ("model.safetensors", "files/0.nlvc", "files/1.nlvc", "report.csv"):
            ours, expected = (folder / cell / name for folder in (sweeps.folder / "sweep", whole[0]))
            assert ours.read_bytes() == expected.read_bytes(), (cell, name)
    ours, expected = (
        [{**row, "seconds": ""} for row in results(folder)] for folder in (sweeps.folder / "sweep", whole[0])
    )
    assert ours == expected
    return out


def test_what_a_sweep_says(whole):
    _, out, err = whole
    first, *middle, last = out.splitlines()
    assert first == "4 cells in 1 programs, on 1 cpu device (cpu), workdir: sweep"
    assert last == "4 of 4 cells are done; results: sweep/results.csv"
    assert [line for line in middle if line.endswith("done, step 24/24")] == [f"{c}: done, step 24/24" for c in CELLS]
    assert "Traceback" not in err and "nlvc.sweep:" not in err


def test_every_cell_has_the_workdir_of_a_run(sweeps, whole):
    """The files are there, and nlvc.train, nlvc freeze and nlvc compress take them."""
    for cell in CELLS:
        workdir = whole[0] / cell
        assert {path.name for path in workdir.iterdir()} == {
            "checkpoints", "config.json", "files", "metrics.jsonl", "model.safetensors", "picture.png", "report.csv",
            "report.txt", "tensorboard",
        }  # fmt: skip
        lmbda, seed = re.findall(r"lmbda=(.*),seed=(.*)", cell)[0]
        expected = Config.from_args([*TRAINING, f"--lmbda={lmbda}", f"--seed={seed}", f"--workdir=sweep/{cell}"])
        assert Config.from_json((workdir / "config.json").read_text()) == expected
        assert load_model(workdir / "model.safetensors")[0] == expected
        assert sorted(int(path.name) for path in (workdir / "checkpoints").iterdir()) == [18, 21, 24]
    folder, cell = sweeps.folder, whole[0] / CELLS[0]
    assert sweeps.run("nlvc", "freeze", str(cell), "again.safetensors")[0] == 0
    assert (folder / "again.safetensors").read_bytes() == (cell / "model.safetensors").read_bytes()
    assert sweeps.run("nlvc", "compress", "photos/test/0.png", "a.nlvc", "--model", str(cell))[0] == 0
    assert (folder / "a.nlvc").read_bytes() == (cell / "files" / "0.nlvc").read_bytes()


@pytest.mark.usefixtures("no_sweep")
def test_a_cell_is_what_nlvc_train_makes(sweeps, whole):
    """Alone the numbers are added in another order, and nothing else is different."""
    cell = CELLS[3]
    status, out, err = sweeps.run("nlvc.train", *TRAINING, "--lmbda=0.1", "--seed=1", f"--workdir=sweep/{cell}")
    assert status == 0, err
    alone = losses(sweeps.folder / "sweep")[cell]
    np.testing.assert_allclose(losses(whole[0])[cell], alone, rtol=1e-4)
    for row in results(whole[0])[-2:]:
        report = next(line for line in out.splitlines() if line.startswith(f"{row['photo']} ")).split()
        assert float(row["bytes"]) == pytest.approx(float(report[2]), rel=0.01)
        assert float(row["psnr"]) == pytest.approx(float(report[5]), abs=0.05)


def test_the_results_are_those_of_the_reports(whole):
    rows = results(whole[0])
    assert [(row["cell"], row["photo"]) for row in rows] == [(cell, photo) for cell in CELLS for photo in "01"]
    for row in rows:
        workdir = whole[0] / row["cell"]
        line = next(line for line in (workdir / "report.txt").read_text().splitlines() if line[0] == row["photo"])
        _, size, count, real, estimated, quality, ms_ssim, level = line.split()
        assert size == f"{row['width']}x{row['height']}" == "64x48"
        assert int(count) == int(row["bytes"]) == (workdir / "files" / f"{row['photo']}.nlvc").stat().st_size
        assert float(row["bpp"]) == 8 * int(count) / (64 * 48)
        for text, name in ((real, "bpp"), (estimated, "bpp_estimated"), (quality, "psnr"), (level, "bpp_1")):
            assert float(text) == pytest.approx(float(row[name]), abs=0.006 if name == "psnr" else 1e-4)
        assert (ms_ssim, row["ms_ssim"]) == ("-", "nan")
        assert f"lmbda={row['lmbda']},seed={row['seed']}" in row["cell"]
        assert (row["L"], row["strides"], row["steps"], row["prior"]) == ("1", "4", str(STEPS), "logistic")
        assert row["fingerprint"] == load_model(workdir / "model.safetensors")[2]
        assert 0 < float(row["seconds"]) < 900


@pytest.mark.usefixtures("no_sweep")
def test_killed_while_training_and_while_coding(sweeps, whole):
    moment = random.randint(4, STEPS - 4)
    print(f"kill -9 after step {moment}")
    assert sweeps.sweep_until(lambda: sweeps.last_step() >= moment, signal.SIGKILL) == -signal.SIGKILL
    first = sweeps.folder / "sweep" / CELLS[0] / "report.csv"
    assert sweeps.sweep_until(first.exists, signal.SIGKILL) == -signal.SIGKILL
    written = first.stat().st_mtime_ns
    check_same_as_whole(sweeps, whole)
    assert first.stat().st_mtime_ns == written  # not repeated


@pytest.mark.slow
@pytest.mark.usefixtures("no_sweep")
def test_killed_ten_times(sweeps, whole):
    """At random moments between the start and the last report, so also while it compiles, saves and codes."""
    kills = 0
    while kills < 10:
        target = sweeps.progress() + random.randint(0, 8)

        def late(target=target):
            if sweeps.progress() < target:
                return False
            time.sleep(random.uniform(0, 0.3))
            return True

        status = sweeps.sweep_until(late, signal.SIGKILL)
        print(f"status {status} at {sweeps.progress()} of {STEPS + len(CELLS)}, aimed at {target}")
        if status == 0:
            check_same_as_whole(sweeps, whole)
            shutil.rmtree(sweeps.folder / "sweep")
        else:
            assert status == -signal.SIGKILL
            kills += 1
    check_same_as_whole(sweeps, whole)


@pytest.mark.slow
@pytest.mark.usefixtures("no_sweep")
def test_terminated(sweeps, whole):
    assert sweeps.sweep_until(lambda: sweeps.last_step() >= 4, signal.SIGTERM) == 128 + signal.SIGTERM
    out = (sweeps.folder / "out").read_text()
    assert out.endswith("0 of 4 cells are done\nstopped by SIGTERM; the same command resumes\n")
    stopped = {int(step) for step in re.findall(r": stopped, step (\d+)/24", out)}
    assert len(stopped) == 1 and stopped.pop() >= 4
    check_same_as_whole(sweeps, whole)


@pytest.mark.usefixtures("no_sweep")
def test_cells_that_fail(sweeps, whole):
    """Lambda so large that the loss is infinite, and strides of no such model; the others are as without them."""
    flags = [flag for flag in GRID if flag not in ("--L=1", "0.1")]
    flags.insert(flags.index("--seed"), "1e37")
    command = ["nlvc.sweep", *flags, "--L", "1", "2", "--workdir=sweep"]
    status, out, err = sweeps.run(*command)
    assert status == 1
    said = {line for line in err.splitlines() if line.startswith("nlvc.sweep: ")}
    loss = "the loss is not finite at step 1 or in the 1 before; try a lower --learning-rate or --clip-norm, in another"
    strides = "strides=(4,): give one stride for each of the L=2 levels, or none"
    assert said == {
        *(f"nlvc.sweep: L=1,prior=logistic,lmbda=1e+37,seed={seed}: {loss} --workdir" for seed in (0, 1)),
        *(f"nlvc.sweep: lmbda={lmbda},seed={seed},L=2: {strides}" for lmbda in ("0.01", "1e37") for seed in (0, 1)),
    }
    assert out.endswith("2 of 8 cells are done; results: sweep/results.csv\n")
    assert "Traceback" not in err
    assert [row["cell"] for row in results(sweeps.folder / "sweep")] == [CELLS[0]] * 2 + [CELLS[1]] * 2
    sound = {cell: values for cell, values in losses(whole[0]).items() if cell in CELLS[:2]}
    shutil.rmtree(sweeps.folder / "sweep" / "L=1,prior=logistic,lmbda=1e+37,seed=0")
    shutil.rmtree(sweeps.folder / "sweep" / "L=1,prior=logistic,lmbda=1e+37,seed=1")
    ours = losses(sweeps.folder / "sweep")
    assert ours.keys() == sound.keys()
    for cell in sound:
        np.testing.assert_allclose(ours[cell], sound[cell], rtol=1e-4)


@pytest.mark.usefixtures("no_sweep")
def test_many_devices_give_the_same(sweeps, whole):
    """8 of them: the four cells have one each."""
    status, out, err = sweeps.run("nlvc.sweep", *GRID, "--workdir=sweep", JAX_NUM_CPU_DEVICES="8")
    assert status == 0, err
    assert out.startswith("4 cells in 1 programs, on 8 cpu devices (cpu)")
    ours, expected = losses(sweeps.folder / "sweep"), losses(whole[0])
    assert ours.keys() == expected.keys()
    for cell in ours:
        np.testing.assert_allclose(ours[cell], expected[cell], rtol=1e-4)


def test_a_dry_run_trains_nothing(sweeps, whole):
    status, out, err = sweeps.run("nlvc.sweep", *GRID, "--pack=3", "--workdir=nothing", "--dry-run")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "4 cells in 2 programs of 1 shapes, on 1 cpu device (cpu)"
    assert [line.split()[-1] for line in lines[2:]] == CELLS
    assert re.fullmatch(r" +1 +2 +0 +1 +\d+ MiB +L=1.*", lines[2])
    assert not (sweeps.folder / "nothing").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["3"], "nlvc.sweep: 3: flags begin with --\n"),
        (["--prior", "cauchy", "--workdir=nothing"], "prior"),
        (["--pack=0"], "argument --pack: must be at least 1"),
        (["--engine=slurm"], "argument --engine: invalid choice: 'slurm'"),
    ],
)
def test_wrong_flags(flags, words, capsys, monkeypatch):
    from nlvc import sweep

    try:
        status = sweep.main(flags)
    except SystemExit as stopped:
        status = stopped.code
    assert status == 2
    assert words in capsys.readouterr().err

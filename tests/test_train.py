"""The loop of `python -m nlvc.train` on a toy model: signals, checkpoints, failures, and every word it says.

What the loop calls (data, Orbax, the journal, the model's file) is real; test_train_command.py runs the whole.
"""

import gzip
import json
import os
import re
import signal
import time

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from nlvc import train
from nlvc.config import Config, ConfigError, tiny
from nlvc.models.weights import load_model
from nlvc.training import states
from nlvc.training.loop import TrainState

STEPS, EVERY = 12, 5
FLAGS = ["--preset=tiny", "--L=2", f"--steps={STEPS}", f"--checkpoint-every={EVERY}", "--log-every=2"]


def metrics(loss):
    return {"loss": loss, "bpp": 3.0, "bpp_levels": np.array([1.0, 2.0]), "psnr": 30.0}


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """toy(more flags..., at={step: function}) -> exit status, of a run in tmp_path/run on three photos.

    The parameters sum up the batches, so they tell whether each was seen once and in order. `at` is called in the
    middle of a step with the new parameters, and may return others, or the loss as a string.
    """
    for name in "abc":
        pixels = np.random.default_rng(ord(name)).integers(0, 256, (150, 150, 3), np.uint8)
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{name}.png")
    hooks = {}

    def make_train_step(config, place):
        def step(state, batch):
            number = int(state.step) + 1
            params = {"w": state.params["w"] * 1.5 + float(batch.mean()) * number}
            result = hooks.get(number, lambda _: None)(params)
            params = result if isinstance(result, dict) else params
            loss = float(result) if isinstance(result, str) else 1.0 / number
            return TrainState(state.step + 1, params, {"w": -params["w"]}, ()), metrics(loss)

        return step

    def create_state(config, crops):
        assert crops.shape == (states.START_CROPS, config.patch_size, config.patch_size, 3)
        return abstract_state(config)

    def abstract_state(config, place=None):
        return TrainState(jnp.zeros((), jnp.int32), {"w": jnp.zeros(3)}, {"w": jnp.zeros(3)}, ())

    def freeze_model(config, params, crops):
        assert crops.shape == (train.FREEZING_CROPS, 256, 256, 3)
        return {"w": params["w"]}

    monkeypatch.setattr(train, "freeze_model", freeze_model)
    monkeypatch.setattr(train, "make_train_step", make_train_step)
    monkeypatch.setattr(train, "make_validation", lambda *_: lambda ema: metrics(float(ema["w"].sum())))
    monkeypatch.setattr(states, "create_state", create_state)
    monkeypatch.setattr(states, "state_of", lambda config, params: abstract_state(config).replace(params=params))
    for module in (train, states):
        monkeypatch.setattr(module, "abstract_state", abstract_state)
    monkeypatch.setattr(train, "report", lambda workdir, photos: f"table of {len(photos)}")
    monkeypatch.setattr(train, "keep_freed_memory", lambda: None)
    monkeypatch.setattr(train, "keep_programs", lambda: None)

    def run(*flags, at=None, workdir="run"):
        hooks.clear()
        hooks.update(at or {})
        place = [f"--data={tmp_path / 'photos'}", f"--workdir={tmp_path / workdir}"]
        before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        status = train.main([*FLAGS, *place, *flags])
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
        return status

    return run


def weights(workdir):
    return load_model(workdir / "model.safetensors")[1]["w"]


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def checkpoints(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())


def becomes(value):
    """For `at`: the validation's loss is lower where parameters are larger."""
    return lambda _: {"w": jnp.full(3, value)}


def raises(number):
    return lambda _: signal.raise_signal(number)


def test_a_whole_run(toy, tmp_path, capsys):
    assert toy() == 0
    out, err = capsys.readouterr()
    run = tmp_path / "run"
    model = run / "model.safetensors"
    config, _, fingerprint = load_model(model)
    assert out.splitlines() == [
        f"device: cpu (cpu), workdir: {run}",
        "photos: 1 train, 1 validation, 1 test, 0 skipped",
        f"model: {model}, fingerprint {fingerprint}",
        "table of 1",
    ]
    assert config == Config.from_json((run / "config.json").read_text())
    assert checkpoints(run) == [5, 10, 12]
    assert f"{STEPS}/{STEPS}" in err
    assert "loss 0.087  bpp 1.000+2.000  PSNR 30.00 dB" in err
    assert "images/s" in err
    steps = [line["step"] for line in lines(run) if "loss" in line]
    assert steps == [2, 4, 5, 6, 8, 10, 12]
    assert [line["step"] for line in lines(run) if "validation_loss" in line] == [5, 10, 12]
    for line in lines(run):
        prefix = "" if "loss" in line else "validation_"
        assert {"loss", "bpp", "bpp_1", "bpp_2", "psnr"} <= {name.removeprefix(prefix) for name in line}
    for line in lines(run):
        assert ("data_wait" in line) == ("loss" in line)
        assert 0 <= line.get("data_wait", 0) <= 1
    assert re.search(r"images/s  data \d+%", err)
    assert lines(run)[1]["loss"] == pytest.approx((1 / 3 + 1 / 4) / 2)
    assert list((run / "tensorboard").iterdir())


def test_waiting_for_slow_photos_is_told(toy, tmp_path, monkeypatch):
    def slow(photos, **options):
        for batch in batches(photos, **options):
            time.sleep(0.3)
            yield batch

    batches = train.data.batches
    monkeypatch.setattr(train.data, "batches", slow)
    assert toy("--steps=6") == 0
    assert lines(tmp_path / "run")[-2]["data_wait"] > 0.7


def test_a_run_is_traced_if_asked(toy, tmp_path, capsys):
    assert toy("--profile") == 0
    folder = tmp_path / "run" / "profile"
    told = f"profile: steps 7 to 12 are in {folder} (TensorBoard, or ui.perfetto.dev)"
    assert told in capsys.readouterr().out.splitlines()
    names = [path.name for path in folder.rglob("*") if path.is_file()]
    assert [name for name in names if name.endswith(".xplane.pb")]
    (trace,) = (path for path in folder.rglob("*.trace.json.gz"))
    events = json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    steps = {event["args"]["step_num"] for event in events if event.get("name") == "train" and "args" in event}
    assert steps == {str(step) for step in range(7, 13)}


def test_a_stop_while_tracing(toy, tmp_path):
    assert toy("--profile", at={8: raises(signal.SIGTERM)}) == 143
    assert toy() == 0  # as the machine is no part of the run, it goes on without


@pytest.mark.parametrize("step", [1, 4, 5, 6, 11])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_the_same_command_resumes(toy, tmp_path, capsys, step, number, status):
    assert toy(workdir="whole") == 0
    assert toy(at={step: raises(number)}) == status
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == f"stopped by {number.name} at step {step}; the same command resumes"
    run = tmp_path / "run"
    assert not (run / "model.safetensors").exists()
    assert checkpoints(run)[-1] == step
    assert toy() == 0
    assert f"resuming at step {step}" in capsys.readouterr().out
    np.testing.assert_array_equal(weights(run), weights(tmp_path / "whole"))
    steps = [line["step"] for line in lines(run) if "loss" in line]
    assert steps == sorted({2, 4, 5, 6, 8, 10, 12} | {step})


def test_a_signal_while_metrics_are_written_saves_the_next_step(toy, tmp_path, capsys, monkeypatch):
    """What is said to be saved must be: the decision about a step has been made by then."""
    write, sent = train.Journal.write, []

    def late(journal, step, values):
        write(journal, step, values)
        if step == 6 and not sent:
            sent.append(signal.SIGTERM)
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(train.Journal, "write", late)
    assert toy() == 128 + signal.SIGTERM
    assert "stopped by SIGTERM at step 7; " in capsys.readouterr().out
    assert checkpoints(tmp_path / "run")[-1] == 7
    assert toy() == 0
    assert "resuming at step 7" in capsys.readouterr().out


def test_a_level_that_says_nothing_is_reported_once(toy, capsys, monkeypatch):
    def validation(ema):
        quiet = 0.001 if ema["w"].sum() < -8 else 1.0  # from the second checkpoint on
        return {**metrics(1.0), "bpp_levels": np.array([3 - quiet, quiet])}

    monkeypatch.setattr(train, "make_validation", lambda *_: validation)
    assert toy(at={EVERY: becomes(1), 2 * EVERY: becomes(9), STEPS: becomes(9)}) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if "carries" in line]
    assert told == [f"step {2 * EVERY}: z_2 carries less than 0.1% of the bits"]


def test_the_running_mean_is_what_is_frozen(toy, tmp_path):
    assert toy(at={STEPS: lambda _: {"w": jnp.arange(3.0)}}) == 0
    np.testing.assert_array_equal(weights(tmp_path / "run"), [0, -1, -2])


def test_the_newest_checkpoint_can_be_frozen(toy, tmp_path):
    """Of a run that still trains, or was stopped: in the file of the caller's choice, and the run stays as it is."""
    run, path = tmp_path / "run", tmp_path / "model.safetensors"
    assert toy(at={7: raises(signal.SIGTERM), 6: lambda _: {"w": jnp.ones(3)}}) == 143
    before = snapshot(run)
    assert train.freeze_run(run, path) == load_model(path)[2]
    assert load_model(path)[0] == Config.from_json((run / "config.json").read_text())
    assert np.all(load_model(path)[1]["w"] < -1)
    assert {p: t for p, t in snapshot(run).items() if p.is_file()} == {p: t for p, t in before.items() if p.is_file()}
    assert toy() == 0
    train.freeze_run(run, path)
    assert path.read_bytes() == (run / "model.safetensors").read_bytes()


BEST_IS_THE_SECOND = {EVERY * number: becomes(value) for number, value in enumerate((5, 9, 8, 7), start=1)}


def test_patience_ends_a_run_and_the_best_is_the_model(toy, tmp_path, capsys):
    run = tmp_path / "run"
    flags = "--patience=2", f"--steps={10 * EVERY}"
    assert toy(*flags, at=BEST_IS_THE_SECOND) == 0
    assert f"the model is that of step {2 * EVERY}" in capsys.readouterr().out
    assert lines(run)[-1]["step"] == 4 * EVERY
    np.testing.assert_array_equal(weights(run), [-9] * 3)
    train.freeze_run(run, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
    before = (run / "metrics.jsonl").read_bytes()
    assert toy(*flags) == 0  # there is nothing left to do
    assert (run / "metrics.jsonl").read_bytes() == before
    np.testing.assert_array_equal(weights(run), [-9] * 3)


def test_patience_is_remembered_by_a_resumed_run(toy, tmp_path):
    def stopped(params):
        signal.raise_signal(signal.SIGTERM)
        return {"w": jnp.full(3, 8)}

    flags = "--patience=2", f"--steps={10 * EVERY}"
    assert toy(*flags, at=BEST_IS_THE_SECOND | {3 * EVERY + 1: stopped}) == 143
    assert toy(*flags, at=BEST_IS_THE_SECOND) == 0
    np.testing.assert_array_equal(weights(tmp_path / "run"), [-9] * 3)
    assert lines(tmp_path / "run")[-1]["step"] == 4 * EVERY


def test_a_run_goes_on_from_another_model(toy, tmp_path, capsys):
    assert toy("--seed=3", at={STEPS: lambda _: {"w": jnp.arange(3.0)}}) == 0
    before = snapshot(tmp_path / "run")
    started = []
    flags = [f"--init-from={tmp_path / 'run'}", "--learning-rate=1e-4", "--steps=1"]
    assert toy(*flags, at={1: lambda params: started.append(params["w"])}, workdir="tuned") == 0
    (first,) = started  # half as much again, and the batch's mean, by the toy's step
    np.testing.assert_allclose(np.diff(first), [-1.5, -1.5], rtol=1e-6)
    assert snapshot(tmp_path / "run") == before
    config = Config.of_run(tmp_path / "tuned")
    assert (config.preset, config.L, config.seed) == ("tiny", 2, 3)  # as that run had them
    assert (config.learning_rate, config.steps, config.workdir) == (1e-4, 1, str(tmp_path / "tuned"))


def test_nothing_to_go_on_from(toy, tmp_path, capsys):
    assert toy(f"--init-from={tmp_path}") == 2
    assert capsys.readouterr().err.endswith("not the workdir of a run of nlvc.train: it has no config.json\n")
    train.claim(tmp_path / "empty", tiny(L=2))
    assert toy(f"--init-from={tmp_path / 'empty'}") == 2
    assert capsys.readouterr().err.endswith("empty: this run has no checkpoint yet\n")


def test_a_model_of_other_shapes(toy, tmp_path, monkeypatch, capsys):
    assert toy() == 0
    like = states.abstract_state

    def wider(config, place=None):
        found = like(config)
        return found if config.channels == 12 else found.replace(params={"w": jnp.zeros(4)})

    monkeypatch.setattr(states, "abstract_state", wider)
    capsys.readouterr()
    assert toy(f"--init-from={tmp_path / 'run'}", "--channels=16", workdir="tuned") == 2
    err = capsys.readouterr().err
    assert "other parameters; its run had other channels" in err and err.count("\n") == 1


def test_what_a_killed_run_has_left_is_removed(toy, tmp_path):
    run = tmp_path / "run"
    assert toy(at={3: raises(signal.SIGTERM)}) == 143
    left = run / ".model.safetensors.01234567-01234567-1.tmp"
    left.write_bytes(b"half")
    os.utime(left, (0, 0))
    assert toy() == 0
    assert not left.exists()


def test_a_signal_in_the_last_step_changes_nothing(toy, tmp_path, capsys):
    assert toy(at={STEPS: raises(signal.SIGTERM)}) == 0
    assert "stopped" not in capsys.readouterr().out
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_a_second_ctrl_c_ends_at_once(toy, tmp_path, capsys):
    def twice(_):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    assert toy(at={8: twice}) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "nlvc.train: stopped; the same command resumes"
    assert checkpoints(tmp_path / "run") == [5]
    assert toy() == 0


class Killed(BaseException):
    """Nothing catches it, as nothing catches `kill -9`."""


def kill(_):
    raise Killed


@pytest.mark.parametrize("moments", [[1], [5], [6], [7, 7, 11], [12, 12]])
def test_a_killed_run_resumes_at_its_last_checkpoint(toy, tmp_path, moments):
    assert toy(workdir="whole") == 0
    run = tmp_path / "run"
    for moment in moments:
        with pytest.raises(Killed):
            toy(at={moment: kill})
        with (run / "metrics.jsonl").open("a") as file:
            file.write('{"step": 3, "lo')
    assert toy() == 0
    np.testing.assert_array_equal(weights(run), weights(tmp_path / "whole"))
    steps = [line["step"] for line in lines(run) if "loss" in line]
    assert steps == [2, 4, 5, 6, 8, 10, 12]


def test_a_finished_run_is_only_reported_again(toy, tmp_path, capsys):
    assert toy() == 0
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    assert toy(at={step: kill for step in range(STEPS + 1)}) == 0
    assert "resuming at step 12" in capsys.readouterr().out
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("loss", ["nan", "inf", "-inf"])
def test_a_loss_that_is_not_finite(toy, tmp_path, capsys, loss):
    assert toy(at={7: lambda _: loss}) == 1
    *_, last = capsys.readouterr().err.splitlines()
    assert last == (
        "nlvc.train: the loss is not finite at step 8 or in the 2 before; try a lower --learning-rate or "
        "--clip-norm, in another --workdir"
    )
    assert checkpoints(tmp_path / "run") == [5]
    assert not (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.parametrize("step", [5, 12])
def test_parameters_that_are_not_finite_are_never_saved(toy, tmp_path, capsys, step):
    """The loss was still finite, and the update that followed broke the parameters: what is saved must be sound."""
    assert toy(at={step: lambda params: {"w": params["w"] * np.nan}}) == 1
    assert "the loss is not finite at step" in capsys.readouterr().err
    assert step not in checkpoints(tmp_path / "run")
    assert not (tmp_path / "run" / "model.safetensors").exists()


def snapshot(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_the_workdir_of_another_run(toy, tmp_path, capsys):
    assert toy() == 0
    before = snapshot(tmp_path / "run")
    capsys.readouterr()
    assert toy("--seed=1", "--lmbda=0.1") == 2
    line = f"nlvc.train: {tmp_path / 'run'} holds a run with other lmbda, seed; give another --workdir\n"
    assert capsys.readouterr().err == line
    assert snapshot(tmp_path / "run") == before


@pytest.mark.parametrize(
    ("flags", "status", "words"),
    [
        (["--data=nowhere"], 1, "no photos called 'nowhere'"),
        (["--L=0"], 2, "L=0: the number of latent levels must be from 1"),
        (["--L=2", "--strides", "16", "3"], 2, "each must be a power of two"),
        (["--steps=0"], 2, "steps=0: must be at least 1"),
        (["--accumulate=3"], 2, "accumulate=3: must divide the batch size, 2"),
        (["--devices=999"], 2, "devices=999: there are "),
        (["--processes=2"], 2, "give --coordinator=HOST:PORT"),
    ],
)
def test_what_cannot_be_leaves_no_trace(toy, tmp_path, capsys, flags, status, words):
    assert toy(*flags) == status
    err = capsys.readouterr().err
    assert err.startswith("nlvc.train: ")
    assert err.count("\n") == 1
    assert words in err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("flag", ["--no-such-flag", "--L=many", "--prior=cauchy", "--preset=huge"])
def test_wrong_flags(flag, capsys):
    with pytest.raises(SystemExit) as caught:
        train.main([flag])
    assert caught.value.code == 2
    assert flag.partition("=")[0].strip("-") in capsys.readouterr().err


def test_a_workdir_that_is_a_file(toy, tmp_path, capsys):
    (tmp_path / "run").write_text("precious")
    assert toy() == 1
    assert str(tmp_path / "run") in capsys.readouterr().err
    assert (tmp_path / "run").read_text() == "precious"


def test_damaged_photos_are_counted(toy, tmp_path, capsys):
    for name in "xyz":
        (tmp_path / "photos").mkdir(exist_ok=True)
        (tmp_path / "photos" / f"{name}.jpg").write_text("not a photo")
    assert toy() == 0
    assert "photos: 1 train, 1 validation, 1 test, 3 skipped" in capsys.readouterr().out


def test_ctrl_c_before_the_first_step(monkeypatch, capsys):
    monkeypatch.setattr(train, "run", lambda *_: signal.raise_signal(signal.SIGINT))
    monkeypatch.setattr(train, "keep_freed_memory", lambda: None)
    monkeypatch.setattr(train, "keep_programs", lambda: None)
    assert train.main(["--preset=tiny"]) == 130
    assert capsys.readouterr().err == "nlvc.train: stopped; the same command resumes\n"


def test_claiming_a_workdir(tmp_path):
    train.claim(tmp_path / "new" / "run", tiny())
    train.claim(tmp_path / "new" / "run", tiny())
    with pytest.raises(ConfigError, match="other L, steps; give"):
        train.claim(tmp_path / "new" / "run", tiny(L=1, steps=31))
    (tmp_path / "new" / "run" / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="not JSON"):
        train.claim(tmp_path / "new" / "run", tiny())


def test_the_usual_workdir_says_what_differs():
    names = {
        train.default_workdir(config)
        for config in (tiny(), tiny(L=3), tiny(prior="laplace"), tiny(lmbda=0.1), tiny(seed=1), tiny(data="/x/y"))
    }
    assert len(names) == 6
    assert "runs/tiny-L3-logistic-0.013-embedded-seed0" in names
    assert train.default_workdir(tiny(data="/x/y")).endswith("-y-seed0")
    assert os.sep not in train.default_workdir(tiny(data="tfds:a/b")).removeprefix("runs/")

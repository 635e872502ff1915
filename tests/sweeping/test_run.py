"""A pack on a toy model: what kills it, what fails in it, and what it tells. The real model is in test_sweep_command.

What the loop calls (data, Orbax, journals, the packing) is real.
"""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from nlvc import train
from nlvc.config import tiny
from nlvc.files import write_whole
from nlvc.sweeping import run
from nlvc.sweeping.grid import Cell
from nlvc.sweeping.progress import CODING, DONE, FAILED, STARTING, STOPPED, TRAINING
from nlvc.training import packed, states
from nlvc.training.loop import TrainState

STEPS = 12


class Killed(BaseException):
    """Nothing catches it, as nothing catches `kill -9`."""


def metrics(loss):
    models = np.ones_like(loss)
    return {"loss": loss, "bpp": 3 * models, "bpp_levels": np.outer(models, [1.0, 2.0]), "psnr": 30 * models}


class Toy:
    """Packs of a model whose parameters sum up its batches, so they tell whether each was seen once and in order.

    `at`: {step: function of the losses (N,)}, called in the middle of a step; it may return others.
    """

    def __init__(self, folder):
        self.folder, self.at, self.told = folder, {}, []
        self.validation_at, self.stopped, self.coded = {}, False, []

    def cells(self, *names, **changes):
        """One for each name like "0.1 5", lambda and seed."""
        return [self.cell(name, **changes) for name in names]

    def cell(self, name, workdir="sweep", **changes):
        lmbda, seed = name.split()
        config = tiny(steps=STEPS, checkpoint_every=5, log_every=2, lmbda=float(lmbda), seed=int(seed),
                      data=str(self.folder / "photos"), **changes)  # fmt: skip
        return Cell(name, dataclasses.replace(config, workdir=str(self.folder / workdir / name)))

    def run(self, cells, at=None):
        """Runs a pack; returns what was told, as (cell, state)."""
        self.at, self.told, self.stopped = at or {}, [], False
        run.run_pack(cells, jax.local_devices()[:1], self.told.append, lambda: self.stopped)
        return [(progress.cell, progress.state) for progress in self.told]

    def make_step(self, shape, mesh):
        def step(state, batch, keys, lambdas):
            assert batch.shape[1:] == (shape.batch_size, shape.patch_size, shape.patch_size, 3)
            numbers = np.asarray(state.step) + 1
            seen = np.asarray(batch).mean(axis=(1, 2, 3, 4)) * numbers + np.asarray(lambdas)
            params = {"w": state.params["w"] * 1.5 + seen[:, None]}
            losses = 1.0 / numbers
            hook = self.at.get(int(numbers.max()))
            changed = hook(losses) if hook else None
            losses = losses if changed is None else changed
            return TrainState(state.step + 1, params, {"w": -params["w"]}, ()), metrics(losses)

        return step

    def make_validation(self, shape, mesh):
        return lambda ema, crops, lambdas: metrics(np.asarray(ema["w"]).sum(axis=1))

    def report(self, workdir, photos):
        self.coded.append(workdir.name)
        write_whole(workdir / "report.csv", b"name\n")


@pytest.fixture
def toy(monkeypatch, tmp_path):
    for name in "abc":
        pixels = np.random.default_rng(ord(name)).integers(0, 256, (150, 150, 3), np.uint8)
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{name}.png")
    toy = Toy(tmp_path)

    def state(config, crops=None):
        return TrainState(jnp.zeros((), jnp.int32), {"w": jnp.zeros(3)}, {"w": jnp.zeros(3)}, ())

    def save_frozen(path, config, state, photos):
        write_whole(path, np.asarray(state.ema["w"]).tobytes())

    monkeypatch.setattr(packed, "make_packed_step", toy.make_step)
    monkeypatch.setattr(packed, "make_packed_validation", toy.make_validation)
    monkeypatch.setattr(run, "abstract_state", state)
    monkeypatch.setattr(states, "create_state", state)
    monkeypatch.setattr(states, "START_CROPS", 2)
    monkeypatch.setattr(train, "save_frozen", save_frozen)
    monkeypatch.setattr(train, "report", toy.report)
    return toy


def model(cell):
    return np.frombuffer((cell.workdir / "model.safetensors").read_bytes(), np.float32)


def lines(cell, name="loss"):
    entries = [json.loads(line) for line in (cell.workdir / "metrics.jsonl").read_text().splitlines()]
    return [entry["step"] for entry in entries if name in entry]


def checkpoints(cell):
    return sorted(int(path.name) for path in (cell.workdir / "checkpoints").iterdir())


def kill(_):
    raise Killed


def test_a_whole_pack(toy):
    cells = toy.cells("0.1 5", "0.2 5", "0.1 6")
    told = toy.run(cells)
    names = [cell.name for cell in cells]
    assert told[:3] == [(name, STARTING) for name in names]
    assert told[3:6] == [(name, TRAINING) for name in names]
    assert told[-6:] == [(name, state) for name in names for state in (CODING, DONE)]
    last = [progress for progress in toy.told if progress.state == TRAINING][-1]
    assert (last.step, last.steps, last.bpp, last.psnr) == (STEPS, STEPS, 3, 30)
    assert last.loss == pytest.approx((1 / 11 + 1 / 12) / 2) and last.images_per_second > 0
    for cell in cells:
        assert checkpoints(cell) == [5, 10, 12]
        assert lines(cell) == [2, 4, 5, 6, 8, 10, 12]
        assert lines(cell, "validation_loss") == [5, 10, 12]
    assert len({model(cell).tobytes() for cell in cells}) == 3


def test_a_cell_does_not_depend_on_its_company(toy):
    together = toy.cells("0.1 5", "0.2 5", "0.1 6")
    toy.run(together)
    for cell in together:
        alone = toy.cell(cell.name, workdir="alone")
        toy.run([alone])
        np.testing.assert_array_equal(model(cell), model(alone))


@pytest.mark.parametrize("moments", [[1], [5], [6], [7, 7, 11], [12, 12]])
def test_a_killed_pack_resumes_at_its_last_checkpoint(toy, moments):
    whole = toy.cells("0.1 5", "0.2 6", workdir="whole")
    toy.run(whole)
    cells = toy.cells("0.1 5", "0.2 6")
    for moment in moments:
        with pytest.raises(Killed):
            toy.run(cells, at={moment: kill})
    toy.run(cells)
    for cell, expected in zip(cells, whole, strict=True):
        np.testing.assert_array_equal(model(cell), model(expected))
        assert lines(cell) == lines(expected)


def test_members_killed_at_different_checkpoints_go_on_together(toy):
    """The kill came between two saves: each goes on from its own."""
    whole = toy.cells("0.1 5", "0.2 5", "0.2 6", workdir="whole")
    toy.run(whole)
    cells = toy.cells("0.1 5", "0.2 5", "0.2 6")
    with pytest.raises(Killed):
        toy.run(cells, at={11: kill})
    shutil.rmtree(cells[1].workdir / "checkpoints" / "10")
    shutil.rmtree(cells[2].workdir / "checkpoints")
    toy.run(cells)
    for cell, expected in zip(cells, whole, strict=True):
        np.testing.assert_array_equal(model(cell), model(expected))
        assert lines(cell) == lines(expected)
        assert lines(cell, "validation_loss") == lines(expected, "validation_loss")


def test_a_kill_between_reports_repeats_no_finished_cell(toy, monkeypatch):
    cells = toy.cells("0.1 5", "0.2 5", "0.3 5")

    def report(workdir, photos):
        if len(toy.coded) == 1:
            raise Killed
        toy.report(workdir, photos)

    monkeypatch.setattr(train, "report", report)
    with pytest.raises(Killed):
        toy.run(cells)
    monkeypatch.setattr(train, "report", toy.report)
    told = toy.run(cells, at={step: kill for step in range(STEPS + 2)})
    assert toy.coded == [cell.name for cell in cells]
    assert told[0] == (cells[0].name, DONE)
    assert [entry for entry in told if entry[1] == DONE] == [(cell.name, DONE) for cell in cells]


def test_stopping_saves_where_it_is(toy):
    whole = toy.cells("0.1 5", "0.2 6", workdir="whole")
    toy.run(whole)
    cells = toy.cells("0.1 5", "0.2 6")

    def stop(_):
        toy.stopped = True

    told = toy.run(cells, at={7: stop})
    assert told[-2:] == [(cell.name, STOPPED) for cell in cells]
    assert toy.told[-1].step == 7
    assert [checkpoints(cell) for cell in cells] == [[5, 7]] * 2
    assert toy.run(cells, at={STEPS: stop})[-1] == (cells[1].name, STOPPED)  # trained, and not coded any more
    toy.run(cells, at={step: kill for step in range(STEPS + 2)})
    for cell, expected in zip(cells, whole, strict=True):
        np.testing.assert_array_equal(model(cell), model(expected))


@pytest.mark.parametrize("loss", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_fails_one_cell(toy, loss):
    cells = toy.cells("0.1 5", "0.2 5", "0.1 6")
    told = toy.run(cells, at={step: lambda losses: np.where([0, 1, 0], loss, losses) for step in range(7, STEPS + 1)})
    assert (cells[1].name, FAILED) in told
    assert told.count((cells[1].name, FAILED)) == 1
    failure = next(progress for progress in toy.told if progress.state == FAILED)
    assert failure.text.startswith("the loss is not finite at step 8 or in the 2 before")
    assert checkpoints(cells[1]) == [5] and not (cells[1].workdir / "model.safetensors").exists()
    for cell in (cells[0], cells[2]):
        alone = toy.cell(cell.name, workdir="alone")
        toy.run([alone])
        np.testing.assert_array_equal(model(cell), model(alone))
    assert toy.run(cells)[-1] == (cells[1].name, DONE)  # tried again from its checkpoint


def test_the_workdir_of_another_run_fails_one_cell(toy):
    toy.run(toy.cells("0.1 5"))
    other, good = toy.cells("0.1 5", "0.2 5", learning_rate=1e-4)
    told = toy.run([other, good])
    assert told[0] == (other.name, FAILED) and told[-1] == (good.name, DONE)
    assert toy.told[0].text.endswith("holds a run with other learning_rate; give another --workdir")


def test_a_report_that_fails_fails_one_cell(toy, monkeypatch):
    cells = toy.cells("0.1 5", "0.2 5")

    def report(workdir, photos):
        if workdir == cells[0].workdir:
            raise RuntimeError("no room\nfor that")
        toy.report(workdir, photos)

    monkeypatch.setattr(train, "report", report)
    assert toy.run(cells)[-3:] == [(cells[0].name, FAILED), (cells[1].name, CODING), (cells[1].name, DONE)]
    assert [progress.text for progress in toy.told if progress.state == FAILED] == ["no room for that"]


def test_what_is_no_cell_s_own_fails_all_of_the_pack(toy, tmp_path):
    def explode(_):
        raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")

    cells = toy.cells("0.1 5", "0.2 5")
    assert toy.run(cells, at={7: explode})[-2:] == [(cell.name, FAILED) for cell in cells]
    assert toy.told[-1].text == "RESOURCE_EXHAUSTED: out of memory"
    shutil.rmtree(tmp_path / "photos")
    run.photos_of.cache_clear()
    assert toy.run(cells) == [(cell.name, FAILED) for cell in cells]
    assert "no photos called" in toy.told[-1].text

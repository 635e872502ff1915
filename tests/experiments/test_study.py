"""What the experiments share, without training: budgets, the cells' order, and points put together."""

from pathlib import Path

import numpy as np
import pytest
import study
from study import BUDGETS, Study, by, called, level_bpp, runs, transform_of

from nlvc import data
from nlvc.config import Config
from nlvc.evaluation import Point
from nlvc.image_codec import compress
from nlvc.sweeping.grid import cells_of


def point(cell, photo: str, setting: float, bpp: float, levels=()) -> Point:
    measures = int(bpp * 8), bpp, 30 + bpp, 1.0, 0.0, 0.0
    return Point("set", photo, 8, 8, called(cell), setting, *measures, level_bpp=levels)


@pytest.fixture
def cells(tmp_path):
    return cells_of(["--L", "1", "2", "--seed", "1", "0"], tmp_path)


def test_runs_are_in_the_order_of_seeds(cells):
    of_two = by(cells, "L")[2,]
    points = [
        point(cell, photo, quality, 1 + cell.config.seed + quality / 10 + (photo == "b") / 2)
        for cell in of_two for photo in "ab" for quality in (0.0, 3.0)
    ]  # fmt: skip
    found = runs(points, of_two, "set")
    np.testing.assert_allclose(found.bpp, [[[1, 1.3], [1.5, 1.8]], [[2, 2.3], [2.5, 2.8]]])
    np.testing.assert_allclose(found.psnr, 30 + found.bpp)


def test_groups_keep_the_order_of_the_cells(cells):
    assert [(key, len(its)) for key, its in by(cells, "L", "prior").items()] == [
        ((1, "logistic"), 2), ((2, "logistic"), 2)
    ]  # fmt: skip


def test_bits_of_levels_are_of_the_cells_alone(cells):
    one, other = by(cells, "L")[2,]
    points = [point(one, "a", 0.0, 1.0, (0.75, 0.25)), point(one, "b", 0.0, 2.0, (1.5, 0.5)),
              point(other, "a", 0.0, 9.0, (8.0, 1.0))]  # fmt: skip
    np.testing.assert_allclose(level_bpp(points, [one], "set"), [1.125, 0.375])


def test_without_photos_it_learns_from_embedded_ones_and_measures_on_them(tmp_path):
    made = Study(tmp_path, "smoke")
    assert [len(data.photos(made.data, split)) for split in data.SPLITS] == [5, 2, 2]
    assert [photos.name for photos in made.sets] == ["embedded"]
    assert len(made.sets[0].names) == BUDGETS["smoke"].photos
    assert made.sets[0].read(made.sets[0].names[0]).shape == (96, 96, 3)


def test_small_cells_share_a_transform_that_is_trained_once(tmp_path, monkeypatch):
    trained, swept = [], []

    def train(words):
        trained.append(words)
        config = Config.from_args(words)
        Path(config.workdir).mkdir()
        Path(config.workdir, "config.json").write_text(config.to_json())
        return 0

    monkeypatch.setattr(study.train, "main", train)
    monkeypatch.setattr(study.sweep, "main", lambda words: swept.append(words) or 0)
    made = Study(tmp_path, "small", "embedded")
    cells = made.train("chains", "--L", "2", "3")
    assert len(trained) == 1 and f"--workdir={tmp_path / 'transform'}" in trained[0]
    assert {"--trained=chain", f"--init-from={tmp_path / 'transform'}"} <= set(swept[0])
    assert len(cells) == 2 * len(BUDGETS["small"].seeds)
    assert all(cell.config.trained == "chain" for cell in cells)
    rich = made.train("chains", "--L", "2", channels=320, seeds=(0,))
    assert len(trained) == 2 and {"--channels=320", f"--workdir={tmp_path / 'transform-320'}"} <= set(trained[1])
    assert [(cell.config.channels, cell.config.init_from) for cell in rich] == [(320, str(tmp_path / "transform-320"))]
    assert rich[0].workdir not in {cell.workdir for cell in cells}
    made.train("widths", "--channels", "24", "48", whole=True)
    assert len(trained) == 2 and not any("--init-from" in word for word in swept[2])


def test_flags_of_a_grid_replace_those_of_the_budget(tmp_path, monkeypatch):
    monkeypatch.setattr(study.sweep, "main", lambda words: 0)
    cells = Study(tmp_path, "small", "embedded").train("widths", "--steps=7", "--L", "2", whole=True, seeds=(5,))
    assert [(cell.config.steps, cell.config.seed) for cell in cells] == [(7, 5)]


@pytest.mark.parametrize(("most", "kept"), [(None, "abcde"), (5, "abcde"), (3, "abd"), (1, "a")])
def test_a_part_of_a_set_is_of_all_of_it(most, kept):
    assert study._some(study.PhotoSet("set", Path("x"), tuple("abcde")), most).names == tuple(kept)


def test_models_of_one_transform_are_known(untrained):
    one, other = untrained(L=2), untrained(L=2, weights_seed=1)
    assert transform_of(one) == transform_of(one) != transform_of(other)


def test_latents_are_shared_by_models_whose_levels_reach_as_far(tmp_path, untrained):
    made, photo = Study(tmp_path, "small", "embedded"), np.zeros((48, 48, 3), np.uint8)
    one, two, three = (untrained(rate="variable", L=levels) for levels in (1, 2, 3))
    found = [made._latents(model, "a transform", photo, 50) for model in (one, two, three)]
    assert found[1] is found[2] and found[0] is not found[1]
    for model, latent in ((one, found[0]), (two, found[1]), (three, found[2])):
        assert compress(photo, model=model, quality=50, latent=latent)


def test_a_set_without_photos_ends_it_in_one_line(tmp_path):
    with pytest.raises(SystemExit, match="no such folder") as ended:
        Study(tmp_path, "smoke", sets=[f"blades={tmp_path / 'nowhere'}"])
    assert str(ended.value.code).count("\n") == 0


def test_what_cannot_be_trained_ends_it(tmp_path, monkeypatch):
    monkeypatch.setattr(study.train, "main", lambda words: 1)
    with pytest.raises(SystemExit, match="the common transform was not trained"):
        Study(tmp_path, "small", "embedded").train("chains", "--L", "2")

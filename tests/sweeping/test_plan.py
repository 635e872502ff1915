"""Which cells are trained together."""

import pytest

from nlvc.config import tiny
from nlvc.sweeping.grid import Cell
from nlvc.sweeping.plan import describe, is_finished, plan


def grid(shapes, models):
    """Cells of so many shapes, each with so many models."""
    return [
        Cell(f"{shape}-{model}", tiny(steps=31 + shape, seed=model, workdir=f"{shape}-{model}"))
        for shape in range(shapes) for model in range(models)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("shapes", "models", "devices", "fit", "expected"),
    [
        (1, 1, 1, 9, [(1, 1)]),
        (1, 6, 1, 9, [(6, 1)]),
        (1, 6, 1, 4, [(3, 1), (3, 1)]),  # evenly, not 4 and 2
        (1, 7, 1, 3, [(2, 1), (2, 1), (3, 1)]),
        (1, 6, 8, 1, [(6, 6)]),  # a device each
        (1, 12, 8, 2, [(12, 8)]),
        (1, 40, 8, 2, [(13, 8), (13, 8), (14, 8)]),
        (4, 6, 4, 9, [(6, 1)] * 4),  # shapes beside each other
        (2, 6, 8, 9, [(6, 4)] * 2),
        (8, 6, 4, 9, [(6, 1)] * 8),
        (3, 2, 8, 1, [(2, 2)] * 3),
    ],
)
def test_packs(shapes, models, devices, fit, expected):
    cells = grid(shapes, models)
    packs = plan(cells, devices, lambda shape: fit)
    assert [(len(pack.cells), pack.devices) for pack in packs] == expected
    assert [cell for pack in packs for cell in pack.cells] == cells
    assert all(pack.models_per_device <= fit for pack in packs)
    assert len({pack.shape for pack in packs}) == shapes


def test_memory_is_asked_for_only_where_it_matters():
    """Because the answer costs a compilation."""

    asked = []
    plan(grid(3, 2), 8, asked.append)
    assert not asked
    plan(grid(3, 2), 3, asked.append)
    assert len(asked) == 3


def test_a_shape_that_cannot_be_measured_stops_no_other():
    def fitting(shape):
        return 9 // (shape.steps - 31)

    packs = plan(grid(2, 2), 1, fitting)
    assert [len(pack.cells) for pack in packs] == [1, 1, 2]
    lines = describe(packs, fitting).splitlines()
    assert ["unknown" in line for line in lines] == [False, True, True, False, False]


def test_lambda_and_seed_share_a_program_and_nothing_else_does():
    same = [tiny(), tiny(lmbda=0.1), tiny(seed=1), tiny(workdir="x")]
    other = [tiny(L=3), tiny(prior="laplace"), tiny(steps=31), tiny(learning_rate=1e-4), tiny(data="x")]
    packs = plan([Cell(str(n), config) for n, config in enumerate(same + other)], 1, lambda shape: 9)
    assert [len(pack.cells) for pack in packs] == [4, 1, 1, 1, 1, 1]


def test_cells_without_a_configuration_are_left_out():
    assert plan([Cell("bad", None, "why"), *grid(1, 1)], 1, lambda shape: 1)[0].cells == tuple(grid(1, 1))
    assert plan([Cell("bad", None, "why")], 1, lambda shape: 1) == []


def test_a_cell_is_finished_when_its_report_is_there(tmp_path):
    cell = Cell("a", tiny(workdir=str(tmp_path)))
    assert not is_finished(cell)
    (tmp_path / "report.csv").touch()
    for text, finished in (("{", False), (tiny(steps=31).to_json(), False), (cell.config.to_json(), True)):
        (tmp_path / "config.json").write_text(text)
        assert is_finished(cell) == finished
    (tmp_path / "report.csv").unlink()
    assert not is_finished(cell)


def test_the_plan_as_a_table():
    packs = plan(grid(2, 3), 2, lambda shape: 9)
    assert describe(packs, lambda shape: 100 << 20).splitlines() == [
        "program  models  finished  devices   memory  cells",
        "      1       3         0        1  300 MiB  0-0",
        "                                             0-1",
        "                                             0-2",
        "      2       3         0        1  300 MiB  1-0",
        "                                             1-1",
        "                                             1-2",
    ]

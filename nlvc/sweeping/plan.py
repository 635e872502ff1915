"""Which cells are trained together: one program for each shape, and as many models in it as memory allows."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from nlvc.config import Config, ConfigError
from nlvc.sweeping.grid import Cell
from nlvc.training.packed import shape_of


class Pack(NamedTuple):
    """Cells of one shape that one program trains, on so many devices."""

    cells: tuple[Cell, ...]
    devices: int

    @property
    def shape(self) -> Config:
        """The configuration that decides about the program."""
        return shape_of(self.cells[0].config)

    @property
    def models_per_device(self) -> int:
        """The most that a device has."""
        return -(-len(self.cells) // self.devices)


def plan(cells: Sequence[Cell], devices: int, fitting: Callable[[Config], int]) -> list[Pack]:
    """The packs of all cells that have a configuration, in the order of the grid.

    Shapes are trained beside each other, each on its share of the devices; only where there are fewer shapes than
    devices does a shape have several. So a program is compiled as seldom, and waits for others as little, as can be.
    The plan depends on the grid alone, not on what of it is finished: a pack that is resumed has the same program.

    fitting: shape -> models that share a device; asked only where one could have several. If that cannot be found out,
    the pack is of one model a device, and will say itself what is wrong with its shape.
    """
    shapes: dict[Config, list[Cell]] = {}
    for cell in cells:
        if cell.config:
            shapes.setdefault(shape_of(cell.config), []).append(cell)
    packs = []
    for shape, alike in shapes.items():
        share = min(max(1, devices // len(shapes)), len(alike))
        most = share * (answer(fitting, shape) or 1) if len(alike) > share else share
        parts = -(-len(alike) // most)
        ends = [len(alike) * part // parts for part in range(parts + 1)]
        packs += [Pack(tuple(alike[a:b]), min(share, b - a)) for a, b in zip(ends, ends[1:], strict=False)]
    return packs


def answer(question: Callable[[Config], int], shape: Config) -> int | None:
    """What is found out about a shape; None where finding out fails, which must not stop the other shapes."""
    try:
        return question(shape)
    except Exception:
        return None


def is_finished(cell: Cell) -> bool:
    """Whether the cell's workdir holds its complete run. Another configuration there is found when it is claimed."""
    config = cell.workdir / "config.json"
    if not (config.exists() and (cell.workdir / "report.csv").exists()):
        return False
    try:
        return Config.from_json(config.read_text()) == cell.config
    except ConfigError:
        return False


def describe(packs: Sequence[Pack], footprint: Callable[[Config], int]) -> str:
    """The plan as a table without a final newline; footprint: shape -> bytes of a model on its device."""
    lines = [("program", "models", "finished", "devices", "memory", "cells")]
    for number, pack in enumerate(packs, start=1):
        each = answer(footprint, pack.shape)
        memory = "unknown" if each is None else f"{each * pack.models_per_device / 2**20:.0f} MiB"
        finished = sum(map(is_finished, pack.cells))
        figures = (len(pack.cells), finished, pack.devices, memory)
        lines.append((str(number), *map(str, figures), pack.cells[0].name))
        lines += [("",) * 5 + (cell.name,) for cell in pack.cells[1:]]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([*(text.rjust(width) for text, width in zip(line[:-1], widths, strict=False)), line[-1]])
        for line in lines
    )

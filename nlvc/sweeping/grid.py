"""The grid: flags of `python -m nlvc.train` with one or several values each, and a cell for each combination."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from nlvc.config import Config, ConfigError

NAMED_ALWAYS = ("L", "prior", "lmbda", "seed")
"""In every cell's name, also where they have one value: more values may be asked for later."""

SWITCHES = {field.name for field in dataclasses.fields(Config) if field.type is bool}


class Cell(NamedTuple):
    """One run: its name, and its configuration or why there can be none."""

    name: str
    config: Config | None
    error: str = ""

    @property
    def workdir(self) -> Path:
        """Where the run is kept, as the configuration says."""
        return Path(self.config.workdir)


def cells_of(words: Sequence[str], folder: Path) -> list[Cell]:
    """All combinations of the flags' values, the last flag changing fastest; each has its workdir in `folder`.

    A combination that cannot be becomes a cell with an error. Raises ConfigError for words that are no flags; a wrong
    flag or value ends the program with the message of nlvc.train.
    """
    axes = axes_of(words)
    several = [name for name, values in axes.items() if len(values) > 1]
    named = list(dict.fromkeys([*NAMED_ALWAYS, *several]))
    cells: dict[str, Cell] = {}
    for values in itertools.product(*axes.values()):
        flags = dict(zip(axes, values, strict=True))
        try:
            config = Config.from_args([word for value in values for word in value])
        except ConfigError as error:
            told = ",".join(f"{name}={'x'.join(flags[name][1:]) or flags[name][0][2:]}" for name in several)
            name = told.replace("/", "_") or "the only cell"
            cells[name] = Cell(name, None, str(error))
            continue
        name = ",".join(f"{name}={value_text(getattr(config, name))}" for name in named)
        # Two spellings of one value are one cell.
        cells.setdefault(name, Cell(name, dataclasses.replace(config, workdir=str(folder / name))))
    return list(cells.values())


def axes_of(words: Sequence[str]) -> dict[str, list[list[str]]]:
    """Field -> its values, each as words for nlvc.train: `--L 2 3` -> {"L": [["--L", "2"], ["--L", "3"]]}.

    A flag that takes several words, --strides, is given once for each value; a switch and its opposite are two values.
    """
    axes: dict[str, list[list[str]]] = {}
    for word in words:
        if word.startswith("--"):
            flag, _, value = word.partition("=")
            name = flag[2:].replace("-", "_")
            if name.removeprefix("no_") in SWITCHES:
                name = name.removeprefix("no_")
            if name == "workdir":
                raise ConfigError("workdir: the sweep makes one for each cell")
            values = axes.setdefault(name, [])
            current = [flag]
            if value:
                current.append(value)
            values.append(current)
        elif not axes:
            raise ConfigError(f"{word}: flags begin with --")
        elif name == "strides" or len(current) == 1:
            current.append(word)
        else:
            current = [flag, word]
            values.append(current)
    return axes


def value_text(value) -> str:
    """A field's value as a part of a file's name."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return "x".join(map(str, value)) or "usual"
    return (f"{value:g}" if isinstance(value, float) else str(value)).replace("/", "_")

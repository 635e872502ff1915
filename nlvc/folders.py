"""Which files a command takes, and where its results go."""

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path


def sources_of(path: Path, suffixes: Iterable[str]) -> list[Path]:
    """The file itself, or the files below a folder with one of these suffixes. Raises ValueError if there are none."""
    if not path.is_dir():
        if not path.exists():
            raise FileNotFoundError(f"{path}: there is no such file or folder")
        return [path]
    found = files_in(path, suffixes)
    if not found:
        raise ValueError(f"{path}: no files with suffix {', '.join(sorted(suffixes))} in this folder")
    return found


def targets_of(source: Path, sources: list[Path], output: str | None, suffix: str) -> dict[Path, Path]:
    """Where each result goes: the tree of `source` is kept, and no two sources share an output."""
    if not source.is_dir():
        beside = source.with_suffix(suffix)
        if output is None:
            return {source: beside}
        return {source: Path(output, beside.name) if is_folder(output) else Path(output)}
    if output is not None and Path(output).exists() and not Path(output).is_dir():
        raise ValueError(f"{output}: a file, but a folder of results needs a folder")
    root = source if output is None else Path(output)
    short = [root / path.relative_to(source).with_suffix(suffix) for path in sources]
    long = [target.with_name(path.name + suffix) for path, target in zip(sources, short, strict=True)]
    # a.png and a.jpg would both become a.nlvc: such names keep their old suffix.
    count = Counter(short)
    targets = [b if count[a] > 1 else a for a, b in zip(short, long, strict=True)]
    # That may meet a third one, from a.png.png; then all keep theirs.
    return dict(zip(sources, targets if len(set(targets)) == len(targets) else long, strict=True))


def is_folder(output: str) -> bool:
    """Whether OUT is a folder that is there, or a name that can only be meant as one."""
    return Path(output).is_dir() or output.endswith(("/", os.sep))


def files_in(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """All files below a folder with one of these suffixes, hidden ones left out, in order."""
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in names
                  if not name.startswith(".") and Path(name).suffix.lower() in suffixes]  # fmt: skip
    return sorted(found)

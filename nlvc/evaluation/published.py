"""Curves that others have published, as means over a set of photos."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Published(NamedTuple):
    """A published curve: float64 (S,), lowest rate first; ms_ssim is empty where it was not published.

    source, note: where it is from and what to know about it, maybe empty.
    """

    bpp: np.ndarray
    psnr: np.ndarray
    ms_ssim: np.ndarray
    source: str = ""
    note: str = ""


def read_published(path: Path, names: Sequence[str] = ()) -> dict[str, Published]:
    """Curves by name, all or those that are named, of a file {name: {"bpp": [...], "psnr": [...], ...}}.

    Raises:
      OSError: the file cannot be read.
      ValueError: it is not such a file, or lacks a name.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("no curves by name")
        if unknown := [name for name in names if name not in found]:
            raise ValueError(f"no curve {unknown[0]!r}: there are {', '.join(found)}")
        return {name: _curve(name, found[name]) for name in names or found}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        said = f"no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{path}: {said}") from error


def _curve(name: str, record: dict) -> Published:
    bpp = np.array(record["bpp"], float)
    order = np.argsort(bpp, kind="stable")
    psnr, ms_ssim = np.array(record["psnr"], float), np.array(record.get("ms_ssim") or [], float)
    if bpp.ndim != 1 or psnr.shape != bpp.shape or ms_ssim.size not in (0, bpp.size):
        raise ValueError(f"the curve {name!r} needs a PSNR for each of its rates")
    return Published(
        bpp[order], psnr[order], ms_ssim[order] if ms_ssim.size else ms_ssim,
        str(record.get("source", "")), str(record.get("note", "")),
    )  # fmt: skip

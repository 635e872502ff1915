"""Which of several models codes a photo: the one trained for the nearest lambda, or the one that wrote the file."""

import math
from pathlib import Path

from nlvc.image_codec.model import CodecError
from nlvc.models.weights import ModelError, describe_model


def checked(quality: float) -> float:
    """A quality. Raises CodecError outside 0..100."""
    if not 0 <= quality <= 100:
        raise CodecError(f"quality must be between 0 and 100, got {quality:g}")
    return quality


def models_in(path: Path) -> list[Path]:
    """The file itself; that of a run; or all in a folder, its own and those of the runs in it. ModelError for none."""
    if not path.is_dir():
        return [path]
    if (path / "model.safetensors").exists():
        return [path / "model.safetensors"]
    found = sorted([*path.glob("*.safetensors"), *path.glob("*/model.safetensors")])
    if not found:
        raise ModelError(f"{path}: there is no model.safetensors in this folder or the folders in it")
    return found


def choose(path: Path, *, lmbda: float | None = None, fingerprint: str | None = None) -> Path:
    """One of `models_in(path)`: for a rate, for a file's fingerprint, or the only one.

    A single model is chosen whatever the fingerprint. Raises CodecError or ModelError if there is no such model, if
    several leave the choice open, or if a single one has another rate than is asked for.
    """
    files = models_in(path)
    if len(files) == 1:
        if lmbda is not None:
            config = describe_model(files[0])[0]
            if config.rate == "fixed" and not math.isclose(config.lmbda, lmbda, rel_tol=0.01):
                raise CodecError(
                    f"this model has one rate (lambda {config.lmbda:g}): leave quality out, or give a folder of several"
                )
        return files[0]
    about = {file: describe_model(file) for file in files}
    if fingerprint is not None:
        for file, (_, its) in about.items():
            if its == fingerprint:
                return file
        raise CodecError(f"this file needs the model with fingerprint {fingerprint}; none of those in {path} has it")
    if lmbda is None:
        choices = ", ".join(f"{config.lmbda:g}" for config, _ in sorted(about.values(), key=lambda v: v[0].lmbda))
        raise CodecError(f"{path} has {len(files)} models: choose one by its lambda ({choices}) or by a quality")
    return min(files, key=lambda file: abs(math.log(about[file][0].lmbda / lmbda)))

"""A frozen model as one file: safetensors, with its configuration and a fingerprint in the header."""

import contextlib
import hashlib
import json
from pathlib import Path

import numpy as np

from nlvc.config import Config, ConfigError
from nlvc.files import write_whole

FORMAT = "nlvc-1"


class ModelError(ValueError):
    """A file that is not a model, or not one that this version reads: one line that says so."""


def save_model(path: Path, config: Config, arrays: dict[str, np.ndarray]) -> str:
    """Writes arrays by name and the config, whole or not at all. Returns the fingerprint."""
    from safetensors.numpy import save

    arrays = {name: np.asarray(value, order="C") for name, value in arrays.items()}
    text = config.to_json()
    print_ = fingerprint(text, arrays)
    about = {"format": FORMAT, "config": text, "fingerprint": print_}
    write_whole(path, _in_order(save(arrays, metadata=about)))
    return print_


def load_model(path: Path) -> tuple[Config, dict[str, np.ndarray], str]:
    """(config, arrays, fingerprint) of a file that `save_model` wrote. Raises ModelError for anything else."""
    with _opened(path) as (file, config, about):
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    if fingerprint(about["config"], arrays) != about.get("fingerprint"):
        raise ModelError(f"{path}: damaged: its contents do not match its fingerprint")
    return config, arrays, about["fingerprint"]


def describe_model(path: Path) -> tuple[Config, str]:
    """(config, fingerprint) of a model's file, without reading or checking its arrays. Raises ModelError."""
    with _opened(path) as (_, config, about):
        return config, about.get("fingerprint", "")


@contextlib.contextmanager
def _opened(path: Path):
    """Yields (safetensors file, Config, what its header says)."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            about = file.metadata() or {}
            if about.get("format") != FORMAT:  # before the arrays, whose types NumPy may not know
                raise ModelError(f"{path}: not an nlvc model of format {FORMAT}; freeze it again with this version")
            yield file, Config.from_json(about.get("config", "")), about
    except FileNotFoundError:
        raise ModelError(f"{path}: there is no such model file") from None
    except ConfigError as error:
        raise ModelError(f"{path}: the configuration in it cannot be read ({error})") from None
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a model file ({error})") from None


def fingerprint(config: str, arrays: dict[str, np.ndarray]) -> str:
    """16 hex digits that change with any number and any choice.

    config: its JSON as the file has it, so that fields which later versions add do not change the fingerprint.
    """
    digest = hashlib.sha256(config.encode())
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape} ".encode())
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()[:16]


def _in_order(data: bytes) -> bytes:
    """A safetensors file with its header sorted: the library puts metadata in another order each time."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[end:]

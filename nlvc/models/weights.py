"""A trained model as one file: safetensors, with its configuration and a fingerprint in the header."""

import hashlib
import json
from pathlib import Path

import jax
import numpy as np

from nlvc.config import Config, ConfigError
from nlvc.files import write_whole

FORMAT = "nlvc-float-1"


class ModelError(ValueError):
    """A file that is not a model, or not one that this version reads: one line that says so."""


def save_model(path: Path, config: Config, params: dict) -> str:
    """Writes parameters (a nested dict of arrays) and config, whole or not at all. Returns the fingerprint."""
    from safetensors.numpy import save

    tensors = {name: np.ascontiguousarray(value) for name, value in _flatten(params).items()}
    text = config.to_json()
    print_ = fingerprint(text, tensors)
    about = {"format": FORMAT, "config": text, "fingerprint": print_}
    write_whole(path, _in_order(save(tensors, metadata=about)))
    return print_


def load_model(path: Path) -> tuple[Config, dict, str]:
    """(config, params, fingerprint) of a file that `save_model` wrote. Raises ModelError for anything else."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            about = file.metadata() or {}
            if about.get("format") != FORMAT:  # before the tensors, whose types NumPy may not know
                raise ModelError(f"{path}: not an nlvc model of format {FORMAT}; train it again with this version")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    except FileNotFoundError:
        raise ModelError(f"{path}: there is no such model file") from None
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: not a model file ({error})") from None
    text = about.get("config", "")
    try:
        config = Config.from_json(text)
    except ConfigError as error:
        raise ModelError(f"{path}: the configuration in it cannot be read ({error})") from None
    if fingerprint(text, tensors) != about.get("fingerprint"):
        raise ModelError(f"{path}: damaged: its contents do not match its fingerprint")
    return config, _unflatten(tensors), about["fingerprint"]


def fingerprint(config: str, tensors: dict[str, np.ndarray]) -> str:
    """16 hex digits that change with any weight and any choice.

    config: its JSON as the file has it, so that fields which later versions add do not change the fingerprint.
    """
    digest = hashlib.sha256(config.encode())
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tensors[name].shape} ".encode())
        digest.update(tensors[name].tobytes())
    return digest.hexdigest()[:16]


def _in_order(data: bytes) -> bytes:
    """A safetensors file with its header sorted: the library puts metadata in another order each time."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.dumps(json.loads(data[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data[end:]


def _flatten(params: dict) -> dict[str, jax.Array]:
    leaves, _ = jax.tree.flatten_with_path(params)
    return {"/".join(key.key for key in path): leaf for path, leaf in leaves}


def _unflatten(tensors: dict[str, np.ndarray]) -> dict:
    params: dict = {}
    for name, value in tensors.items():
        *folders, leaf = name.split("/")
        place = params
        for folder in folders:
            place = place.setdefault(folder, {})
        place[leaf] = value
    return params

"""The conditions under which every test runs, and the few fixtures that several folders share."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).parents[1]

# Programs compile for seconds on a busy machine, which says nothing about the code; in CI the same examples every time.
hypothesis.settings.register_profile("nlvc", deadline=None, derandomize=bool(os.environ.get("CI")), print_blob=True)
hypothesis.settings.load_profile("nlvc")


def pytest_configure(config: pytest.Config) -> None:
    """Settings of JAX by environment variables: they reach the programs that tests start, and cost no import of JAX.

    - the CPU, also where there is a GPU (JAX_PLATFORMS=cuda python -m pytest for the other);
    - silent broadcasting between different ranks is an error;
    - compiled programs are kept in pytest's cache folder, so that a second run, and a second process in the same run,
      does not compile again. `python -m pytest --cache-clear` empties it, `-p no:cacheprovider` does without.
    """
    settings = {"JAX_PLATFORMS": "cpu", "JAX_NUMPY_RANK_PROMOTION": "raise"}
    if cache := getattr(config, "cache", None):
        settings["JAX_COMPILATION_CACHE_DIR"] = str(cache.mkdir("jax"))
        settings["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
    for name, value in settings.items():
        os.environ.setdefault(name, value)


@pytest.fixture
def run_python():
    """A function that runs `python ARGUMENTS...` in the repository's root, without standard input.

    It returns the CompletedProcess (text of stdout and stderr, return code) and does not judge the return code.
    """

    def run(*arguments: str | os.PathLike, timeout: float = 600) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, *map(os.fspath, arguments)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    return run


@pytest.fixture(scope="session")
def model_file(tmp_path_factory):
    """A function from fields of Config to the path of a frozen model: a very small one that was never trained.

    Its weights are random numbers of the usual size and depend on `weights_seed` alone.
    """
    from random_models import random_model

    from nlvc.config import Config
    from nlvc.models.weights import save_model

    @functools.cache
    def make(weights_seed: int = 0, **fields) -> Path:
        config = Config(**{"channels": 4, "filters": 4, "latent_filters": 4, **fields})
        path = tmp_path_factory.mktemp("model") / "model.safetensors"
        save_model(path, config, random_model(config, weights_seed))
        return path

    return make


@pytest.fixture(scope="session")
def untrained(model_file):
    """`model_file`, loaded: the same Model for the same fields, so that its programs are compiled once."""
    from nlvc.image_codec import load

    return functools.cache(lambda **fields: load(model_file(**fields)))


@pytest.fixture(scope="session")
def load_once():
    """`image_codec.load`, which loads a path only once, so that its programs are compiled once."""
    from nlvc.image_codec import load

    return functools.cache(load)


@pytest.fixture
def nlvc(capsys, model_file, load_once, monkeypatch):
    """nlvc(arguments...) -> (exit status, stdout, stderr) of the command, in this process.

    compress and decompress are given `model_file()` unless a model is named; stderr is checked to be tidy.
    """
    from nlvc import cli, image_codec

    monkeypatch.setattr(image_codec, "load", load_once)
    monkeypatch.setattr(cli, "prepare", lambda: None)

    def run(command: str, *arguments: str | os.PathLike) -> tuple[int, str, str]:
        if command in ("compress", "decompress") and "--model" not in arguments:
            arguments += ("--model", model_file())
        capsys.readouterr()
        status = cli.main([command, *map(os.fspath, arguments)])
        out, err = capsys.readouterr()
        assert all(line.startswith("nlvc: ") for line in err.splitlines()), err
        return status, out, err

    return run

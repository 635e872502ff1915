"""Commands that need no model answer at once: their imports are checked; benchmarks/startup.py measures their time."""

import re
import subprocess

from nlvc.coding import bitstream

HEAVY = {
    "flax",
    "grain",
    "jax",
    "jaxlib",
    "llvmlite",
    "numba",
    "optax",
    "orbax",
    "scipy",
    "skimage",
    "tensorflow_datasets",
}


def imported(done: subprocess.CompletedProcess) -> set[str]:
    """First parts of the names of all modules that a `python -X importtime` which succeeded has imported."""
    assert done.returncode == 0, "\n".join(line for line in done.stderr.splitlines() if "import time:" not in line)
    return {match[1] for match in re.finditer(r"^import time:[^|]*\|[^|]*\| *(\w+)", done.stderr, re.MULTILINE)}


def test_import_nlvc_is_light(run_python):
    names = imported(run_python("-X", "importtime", "-c", "import nlvc"))
    assert "nlvc" in names
    assert not names & HEAVY


def test_nlvc_info_is_light(run_python, tmp_path):
    header = bitstream.Header(0, 1234, 567, "RGB", "0123456789abcdef", lanes=1, levels=3, tile=1024)
    streams = [[bytes(size), b"abcd"] for size in (300, 20, 4)]
    path = tmp_path / "photo.nlvc"
    path.write_bytes(bitstream.pack(header, streams, {"iCCP": bytes(77)}))
    done = run_python("-X", "importtime", "-m", "nlvc", "info", path)
    names = imported(done)
    assert {"1234", "567", "304", "77", header.fingerprint} <= set(re.findall("[0-9a-f]+", done.stdout)), done.stdout
    assert "nlvc" in names
    assert not names & HEAVY


def test_the_check_sees_a_heavy_import(run_python):
    assert "scipy" in imported(run_python("-X", "importtime", "-c", "import scipy.fft")) & HEAVY


def test_coding_a_photo_needs_nothing_that_trains(run_python, model_file):
    """Loading, compressing and decompressing: Flax, Optax and Orbax are for training and freezing."""
    program = (
        "import nlvc, numpy, sys; model = nlvc.load(sys.argv[1]); "
        "nlvc.decompress(nlvc.compress(numpy.zeros((9, 9, 3), 'uint8'), model=model), model=model)"
    )
    names = imported(run_python("-X", "importtime", "-c", program, model_file()))
    assert "jax" in names
    assert not names & {"flax", "optax", "orbax", "grain", "tensorflow_datasets", "skimage", "tyro"}

"""Worker processes: the same batches, and nothing is left of them whatever happens."""

import os
import re
import signal
import subprocess
import sys
import time
from itertools import islice
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nlvc.data import DamagedPackError, batches, pack, photos

ROOT = Path(__file__).parents[2]
OPTIONS = {"batch_size": 4, "patch_size": 64, "seed": 7}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 256, (200 + 20 * number, 300, 3), np.uint8)
        Image.fromarray(pixels).save(root / f"{number}.png")
    return root


@pytest.fixture
def out(folder, tmp_path):
    pack(folder, tmp_path / "out", shard_bytes=500_000)
    return tmp_path / "out"


def beyond_memory(out):
    return photos(out, "train", cache_bytes=0)


def shared_memory():
    return {name for name in os.listdir("/dev/shm") if name.startswith("psm_")} if os.path.isdir("/dev/shm") else set()


def is_left(before):
    """Whether blocks of shared memory are left; grain frees them in a thread of its own, which may take a moment."""
    end = time.monotonic() + 10
    while shared_memory() - before and time.monotonic() < end:
        time.sleep(0.05)
    return bool(shared_memory() - before)


def test_the_same_batches_and_nothing_is_left(folder, out):
    before, source = shared_memory(), beyond_memory(out)
    iterator = batches(photos(folder, "train"), **OPTIONS, start=5)
    expected = list(islice(iterator, 7))
    iterator.close()
    iterator = batches(source, **OPTIONS, start=5, workers=2)
    try:
        found = list(islice(iterator, 4))
        assert len(active_children()) == 2
        state = iterator.get_state()
        found += list(islice(iterator, 3))
        iterator.set_state(state)
        np.testing.assert_array_equal(list(islice(iterator, 3)), expected[4:])
    finally:
        iterator.close()
    assert active_children() == [] and not is_left(before)
    assert {type(batch) for batch in found} == {np.ndarray} and found[0].dtype == np.float32
    np.testing.assert_array_equal(found, expected)
    iterator.close()  # again


def test_photos_in_memory_need_no_processes(folder, out):
    for source in (photos(folder, "train"), photos(out, "train"), photos(folder, "train", cache_bytes=0)):
        iterator = batches(source, **OPTIONS, workers=2)
        next(iterator)
        assert active_children() == []
        iterator.close()


def test_damage_is_told_in_one_line(out):
    before, source = shared_memory(), beyond_memory(out)
    path = out / "photos-00001.array_record"
    path.write_bytes(bytes(path.stat().st_size))
    iterator = batches(source, **OPTIONS, workers=2)
    try:
        with pytest.raises(DamagedPackError) as raised:
            list(islice(iterator, 100))
    finally:
        iterator.close()
    assert re.fullmatch(f"{path}: damaged: .*; pack the photos again", str(raised.value))
    assert active_children() == [] and not is_left(before)


@pytest.mark.slow
@pytest.mark.parametrize("workers, threads, prefetch", [(1, 0, 0), (1, 2, 8), (3, 1, 8), (4, 0, 1)])
def test_any_number_of_workers(out, workers, threads, prefetch):
    source = beyond_memory(out)
    iterator = batches(source, **OPTIONS)
    expected = list(islice(iterator, 20))
    iterator.close()
    iterator = batches(source, **OPTIONS, workers=workers, threads=threads, prefetch=prefetch)
    found = list(islice(iterator, 20))
    iterator.close()
    np.testing.assert_array_equal(found, expected)
    assert active_children() == []


@pytest.mark.slow
def test_closed_before_the_first_batch(out):
    before = shared_memory()
    batches(beyond_memory(out), **OPTIONS, workers=2).close()
    assert active_children() == [] and not is_left(before)


@pytest.mark.slow
def test_a_killed_worker_is_an_error(out):
    before = shared_memory()
    iterator = batches(beyond_memory(out), **OPTIONS, workers=2)
    try:
        next(iterator)
        active_children()[0].kill()
        with pytest.raises(ChildProcessError, match=r"^a data worker is gone, .*exit code -9$"):
            list(islice(iterator, 100))
    finally:
        iterator.close()
    assert active_children() == [] and not is_left(before)


PROGRAM = """
import contextlib, itertools, multiprocessing, sys
from nlvc.data import batches, photos
if __name__ == "__main__":
    source = photos(sys.argv[1], "train", cache_bytes=0)
    try:
        with contextlib.closing(batches(source, batch_size=4, patch_size=64, seed=7, workers=2)) as crops:
            for number in itertools.count():
                next(crops)
                if number == 3:
                    print(*[child.pid for child in multiprocessing.active_children()], flush=True)
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc and /dev/shm")
@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGKILL, -9), (signal.SIGTERM, -15)])
def test_the_end_of_the_program_ends_the_workers(out, tmp_path, number, status):
    before = shared_memory()
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    process = subprocess.Popen([sys.executable, script, out], env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)  # fmt: skip
    workers = [Path("/proc", pid) for pid in process.stdout.readline().split()]
    assert len(workers) == 2
    # Ctrl-C goes to all processes of a terminal.
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    _, err = process.communicate(timeout=120)
    end = time.monotonic() + 30
    while any(path.exists() for path in workers) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(path.exists() for path in workers) and not is_left(before)
    assert process.returncode == status
    assert "Traceback" not in err, err

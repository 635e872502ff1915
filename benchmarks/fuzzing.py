"""Damages small `.nlvc` files in many ways, decodes and salvages them, and counts what came of it, kind by kind.

    python benchmarks/fuzzing.py --files 100000 --seed 0     about 15 minutes on one core

A damaged file must end in one line of error, or decode to the picture that it was; what `salvage` (of every fourth
file) cannot give as it was, it must name. "repaired": the checksums are right, so that damage reaches what lies behind
them; that is a file that somebody might have written, and another picture is as good. Never may there be another
exception than the package's own ValueErrors, a warning, the end of the process, a decoding of over 5 seconds of CPU
time, or more memory than twice what a picture of --max-pixels needs on each core. Exit status 1 if there is.

Processes of their own decode the files, so that one that dies or hangs is seen, counted, and replaced. File n depends
on the seed and n alone: `--first n --files 1` does it again.
"""

import argparse
import math
import multiprocessing
import os
import random
import signal
import sys
import time
import tracemalloc
import warnings
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from damage import KINDS, joined, make_bases, varint

from nlvc import image_codec

MODEL = Path(__file__).parents[1] / "tests" / "golden" / "model.safetensors"
SECONDS, TIMES = 5.0, 2.0
LONGEST = 60.0  # seconds of CPU time with one file, after which the system ends a process
PATIENCE = 3600.0  # seconds of real time, on a busy machine, after which a process is taken to wait for itself
# error: refused in one line; right: the picture as it was; lost: what is lost is named; other: another picture, of a
# repaired file; wrong: another picture, and not a word; long: an error that is not one line; crash: anything else.
WORDS = ("error", "right", "lost", "other", "wrong", "long", "crash")


class Outcome(NamedTuple):
    """What became of a file, in WORDS. memory: 1 is what a picture of --max-pixels needs."""

    decoded: str
    salvaged: str = ""
    seconds: float = 0.0
    memory: float = 0.0
    remark: str = ""

    def is_bad(self) -> bool:
        return bool({self.decoded, self.salvaged} & set(WORDS[4:])) or self.seconds > SECONDS or self.memory > TIMES


def kind_of(index: int) -> str:
    return list(KINDS)[index % len(KINDS)]


def measured(function, again: bool = True) -> tuple[str, object, float, int]:
    """("" or an error in WORDS, result or text, seconds of CPU time, bytes needed beyond those in use before)."""
    tracemalloc.reset_peak()
    traced, resident, begin = tracemalloc.get_traced_memory()[0], most_resident(reset=True), time.process_time()
    try:
        with warnings.catch_warnings(action="error"):
            word, result = "", function()
    except Exception as error:
        promised = isinstance(error, ValueError) and type(error).__module__.startswith("nlvc.")
        word, result = "error" if len(str(error).splitlines()) == 1 else "long", f"{type(error).__name__}: {error}"
        word = word if promised else "crash"
    seconds = time.process_time() - begin
    if again and seconds > SECONDS:  # for a new size programs are compiled, but once only
        return measured(function, again=False)
    return word, result, seconds, max(tracemalloc.get_traced_memory()[1] - traced, most_resident() - resident)


def most_resident(reset: bool = False) -> int:
    """The most memory in use since the last reset, in bytes; always 0 where there is no /proc of Linux."""
    try:
        if reset:
            Path("/proc/self/clear_refs").write_text("5")
        return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) << 10
    except OSError:
        return 0


class Fuzzer:
    """Damages and decodes files, in this process."""

    def __init__(self, model: Path, seed: int, max_pixels: int, salvage_every: int = 4):
        self.seed, self.salvage_every = seed, salvage_every
        self.options = {"model": image_codec.load(model), "max_pixels": max_pixels}
        self.bases = make_bases(self.options["model"])
        self.pictures = [image_codec.decompress(base.data, **self.options) for base in self.bases]
        (begin, _, _, *numbers), side = self.bases[-1].header, varint(math.isqrt(max_pixels))
        largest = joined([begin, side, side, *numbers], [], self.bases[-1].streams)
        tracemalloc.start()
        # Each core may be at a tile of that size.
        self.allowed = os.cpu_count() * measured(lambda: image_codec.salvage(largest, **self.options))[3]

    def data(self, index: int) -> bytes:
        """File number `index`."""
        rng = random.Random(f"{self.seed} {index}")
        return KINDS[kind_of(index)](rng, *rng.sample(self.bases, 2))

    def examine(self, index: int) -> Outcome:
        """Decodes file number `index`, and salvages it if it is its turn."""
        data, salvaged = self.data(index), ""
        decoded, result, seconds, memory = measured(lambda: image_codec.decompress(data, **self.options))
        remark, decoded = (result, decoded) if decoded else ("", self._judged(index, result))
        if index // len(KINDS) % self.salvage_every == 0:
            salvaged, result, *more = measured(lambda: image_codec.salvage(data, **self.options))
            remark, salvaged = (result, salvaged) if salvaged else (remark, self._judged(index, *result))
            seconds, memory = max(seconds, more[0]), max(memory, more[1])
        return Outcome(decoded, salvaged, seconds, memory / self.allowed, remark)

    def _judged(self, index: int, picture: np.ndarray, lost=()) -> str:
        right = any(np.array_equal(picture, right) for right in self.pictures)
        return "lost" if lost else "right" if right else "other" if "repaired" in kind_of(index) else "wrong"


def work(connection, first: int, end: int, options: dict) -> None:
    """What a process does."""
    fuzzer = Fuzzer(**options)
    for index in range(first, end):
        if hasattr(signal, "setitimer"):  # not on Windows
            signal.setitimer(signal.ITIMER_PROF, LONGEST)
        connection.send(fuzzer.examine(index))


def supervised(first: int, end: int, options: dict, work=work) -> list[tuple[int, Outcome]]:
    """What became of files [first, end), in one process after another: each that dies or hangs costs one file."""
    context, found = multiprocessing.get_context("spawn"), []
    while first + len(found) < end:
        begin = first + len(found)
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(theirs, begin, end, options), daemon=True)
        process.start()
        theirs.close()
        remark = "hangs"
        try:
            while first + len(found) < end and ours.poll(PATIENCE):
                found.append((first + len(found), ours.recv()))
        except EOFError:
            process.join()
            remark = f"its process ended with {process.exitcode}"
        process.kill()
        process.join()
        if first + len(found) < end:
            found.append((first + len(found), Outcome("crash", remark=remark)))
    return found


def table(found: list[tuple[int, Outcome]]) -> str:
    """One line a kind of damage: what came of decoding, of salvaging, and seconds and memory of the worst."""
    heads = "".join(f"{word:>7}" for word in WORDS)
    lines = [f"{'decompress':>42}{'salvage':>51}", f"{'':22}{'files':>7}{heads}  |{heads}  |{'s':>6}{'memory':>8}"]
    for kind in [*KINDS, ""]:
        rows = [outcome for index, outcome in found if kind in ("", kind_of(index))]
        counts = [Counter(row[column] for row in rows) for column in (0, 1)]
        decoded, salvaged = ("".join(f"{count[word]:7}" for word in WORDS) for count in counts)
        seconds, memory = (max((row[column] for row in rows), default=0) for column in (2, 3))
        lines.append(f"{kind or 'all':22}{len(rows):7}{decoded}  |{salvaged}  |{seconds:6.2f}{memory:8.3f}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--max-pixels", type=int, default=1_000_000)
    arguments = parser.parse_args()
    options = {"model": arguments.model, "seed": arguments.seed, "max_pixels": arguments.max_pixels}
    found = supervised(arguments.first, arguments.first + arguments.files, options)
    print(table(found))
    bad = [(index, outcome) for index, outcome in found if outcome.is_bad()]
    for index, outcome in bad[:20]:
        print(f"--first {index} --files 1, {kind_of(index)}: {outcome}")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())

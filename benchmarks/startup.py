"""Time to the first answer: `import nlvc` and `nlvc info FILE` beside an empty Python.

    python benchmarks/startup.py [FILE] [--runs=15]

The commands take turns, so that a busy machine slows all of them alike; printed are medians over the runs in
milliseconds, and what each costs beyond the empty Python. Without FILE, a small .nlvc file is made for the purpose.
Goals on two CPU cores: `import nlvc` under 300 ms, `nlvc info` under 500 ms.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from nlvc.coding import bitstream


def example_file(folder: str) -> Path:
    """Writes a well-formed .nlvc file of a 12-megapixel photo whose streams are zeros; `nlvc info` reads no more."""
    header = bitstream.Header(0, 4000, 3000, "RGB", "0123456789abcdef", lanes=1, levels=3, tile=1024)
    streams = [[bytes(size)] * 12 for size in (40_000, 5000, 700)]
    path = Path(folder) / "photo.nlvc"
    path.write_bytes(bitstream.pack(header, streams))
    return path


def milliseconds(command: list[str]) -> float:
    """Wall time of one run of the command, from its start to its end; raises CalledProcessError if it fails."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    return 1000 * (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", help="a .nlvc file for `nlvc info`")
    parser.add_argument("--runs", type=int, default=15, help="runs of each command (15)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        file = arguments.file or str(example_file(folder))
        script = shutil.which("nlvc", path=str(Path(sys.executable).parent))
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "import nlvc": [sys.executable, "-c", "import nlvc"],
            "nlvc info FILE": [*([script] if script else [sys.executable, "-m", "nlvc"]), "info", file],
        }
        for command in commands.values():  # fills the file system's cache and writes the .pyc files
            milliseconds(command)
        times = {name: [] for name in commands}
        for _ in range(arguments.runs):
            for name, command in commands.items():
                times[name].append(milliseconds(command))
    medians = {name: statistics.median(values) for name, values in times.items()}
    empty = medians["python -c pass"]
    print(f"median of {arguments.runs} runs, ms   total   beyond an empty Python")
    for name, median in medians.items():
        print(f"{name:<24} {median:8.0f} {median - empty:8.0f}")


if __name__ == "__main__":
    main()

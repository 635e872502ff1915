"""Encoding and decoding, warm: seconds, where they go, and peak memory, from a Kodak photo to 100 megapixels.

    python benchmarks/codec_speed.py MODEL [PHOTO] [--megapixels 0.4 1 4 24 100] [--runs 3]

MODEL is a model.safetensors or the folder of the run that wrote it; PHOTO (skimage's `coffee` if there is none) is
mirrored side by side to each size, 3:2. Every size has its own process, so that its peak memory (resident, with Python,
JAX and the pixels themselves) is its own. Printed are the best of the runs, ns per pixel, and shares of the time that
the threads of the codec spent in: transforms (analysis or synthesis), priors (the networks between the levels, and the
analyses of z_2 to z_L), entropy coding, and the rest (file, checksums, cutting out). The peer is WebP (Pillow, method
4, quality 75), which codes the same pixels in the same process.
"""

import argparse
import io
import json
import subprocess
import sys
import time
from contextlib import contextmanager

STAGES = ("transforms", "priors", "entropy")


class Clock:
    """Seconds by stage, summed over threads."""

    def __init__(self):
        self.seconds = dict.fromkeys(STAGES, 0.0)

    def watch(self, owner, name: str, stage_of) -> None:
        """Replaces owner.name by itself with a stopwatch; stage_of(arguments) names the stage."""
        function = getattr(owner, name)

        def timed(*arguments, **options):
            start = time.perf_counter()
            try:
                return function(*arguments, **options)
            finally:
                self.seconds[stage_of(arguments)] += time.perf_counter() - start

        setattr(owner, name, timed)

    @contextmanager
    def reading(self):
        """Yields a dict that is filled at its end with the shares of the wall time, threads averaged."""
        self.seconds = dict.fromkeys(STAGES, 0.0)
        result = {}
        start = time.perf_counter()
        yield result
        result["wall"] = time.perf_counter() - start
        result.update(self.seconds)


def mirrored(photo, width: int, height: int):
    """The photo continued by its mirror images."""
    import numpy as np

    indices = []
    for length, wanted in zip(photo.shape[:2], (height, width), strict=True):
        period = np.concatenate([np.arange(length), np.arange(length)[::-1]])
        indices.append(np.resize(period, wanted))
    return photo[indices[0][:, None], indices[1][None]]


def measure(model: str, photo: str, megapixels: float, runs: int) -> dict:
    """One size, in this process."""
    import numpy as np
    from PIL import Image

    from nlvc import image_codec, process
    from nlvc.image_codec import causal, coder

    Image.MAX_IMAGE_PIXELS = None
    process.keep_freed_memory()
    process.keep_programs()
    if photo:
        source = np.asarray(Image.open(photo).convert("RGB"))
    else:
        import skimage.data

        source = skimage.data.coffee()
    width = round((megapixels * 1e6 * 1.5) ** 0.5)
    image = mirrored(source, width, round(width / 1.5))
    loaded, clock = image_codec.load(model), Clock()
    clock.watch(loaded, "infer", lambda arguments: "transforms" if arguments[1] == 1 else "priors")
    clock.watch(loaded, "conditional", lambda _: "priors")
    clock.watch(loaded, "synthesise", lambda _: "transforms")
    # Of a model with a context; there is no stopwatch in the loop over what is decoded.
    clock.watch(causal, "choose", lambda _: "priors")
    clock.watch(causal, "push", lambda _: "entropy")
    clock.watch(causal, "pop", lambda _: "priors")
    clock.watch(coder, "push", lambda _: "entropy")
    clock.watch(coder, "pop", lambda _: "entropy")
    encodings, decodings, data = [], [], b""
    for _ in range(runs + 1):  # the first compiles
        with clock.reading() as reading:
            data = image_codec.compress(image, model=loaded)
        encodings.append(reading)
        with clock.reading() as reading:
            image_codec.decompress(data, model=loaded)
        decodings.append(reading)
    memory = process.peak_mib()
    picture, file = Image.fromarray(image), io.BytesIO()
    webp = {}
    if max(picture.size) <= 16383:  # WebP's own limit
        for side, code in (("encode", lambda: picture.save(file, "WEBP", quality=75, method=4)),
                           ("decode", lambda: Image.open(file).load())):  # fmt: skip
            webp[side] = min(seconds(lambda code=code: file.seek(0) or code()) for _ in range(runs))
    fastest = lambda readings: min(readings[1:], key=lambda reading: reading["wall"])  # noqa: E731
    return {
        "width": image.shape[1], "height": image.shape[0], "bytes": len(data), "memory": memory, "webp": webp,
        "encode": fastest(encodings), "decode": fastest(decodings),
    }  # fmt: skip


def seconds(function) -> float:
    """Wall time of a call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def measured_apart(model: str, photo: str, megapixels: float, runs: int) -> dict:
    """`measure` in a process of its own."""
    options = ["--one", f"--runs={runs}", f"--megapixels={megapixels}"]
    command = [sys.executable, __file__, model, photo, *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def stage_shares(reading: dict) -> list[float]:
    """Of the wall time, for each of STAGES, and what is left.

    Threads overlap: stages share the wall time as they share the threads' time.
    """
    threads = sum(reading[stage] for stage in STAGES)
    busy = min(1.0, threads / reading["wall"])
    return [*(busy * reading[stage] / threads for stage in STAGES), 1 - busy]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("photo", nargs="?", default="")
    parser.add_argument("--megapixels", type=float, nargs="+", default=[0.393216, 1, 4, 24, 100])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--one", action="store_true", help="measure in this process and print JSON")
    flags = parser.parse_args()
    if flags.one:
        print(json.dumps(measure(flags.model, flags.photo, flags.megapixels[0], flags.runs)))
        return
    print("                            seconds  ns/pixel  transforms  priors  entropy   rest   MB   peak GiB   WebP s")
    for size in flags.megapixels:
        facts = measured_apart(flags.model, flags.photo, size, flags.runs if size < 50 else 1)
        pixels = facts["width"] * facts["height"]
        for side in ("encode", "decode"):
            reading = facts[side]
            shares = stage_shares(reading)
            webp = f"{facts['webp'][side]:8.2f}" if facts["webp"] else "       -"
            print(
                f"{facts['width']:>6} x {facts['height']:<6} {side:<9} {reading['wall']:8.3f} "
                f"{1e9 * reading['wall'] / pixels:9.0f} {shares[0]:11.0%} {shares[1]:7.0%} {shares[2]:8.0%} "
                f"{shares[3]:6.0%} {facts['bytes'] / 1e6:5.2f} {facts['memory'] / 2**10:9.2f}  {webp}"
            )


if __name__ == "__main__":
    main()

"""Any pair of command lines as a codec, so that encoders without a Python library can be measured alike."""

import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from nlvc.data import to_rgb
from nlvc.evaluation.trip import Codec, CodecFailure


def command_codec(
    name: str, encode: str, decode: str, settings: Sequence[float], *, suffix: str = "", timeout: float = 600
) -> Codec:
    """A codec out of two commands, which run without a shell on temporary files.

        command_codec("ours", "enc {input} {output} -q {setting}", "dec {input} {output}", [10, 50, 90], suffix=".ours")

    Args:
      encode: {input} stands for an 8-bit RGB PNG, {output} for the coded file, {setting} for one of `settings`.
      decode: {input} stands for the coded file, {output} for a PNG.
      settings: lowest rate first; whole numbers are written without a point.
      suffix: of the coded file, for commands that judge by it.
      timeout: seconds that either command may take; then it is ended.

    Returns:
      A Codec. What it times includes the start of the programs and their reading and writing of PNG. It raises
      CodecFailure, one line that says which command failed and how.

    Raises:
      ValueError: a command without {input} or {output}, or with quotes that do not match.
    """
    encoder, decoder = _words(encode), _words(decode)

    def encode_photo(photo: np.ndarray, setting: float) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder, "photo.png"), Path(folder, f"coded{suffix}")
            Image.fromarray(photo).save(source, compress_level=1)
            _run(encoder, source, target, timeout, setting=f"{setting:.12g}")
            return target.read_bytes()

    def decode_file(data: bytes) -> np.ndarray:
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder, f"coded{suffix}"), Path(folder, "decoded.png")
            source.write_bytes(data)
            _run(decoder, source, target, timeout)
            with Image.open(target) as picture:
                return to_rgb(picture)

    return Codec(name, tuple(settings), encode_photo, decode_file, f"`{encode}`, `{decode}`")


def _words(command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ValueError(f"`{command}`: {error}") from error
    if not all(any(place in word for word in words) for place in ("{input}", "{output}")):
        raise ValueError(f"`{command}`: a command of a codec needs {{input}} and {{output}}")
    return words


def _run(words: list[str], source: Path, target: Path, timeout: float, setting: str = "") -> None:
    """Runs a command that reads source and writes target. Raises CodecFailure."""
    places = {"{input}": str(source), "{output}": str(target), "{setting}": setting}
    for place, value in places.items():
        words = [word.replace(place, value) for word in words]
    command = f"`{shlex.join(words)}`"
    # A file, because a pipe stays open as long as any child of the command holds it.
    with tempfile.TemporaryFile() as said:
        try:
            status = _status(words, said, timeout)
        except OSError as error:
            raise CodecFailure(f"{command} did not start: {error.strerror}") from error
        except subprocess.TimeoutExpired as error:
            raise CodecFailure(f"{command} took more than {timeout:g} s") from error
        said.seek(0)
        last = said.read().decode(errors="replace").strip().split("\n")[-1]
    if status:
        raise CodecFailure(f"{command} ended with status {status}: {last or 'it said nothing'}")
    if not target.is_file():
        raise CodecFailure(f"{command} wrote no file")


def _status(words: list[str], said, timeout: float) -> int:
    """The exit status of a command, ended with all its children if it takes too long or we are interrupted."""
    process = subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        return process.wait(timeout)
    except BaseException:
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()
        raise

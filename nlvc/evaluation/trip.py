"""A codec of any kind as one record, and one photo's way through it. Imports little, so that a process that codes
with a small library stays small."""

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Codec(NamedTuple):
    """Something that turns photos into files and back.

    Attributes:
      name: what reports call it.
      settings: at which it is measured, lowest rate first; (nan,) for a codec of one rate.
      encode: (uint8 (H, W, 3), setting) -> the whole file.
      decode: a file -> uint8 (H, W, 3).
      note: library, version and settings, for reports; two codecs of one name and note are the same codec.
      levels: a file -> bytes of z_1, z_2, ... in it; None for codecs without levels.
    """

    name: str
    settings: tuple[float, ...]
    encode: Callable[[np.ndarray, float], bytes]
    decode: Callable[[bytes], np.ndarray]
    note: str
    levels: Callable[[bytes], tuple[int, ...]] | None = None


class CodecFailure(RuntimeError):
    """A codec that did not code a photo, or gave back something else: one line that says which, where and how."""


class Trip(NamedTuple):
    """A photo to a file and back: the file, what it decodes to, and the wall seconds of both."""

    data: bytes
    decoded: np.ndarray
    encode_s: float
    decode_s: float


def round_trip(codec: Codec, photo: np.ndarray, setting: float, name: str = "") -> Trip:
    """Codes and decodes uint8 (H, W, 3). Raises CodecFailure, which calls the photo by its name."""
    try:
        start = time.perf_counter()
        data = codec.encode(photo, setting)
        encoded = time.perf_counter()
        decoded = codec.decode(data)
        return Trip(data, decoded, encoded - start, time.perf_counter() - encoded)
    except Exception as error:  # libraries raise what they like
        raise failure(codec.name, setting, name, error) from error


def failure(codec: str, setting: float, photo: str, error: Exception | str) -> CodecFailure:
    """What to raise where a codec failed on a photo at a setting."""
    why = " ".join(str(error).split()) or type(error).__name__
    return CodecFailure(f"{codec} at setting {setting:g} failed on {photo or 'a photo'}: {why}")

"""A codec without any library, for tests of what measures codecs: small files only where photos are plain."""

import os
import zlib

import numpy as np

from nlvc.evaluation.trip import Codec


def raw_codec(name: str = "raw", settings=(5, 3, 1), fails_on: int | None = None, kills: bool = False, note: str = "1"):
    """Pixels without their lowest bits, zlib over them; setting: how many bits.

    fails_on: a width at which it fails, or ends its process.
    """

    def encode(photo, setting):
        if photo.shape[1] == fails_on:
            if kills:
                os._exit(9)
            raise OSError("no\nluck")
        shape = np.array(photo.shape[:2], "<u2").tobytes()
        return shape + zlib.compress((photo >> int(setting) << int(setting)).tobytes())

    def decode(data):
        height, width = np.frombuffer(data[:4], "<u2")
        return np.frombuffer(zlib.decompress(data[4:]), np.uint8).reshape(height, width, 3)

    return Codec(name, tuple(map(float, settings)), encode, decode, f"zlib, {note}")

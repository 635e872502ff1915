"""Small `.nlvc` files and what can happen to them, for `fuzzing.py`.

KINDS has, by name, functions (rng, one, other) -> bytes of a damaged file, of two whole ones. "repaired": checksums are
right, so that damage reaches what lies behind them.
"""

import random
import zlib
from typing import NamedTuple

import numpy as np

from nlvc import coding, image_codec
from nlvc.coding.bitstream import _varint as varint
from nlvc.data.planes import encode_alpha, planes
from nlvc.image_codec.coder import encode
from nlvc.image_codec.tiles import TILE, Grid

NUMBERS = (0, 1, 2, 3, 15, 16, 17, 255, 256, 257, 1000, 1024, 65535, 65536, 65537, 999_999, 1 << 31, (1 << 42) - 1)


class Base(NamedTuple):
    """A whole file, and its parts: the header's beginning and numbers; names and contents of chunks; streams."""

    data: bytes
    header: list[bytes]
    chunks: list[bytes]
    streams: list[bytes]


def joined(header, chunks, streams, contents=None) -> bytes:
    """A file with right checksums, whatever its parts are. contents: sizes and checksums, if not of these streams."""
    named = [*chunks, b"TOCS" + b"".join(contents_of(streams) if contents is None else contents)]
    parts = [b"".join(header), *(part[:4] + varint(len(part) - 4) + part[4:] for part in named if len(part) >= 4)]
    return b"".join([*(part + zlib.crc32(part).to_bytes(4, "little") for part in parts), *streams])


def contents_of(streams: list[bytes]) -> list[bytes]:
    return [entry for s in streams for entry in (varint(len(s)), zlib.crc32(s).to_bytes(4, "little"))]


def make_bases(model: image_codec.Model) -> list[Base]:
    """Grey, RGB and RGBA, of one tile and of several, with and without metadata."""
    whole = Grid(model.config, 1, 1, 1).stride(model.config.L)
    usual, metadata = -(-TILE // whole) * whole, {"eXIF": b"Exif\0\0II", "iCCP": b"a profile", "xMPP": b"<x/>" * 9}
    kinds = [((20, 30), usual, {}), ((17, 30, 3), whole, metadata), ((15, 22, 4), usual, metadata),
             ((24, 30), whole, {"xMPP": b""}), ((18, 31, 4), whole, {}), ((1, 1, 3), usual, {})]  # fmt: skip
    bases = []
    for seed, (shape, tile, blocks) in enumerate(kinds):
        pixels, mode, alpha = planes(np.random.default_rng(seed).integers(0, 256, shape, np.uint8))
        levels, _ = encode(model, Grid(model.config, *shape[:2], tile), pixels)
        header = coding.Header(0, shape[1], shape[0], mode, model.fingerprint, coding.LANES, model.config.L, tile)
        chunks = blocks if alpha is None else {**blocks, coding.ALPHA: encode_alpha(alpha)}
        data = coding.pack(header, levels, chunks)
        numbers = [varint(number) for number in (shape[1], shape[0], model.config.L, tile)]
        parts = [data[:16], *numbers], [name.encode() + block for name, block in chunks.items()], sum(levels[::-1], [])
        assert joined(*parts) == data
        bases.append(Base(data, *parts))
    return bases


def flipped(rng: random.Random, data: bytes, bits: int = 1) -> bytes:
    number = int.from_bytes(data)
    for _ in range(bits if data else 0):
        number ^= 1 << rng.randrange(8 * len(data))
    return number.to_bytes(len(data))


def replaced(rng: random.Random, data: bytes, gone: int, new: bytes) -> bytes:
    at = rng.randint(0, max(len(data) - gone, 0))
    return data[:at] + new + data[at + gone :]


def size(rng: random.Random) -> int:
    return int(2 ** rng.uniform(0, 8))


DAMAGE = {
    "one bit": flipped,
    "several bits": lambda rng, data: flipped(rng, data, rng.randint(2, 20)),
    "a byte overwritten": lambda rng, data: replaced(rng, data, 1, rng.randbytes(1)),
    "cut short": lambda rng, data: data[: rng.randint(0, len(data))],
    "bytes put in": lambda rng, data: replaced(rng, data, 0, rng.randbytes(size(rng))),
    "bytes taken out": lambda rng, data: replaced(rng, data, size(rng), b""),
    "a block of zeros": lambda rng, data: replaced(rng, data, n := min(size(rng), len(data)), bytes(n)),
}


def spliced(rng, one, other):
    at = rng.randint(0, len(one.data))
    return one.data[:at] + other.data[rng.choice([at, rng.randint(0, len(other.data))]) :]


def swapped(rng, one, _):
    """Chunks, which say who they are, or streams, which do not."""
    chunks, streams = list(one.chunks), list(one.streams)
    rng.shuffle(rng.choice([chunks, streams, streams]))
    return joined(one.header, chunks, streams, contents_of(one.streams))


def repaired(rng, one, other, where):
    """Changes some of the header's numbers, the chunks, the streams, or what is said of the streams."""
    parts = {"header": one.header, "chunks": one.chunks, "streams": one.streams}
    theirs = [*getattr(other, where, contents_of(other.streams)), rng.choice([b"nEWS", b"NEWS", b"ALPH"])]
    mine = parts[where] = list(parts.get(where, contents_of(one.streams)))
    for _ in range(rng.choice([1, 1, 2, 4])):
        place = rng.randint(0, max(len(mine) - 1, 0))
        old, what = mine[place : place + 1] or theirs, rng.random()
        new = [rng.choice(list(DAMAGE.values()))(rng, rng.choice(old))]
        if what < 0.3 and where in ("header", "contents"):
            new = [varint(rng.choice(NUMBERS))]
        elif what < 0.3 and where == "streams":  # first a head as it may be, then words that make the longest escapes
            new = [b"\xff\xff\xff\x7f" + rng.choice([b"\xff", b"\0", b"\xa5"]) * 4 * size(rng)]
        elif what < 0.6:
            new = rng.choice([[], [rng.choice(theirs)], [*old, rng.choice(mine or theirs)]])
        mine[place : place + 1] = new
    return joined(**parts)


def resized(rng, one, _):
    """A header of any size, and as many streams as it needs."""
    # Near powers of two, because for each new size programs are compiled.
    width, height = (max(1, (1 << rng.randrange(18)) + rng.choice([-1, 0, 0, 1])) for _ in "wh")
    tile, (levels,) = 16 << rng.randrange(13), one.header[3]
    count = -(-width // tile) * -(-height // tile)
    header = [one.header[0], varint(width), varint(height), one.header[3], varint(tile)]
    return joined(header, one.chunks, rng.choices(one.streams, k=min(count, 8) * levels))


KINDS = {
    **{name: lambda rng, one, _, damage=damage: damage(rng, one.data) for name, damage in DAMAGE.items()},
    "two files spliced": spliced,
    "parts swapped": swapped,
    "noise after the header": lambda rng, one, _: joined(one.header, [], [])[:-9] + rng.randbytes(size(rng)),
    "noise": lambda rng, *_: rng.choice([b"", b"NLVC\x01\0"]) + rng.randbytes(size(rng)),
    "size, repaired": resized,
    **{f"{where}, repaired": lambda rng, one, other, where=where: repaired(rng, one, other, where)
       for where in ("header", "chunks", "contents", "streams")},
}  # fmt: skip

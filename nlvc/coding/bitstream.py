"""The `.nlvc` file, version 1 (docs/bitstream.md). NumPy-free and quick to import, so `nlvc info` starts at once.

    header    magic, version, what the picture is, which model wrote it, how it is cut into tiles; CRC-32
    chunks    named pieces, each with its own CRC-32: Exif, colour profile, XMP, alpha, and last the table of contents
    streams   one message for each level and tile, z_L of all tiles first: a file cut short keeps its deeper levels

A stream is checked when it is asked for, so what is undamaged can be read out of a damaged file.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

VERSION, MINOR = 1, 0
MAGIC = b"NLVC"
MODES = ("L", "RGB", "RGBA")
MAX_PIXELS = 1 << 31
MAX_LEVELS = 16
MAX_LANES = 255
MAX_TILE = 1 << 16
METADATA = ("eXIF", "iCCP", "xMPP")
"""Chunks that are carried along and never looked at."""
ALPHA, CONTENTS, RATE = "ALPH", "TOCS", "RATE"
_FIXED = len(MAGIC) + 4 + 8
_CRC = 4
_VARINT_BYTES = 6


class BitstreamError(ValueError):
    """These bytes are no `.nlvc` file that this version can read, or no such file can be written."""


class Header(NamedTuple):
    """What a file says of itself.

    Attributes:
      minor: 0; later ones may have more kinds of chunks.
      width, height: of the picture in pixels, at least 1, their product at most 2**31.
      mode: "L", "RGB" or "RGBA", as Pillow names them.
      fingerprint: 16 lower-case hexadecimal digits that name the model.
      lanes: of every message, in 1..255.
      levels: L, 1 to 16.
      tile: side of a tile in pixels, 1 to 65536. Tiles lie side by side from the upper left corner.
    """

    minor: int
    width: int
    height: int
    mode: str
    fingerprint: str
    lanes: int
    levels: int
    tile: int

    @property
    def tiles(self) -> tuple[int, int]:
        """Rows and columns of tiles."""
        return -(-self.height // self.tile), -(-self.width // self.tile)


@dataclass(frozen=True)
class File:
    """A file taken apart.

    Attributes:
      header: its Header.
      chunks: METADATA and ALPHA chunks by name, undamaged.
      sizes: bytes of each stream, by level (z_1 first) and then by tile, row by row.
      damaged: names of chunks that do not match their checksum; their content is not in `chunks`.
    """

    header: Header
    chunks: dict[str, bytes]
    sizes: tuple[tuple[int, ...], ...]
    damaged: tuple[str, ...]
    _data: bytes
    _places: tuple[tuple[tuple[int, int], ...], ...]

    def stream(self, level: int, tile: int) -> bytes:
        """The message of z_level (1 to L) of a tile. Raises BitstreamError if it is damaged or cut off."""
        begin, checksum = self._places[level - 1][tile]
        data = self._data[begin : begin + self.sizes[level - 1][tile]]
        if len(data) != self.sizes[level - 1][tile]:
            raise BitstreamError(f"truncated .nlvc file: z_{level} of tile {tile} is not all there")
        if zlib.crc32(data) != checksum:
            raise BitstreamError(f"damaged .nlvc file: z_{level} of tile {tile} does not match its checksum")
        return data

    def lost(self) -> list[tuple[int, int]]:
        """(level, tile) of the streams that are damaged or cut off."""
        found = []
        for level in range(self.header.levels, 0, -1):
            for tile in range(len(self.sizes[level - 1])):
                try:
                    self.stream(level, tile)
                except BitstreamError:
                    found.append((level, tile))
        return found

    def check(self) -> None:
        """Raises BitstreamError unless every byte is as it was written."""
        if self.damaged:
            raise BitstreamError(f"damaged .nlvc file: its {self.damaged[0]} chunk does not match its checksum")
        for level, tile in self.lost()[:1]:
            self.stream(level, tile)
        end = max(begin + size for level in zip(self._places, self.sizes, strict=True)
                  for (begin, _), size in zip(*level, strict=True))  # fmt: skip
        if len(self._data) > end:
            raise BitstreamError(f"{len(self._data) - end} bytes follow the end of the .nlvc file; copy it again")


def pack(header: Header, streams: list[list[bytes]], chunks: dict[str, bytes] | None = None) -> bytes:
    """The bytes of a file.

    Args:
      streams: messages by level, z_1 first, and then by tile, row by row.
      chunks: METADATA and ALPHA.

    Raises:
      BitstreamError: for a header outside its limits, or streams or chunks that do not belong to it.
    """
    _check(header)
    count = header.tiles[0] * header.tiles[1]
    if len(streams) != header.levels or any(len(level) != count for level in streams):
        raise BitstreamError(f"a file of {header.levels} levels and {count} tiles has a stream for each of both")
    chunks = dict(chunks or {})
    if unknown := sorted(chunks.keys() - {*METADATA, ALPHA, RATE}):
        raise BitstreamError(f"unknown chunk {unknown[0]!r}")
    if (ALPHA in chunks) != (header.mode == "RGBA"):
        raise BitstreamError(f"mode {header.mode} and alpha do not go together")
    fixed = bytes((VERSION, header.minor, MODES.index(header.mode), header.lanes)) + bytes.fromhex(header.fingerprint)
    numbers = (header.width, header.height, header.levels, header.tile)
    head = MAGIC + fixed + b"".join(map(_varint, numbers))
    order = [stream for level in reversed(streams) for stream in level]
    chunks[CONTENTS] = b"".join(_varint(len(s)) + zlib.crc32(s).to_bytes(_CRC, "little") for s in order)
    pieces = [head, zlib.crc32(head).to_bytes(_CRC, "little")]
    for name, content in chunks.items():
        piece = name.encode("ascii") + _varint(len(content)) + content
        pieces += [piece, zlib.crc32(piece).to_bytes(_CRC, "little")]
    return b"".join([*pieces, *order])


def unpack(data: bytes) -> File:
    """Takes a file apart. Streams are not looked at yet: `File.stream` and `File.check` do that.

    Raises:
      BitstreamError: for a foreign or newer file, or one whose header or table of contents is damaged or cut off.
    """
    data = bytes(data)
    header, at = _parse(data)
    found: dict[str, bytes | None] = {}  # None: damaged
    contents = None
    while contents is None:
        name, content, whole, at = _chunk(data, at)
        known = name in (*METADATA, ALPHA, RATE)
        if name == CONTENTS:
            if not whole:
                raise BitstreamError("damaged .nlvc file: its table of contents does not match its checksum")
            contents = content
        elif not known and name[0].isupper():
            if not whole:
                raise BitstreamError(f"damaged .nlvc file: its {name} chunk does not match its checksum")
            raise BitstreamError(f"this .nlvc file needs what {name} means; update nlvc")
        elif name in found:
            raise BitstreamError(f"damaged .nlvc file: it has two chunks {name}")
        elif known or not whole:
            found[name] = content if whole else None
    if (ALPHA in found) != (header.mode == "RGBA"):
        raise BitstreamError(f"damaged .nlvc file: mode {header.mode} and alpha do not go together")
    chunks = {name: content for name, content in found.items() if content is not None}
    sizes, places = _contents(header, contents, at)
    return File(header, chunks, sizes, tuple(name for name in found if name not in chunks), data, places)


def read_header(data: bytes) -> Header:
    """The header alone, from a file or its beginning (64 bytes are always enough).

    Raises:
      BitstreamError: for a foreign, newer, truncated or damaged header.
    """
    return _parse(bytes(data))[0]


def _parse(data: bytes) -> tuple[Header, int]:
    if data[: len(MAGIC)] != MAGIC[: len(data)] or not data:
        raise BitstreamError("not an .nlvc file: it does not begin with NLVC")
    if len(data) > len(MAGIC) and data[len(MAGIC)] != VERSION:
        raise BitstreamError(f"this .nlvc file has version {data[len(MAGIC)]}, not {VERSION}; update nlvc")
    if len(data) < _FIXED:
        raise BitstreamError("truncated .nlvc file: it ends inside the header; copy it again")
    _, minor, mode, lanes = data[len(MAGIC) : len(MAGIC) + 4]
    at, numbers = _FIXED, []
    for _ in range(4):
        number, at = _read_varint(data, at)
        numbers.append(number)
    if len(data) < at + _CRC:
        raise BitstreamError("truncated .nlvc file: it ends inside the header; copy it again")
    if zlib.crc32(data[:at]) != int.from_bytes(data[at : at + _CRC], "little"):
        raise BitstreamError("damaged .nlvc file: its header does not match its checksum; copy it again")
    if mode >= len(MODES):
        raise BitstreamError(f"unknown mode {mode} in the .nlvc header; update nlvc")
    width, height, levels, tile = numbers
    header = Header(minor, width, height, MODES[mode], data[_FIXED - 8 : _FIXED].hex(), lanes, levels, tile)
    _check(header)
    return header, at + _CRC


def _chunk(data: bytes, at: int) -> tuple[str, bytes, bool, int]:
    """(name, content, whether it matches its checksum, place of what follows)."""
    name = data[at : at + 4]
    if len(name) == 4 and not (name.isascii() and name.isalpha()):
        raise BitstreamError("damaged .nlvc file: a chunk has no name")
    size, begin = _read_varint(data, at + 4)
    end = begin + size
    if end + _CRC > len(data):
        raise BitstreamError("truncated .nlvc file: it ends inside a chunk; copy it again")
    whole = zlib.crc32(data[at:end]) == int.from_bytes(data[end : end + _CRC], "little")
    return name.decode("ascii"), data[begin:end], whole, end + _CRC


def _contents(header: Header, content: bytes, begin: int):
    """(sizes, places) of all streams, z_1 first, from the table of contents and the place of the first stream."""
    count = header.tiles[0] * header.tiles[1]
    sizes, places, entries = [], [], _entries(content)
    for _ in range(header.levels):
        level_sizes, level_places = [], []
        for _ in range(count):
            size, checksum = next(entries, (0, None))
            if checksum is None:
                raise BitstreamError("damaged .nlvc file: its table of contents is too short for its size")
            level_sizes.append(size)
            level_places.append((begin, checksum))
            begin += size
        sizes.append(tuple(level_sizes))
        places.append(tuple(level_places))
    if next(entries, None):
        raise BitstreamError("damaged .nlvc file: its table of contents is too long for its size")
    return tuple(reversed(sizes)), tuple(reversed(places))


def _entries(content: bytes) -> Iterator[tuple[int, int]]:
    at = 0
    while at < len(content):
        size, at = _read_varint(content, at)
        if at + _CRC > len(content):
            return
        yield size, int.from_bytes(content[at : at + _CRC], "little")
        at += _CRC


def _check(header: Header) -> None:
    if not 0 <= header.minor <= 255:
        raise BitstreamError(f"the minor version must be in 0..255, got {header.minor}")
    if header.mode not in MODES:
        raise BitstreamError(f"mode must be one of {', '.join(MODES)}, got {header.mode!r}")
    if header.width < 1 or header.height < 1 or header.width * header.height > MAX_PIXELS:
        raise BitstreamError(f"a picture has 1 to 2**31 pixels, got {header.width}x{header.height}")
    if not 1 <= header.lanes <= MAX_LANES:
        raise BitstreamError(f"a message has 1 to {MAX_LANES} lanes, got {header.lanes}")
    if not 1 <= header.levels <= MAX_LEVELS:
        raise BitstreamError(f"a file has 1 to {MAX_LEVELS} levels, got {header.levels}")
    if not 1 <= header.tile <= MAX_TILE:
        raise BitstreamError(f"a tile has a side of 1 to {MAX_TILE} pixels, got {header.tile}")
    if len(header.fingerprint) != 16 or set(header.fingerprint) - set("0123456789abcdef"):
        raise BitstreamError(f"a fingerprint is 16 lower-case hexadecimal digits, got {header.fingerprint!r}")


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = 0
    for step in range(_VARINT_BYTES):
        if at + step >= len(data):
            raise BitstreamError("truncated .nlvc file: it ends too early; copy it again")
        number |= (data[at + step] & 0x7F) << 7 * step
        if data[at + step] < 0x80:
            if step and not data[at + step]:
                break
            return number, at + step + 1
    raise BitstreamError("damaged .nlvc file: a number is not in its shortest form")

"""The `.nlvc` file: one header, one message, a checksum. NumPy-free and quick to import, so `nlvc info` starts at once.

    bytes   what                                              bytes   what
    4       magic, 4E 4C 56 43 ("NLVC")                       varint  height, pixels
    1       version, 1                                        varint  L, number of levels
    1       mode: 0 L, 1 RGB, 2 RGBA                          varints L sizes in bytes, z_1 first
    1       lanes of the message                              varint  size of alpha in bytes
    8       fingerprint of the model                          ...     payload: the message, as long as the sizes' sum
    varint  width, pixels                                     ...     alpha
                                                              4       CRC-32 of all the bytes before

Numbers are little-endian; a varint has seven bits in each byte, lowest first, and the top bit set in all but the last.
All levels share one message, so a level's size is its share of the payload and not a place in it.
"""

import zlib
from typing import NamedTuple

VERSION = 1
MAGIC = b"NLVC"
MODES = ("L", "RGB", "RGBA")
MAX_PIXELS = 1 << 31
MAX_LEVELS = 16
MAX_LANES = 255
_FIXED = len(MAGIC) + 3 + 8
_CRC = 4
_VARINT_BYTES = 6


class BitstreamError(ValueError):
    """These bytes are no `.nlvc` file that this version can read, or no such file can be written."""


class Header(NamedTuple):
    """What a file says of itself.

    Attributes:
      version: 1.
      width, height: of the picture in pixels, at least 1, their product at most 2**31.
      mode: "L", "RGB" or "RGBA", as Pillow names them.
      fingerprint: 16 lower-case hexadecimal digits that name the model.
      lanes: of the message, in 1..255.
      level_bytes: each level's share of the payload in bytes, z_1 first, 1 to 16 of them.
      alpha_bytes: size of the alpha plane's own code; 0 unless mode is "RGBA".
    """

    version: int
    width: int
    height: int
    mode: str
    fingerprint: str
    lanes: int
    level_bytes: tuple[int, ...]
    alpha_bytes: int = 0


def pack(header: Header, payload: bytes, alpha: bytes = b"") -> bytes:
    """The bytes of a file.

    Raises:
      BitstreamError: for a header outside its limits, or sizes that are not those of payload and alpha.
    """
    _check(header)
    if sum(header.level_bytes) != len(payload):
        raise BitstreamError(f"level sizes sum to {sum(header.level_bytes)} but the payload has {len(payload)} bytes")
    if header.alpha_bytes != len(alpha):
        raise BitstreamError(f"alpha is said to have {header.alpha_bytes} bytes but has {len(alpha)}")
    numbers = (header.width, header.height, len(header.level_bytes), *header.level_bytes, header.alpha_bytes)
    fixed = bytes((header.version, MODES.index(header.mode), header.lanes)) + bytes.fromhex(header.fingerprint)
    body = MAGIC + fixed + b"".join(map(_varint, numbers)) + bytes(payload) + bytes(alpha)
    return body + zlib.crc32(body).to_bytes(_CRC, "little")


def unpack(data: bytes) -> tuple[Header, bytes, bytes]:
    """(header, payload, alpha) of a complete file; undoes `pack`.

    Raises:
      BitstreamError: for a foreign, newer, truncated, lengthened or damaged file.
    """
    data = bytes(data)
    header, begin = _parse(data)
    middle = begin + sum(header.level_bytes)
    end = middle + header.alpha_bytes
    if len(data) < end + _CRC:
        raise BitstreamError(f"truncated .nlvc file: {len(data)} bytes of {end + _CRC}; copy it again")
    if len(data) > end + _CRC:
        raise BitstreamError(f"{len(data) - end - _CRC} bytes follow the end of the .nlvc file; copy it again")
    if zlib.crc32(data[:end]) != int.from_bytes(data[end:], "little"):
        raise BitstreamError("damaged .nlvc file: its checksum does not match; copy it again")
    return header, data[begin:middle], data[middle:end]


def read_header(data: bytes) -> Header:
    """The header alone, from a file or its beginning (256 bytes are always enough). The checksum is not looked at.

    Raises:
      BitstreamError: for a foreign, newer or truncated file, or a header outside its limits.
    """
    return _parse(bytes(data))[0]


def _parse(data):
    if data[: len(MAGIC)] != MAGIC[: len(data)] or not data:
        raise BitstreamError("not an .nlvc file: it does not begin with NLVC")
    if len(data) > len(MAGIC) and data[len(MAGIC)] > VERSION:
        raise BitstreamError(f"this .nlvc file has version {data[len(MAGIC)]}, newer than {VERSION}; update nlvc")
    if len(data) < _FIXED:
        raise BitstreamError("truncated .nlvc file: it ends inside the header; copy it again")
    version, mode, lanes = data[len(MAGIC) : len(MAGIC) + 3]
    if mode >= len(MODES):
        raise BitstreamError(f"damaged .nlvc header: unknown mode {mode}")
    width, at = _read_varint(data, _FIXED)
    height, at = _read_varint(data, at)
    levels, at = _read_varint(data, at)
    if not 1 <= levels <= MAX_LEVELS:
        raise BitstreamError(f"a file has 1 to {MAX_LEVELS} levels, got {levels}")
    sizes = []
    for _ in range(levels + 1):
        size, at = _read_varint(data, at)
        sizes.append(size)
    fingerprint = data[_FIXED - 8 : _FIXED].hex()
    header = Header(version, width, height, MODES[mode], fingerprint, lanes, tuple(sizes[:-1]), sizes[-1])
    _check(header)
    return header, at


def _check(header):
    if header.version != VERSION:
        raise BitstreamError(f"version must be {VERSION}, got {header.version}")
    if header.mode not in MODES:
        raise BitstreamError(f"mode must be one of {', '.join(MODES)}, got {header.mode!r}")
    if header.width < 1 or header.height < 1 or header.width * header.height > MAX_PIXELS:
        raise BitstreamError(f"a picture has 1 to 2**31 pixels, got {header.width}x{header.height}")
    if not 1 <= header.lanes <= MAX_LANES:
        raise BitstreamError(f"a message has 1 to {MAX_LANES} lanes, got {header.lanes}")
    if not 1 <= len(header.level_bytes) <= MAX_LEVELS:
        raise BitstreamError(f"a file has 1 to {MAX_LEVELS} levels, got {len(header.level_bytes)}")
    if any(not 0 <= size < 1 << 7 * _VARINT_BYTES for size in (*header.level_bytes, header.alpha_bytes)):
        raise BitstreamError("a size in the header is negative or too large")
    if header.alpha_bytes and header.mode != "RGBA":
        raise BitstreamError(f"mode {header.mode} cannot have {header.alpha_bytes} bytes of alpha")
    if len(header.fingerprint) != 16 or set(header.fingerprint) - set("0123456789abcdef"):
        raise BitstreamError(f"a fingerprint is 16 lower-case hexadecimal digits, got {header.fingerprint!r}")


def _varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _read_varint(data, at):
    number = 0
    for step in range(_VARINT_BYTES):
        if at + step >= len(data):
            raise BitstreamError("truncated .nlvc file: it ends inside the header; copy it again")
        number |= (data[at + step] & 0x7F) << 7 * step
        if data[at + step] < 0x80:
            if step and not data[at + step]:
                break
            return number, at + step + 1
    raise BitstreamError("damaged .nlvc header: a number is not in its shortest form")

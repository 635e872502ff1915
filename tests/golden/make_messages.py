"""Writes messages.json: python tests/golden/make_messages.py

Only for a deliberate change of format, which must then raise bitstream.VERSION: files of the old one become unreadable.
"""

import json
from pathlib import Path

import numpy as np

from nlvc.coding import bitstream, codecs, rans, tables


def message(family, lanes, symbols, indices):
    codec = codecs.indexed(tables.scale_tables(family), np.array(indices), kernels=False)
    return codec.push(rans.empty_message(lanes), np.array(symbols))


def main():
    rng = np.random.default_rng(0)
    cases = []
    for family, lanes in [("gaussian", 2), ("logistic", 1), ("laplace", 8)]:
        indices = rng.integers(0, 64, 41)
        symbols = np.rint(rng.normal(0, tables.SCALES[indices])).astype(int)
        symbols[[3, 11, 12]] = [-(2**31), 2**31 - 1, 300]
        case = {"family": family, "lanes": lanes, "symbols": symbols.tolist(), "indices": indices.tolist()}
        words = rans.flatten(message(family, lanes, case["symbols"], case["indices"]))
        cases.append({**case, "words": words.tolist()})
    checksums = {family: tables.scale_tables(family).checksum for family in tables.FAMILIES}
    streams = [
        [rans.to_bytes(message("gaussian", 2, cases[0]["symbols"][part], cases[0]["indices"][part]))]
        for part in (slice(8), slice(8, 20))
    ]
    header = bitstream.Header(0, 19, 7, "RGBA", "0123456789abcdef", lanes=2, levels=2, tile=64)
    file = bitstream.pack(header, streams, {"eXIF": b"Exif", "ALPH": b"abc"})
    golden = {"checksums": checksums, "messages": cases, "file": file.hex()}
    Path(__file__).with_name("messages.json").write_text(json.dumps(golden, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

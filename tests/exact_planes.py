"""What the golden files decode to and all that is seen on the way, here or in a process with other settings.

`python tests/exact_planes.py FILE...` prints, as JSON, the device of a process and what it makes of the files; golden
pictures whose files are not there yet are coded first. A file of the name of noise need not be there.
"""

import hashlib
import json
import math
import sys
from pathlib import Path

import jax
import numpy as np
from golden.make_files import picture

from nlvc import coding, image_codec
from nlvc.image_codec.coder import in_units, pop, reconstruct
from nlvc.image_codec.tiles import Box, Grid

GOLDEN = Path(__file__).parent / "golden"
# As in golden/make_files.py.
PICTURES = {
    "grey": picture(37, 50, 1, seed=0),
    "alpha": picture(24, 31, 4, seed=1),
    "tiles": picture(70, 95, 3, seed=2),
}


def coded_in(path: Path, model):
    """What `decoded` needs for a file, or for noise: (grid, function that gives the symbols of a tile)."""
    if path.stem == "noise":
        return noise(model)
    file = coding.unpack(path.read_bytes())
    grid = image_codec.grid_of(model, file.header.height, file.header.width, file.header.tile)
    return grid, lambda level, tile, tables, indices: pop(file.stream(level, tile), tables, indices)


def known(seen: dict[str, np.ndarray], grid: Grid):
    """The same for any grid, if the planes are known."""
    return grid, lambda level, tile, *_: grid.box(level, tile).of(seen[f"symbols {level}"])


def noise(model):
    """The same for symbols that nobody coded, small ones and large: enough of them that a rare rounding shows, too."""
    grid, rng = Grid(model.config, 512, 512, 256), np.random.default_rng(0)
    shapes = [(*grid.shape(level), channels) for level, channels in enumerate(model.config.level_channels, start=1)]
    symbols = [np.rint(rng.laplace(0, 1, shape) ** 3).astype(np.int64) for shape in shapes]
    return known({f"symbols {level}": plane for level, plane in enumerate(symbols, start=1)}, grid)


def decoded(model, grid, symbols_of) -> dict[str, np.ndarray]:
    """What `coder.decode` makes of symbols and all that it sees on the way, as planes of the whole picture."""
    seen, above = {}, None
    for level in range(grid.config.L, 0, -1):
        shape = (*grid.shape(level), grid.config.level_channels[level - 1])
        indices, means, symbols = planes = [np.empty(shape, np.int64) for _ in range(3)]
        for tile in range(math.prod(grid.tiles)):
            box = grid.box(level, tile)
            tables, *found = model.conditional(grid, level, above, box)
            for plane, values in zip(planes, [*found, symbols_of(level, tile, tables, found[0])], strict=True):
                box.of(plane)[:] = values
        above = in_units(symbols, means)
        seen |= {f"indices {level}": indices, f"means {level}": means, f"symbols {level}": symbols, f"z {level}": above}
    whole = Box(0, 0, grid.height, grid.width)
    pixels, preview = (reconstruct(model, grid, above, whole, preview=small) for small in (False, True))
    return seen | {"pixels": pixels, "preview": preview}


def digests(seen: dict[str, np.ndarray]) -> dict[str, str]:
    """One for each plane, so that a difference shows where it begins."""
    planes = {name: np.ascontiguousarray(plane, np.int64) for name, plane in seen.items()}
    return {name: f"{plane.shape} {hashlib.sha256(plane).hexdigest()}" for name, plane in planes.items()}


def main(*paths: str) -> None:
    model, found = image_codec.load(GOLDEN / "model.safetensors"), {}
    for path in map(Path, paths):
        if path.stem in PICTURES and not path.exists():
            path.write_bytes(image_codec.compress(PICTURES[path.stem], model=model))
        found[str(path)] = digests(decoded(model, *coded_in(path, model)))
    print(json.dumps({"device": jax.devices()[0].platform, "planes": found}))


if __name__ == "__main__":
    main(*sys.argv[1:])

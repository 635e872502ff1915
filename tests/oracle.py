"""The frozen networks once more in NumPy and int64, written from the docstrings: every sum is spelled out."""

import numpy as np

from nlvc.models.frozen import LATENT_LIMIT, ROOTS, STREAM_LIMIT
from nlvc.models.layers import depth_to_space


class Oracle:
    """The arithmetic of `nlvc.models.frozen` for arrays of one network."""

    def __init__(self, arrays):
        self.arrays = {name: np.asarray(value, np.int64) for name, value in arrays.items()}

    def scaled(self, name, x):
        fields = ("limit", "before", "multiplier", "after")
        limit, before, multiplier, after = (self.arrays[f"{name}/{field}"] for field in fields)
        x = np.clip(x, -limit, limit)
        x = np.floor_divide(x + 2**before // 2, 2**before)
        product = x * multiplier
        assert np.all(np.abs(product) < 2**30)
        return np.floor_divide(product + 2**after // 2, 2**after)

    def sums(self, name, x):
        kernel, bias = self.arrays[f"{name}/kernel"], self.arrays[f"{name}/bias"]
        size = kernel.shape[0]
        height, width = x.shape[1] - size + 1, x.shape[2] - size + 1
        total = np.zeros((x.shape[0], height, width, kernel.shape[3]), np.int64) + bias
        for down in range(size):
            for right in range(size):
                total += x[:, down : down + height, right : right + width] @ kernel[down, right]
        assert np.all(np.abs(total) < 2**30)
        return total

    def enter(self, name, z, layout=lambda z: z):
        z = np.clip(np.asarray(layout(z), np.int64), -LATENT_LIMIT, LATENT_LIMIT)
        return np.clip(self.scaled(name, z), -128, 127)

    def rescale(self, name, z):
        z = self.scaled(name, np.clip(np.asarray(z, np.int64), -LATENT_LIMIT, LATENT_LIMIT))
        return np.clip(z, -LATENT_LIMIT, LATENT_LIMIT)

    def convolve(self, name, x, block=1):
        return depth_to_space(np.clip(self.scaled(name, self.sums(name, x)), -128, 127), block)

    def activate(self, name, x):
        return self.arrays[f"{name}/table"][x + 128]

    def normalise(self, name, x):
        x = np.maximum(x, -127)
        power = (x * x) @ self.arrays[f"{name}/gamma"] + self.arrays[f"{name}/beta"]
        assert np.all(power < 2**30)
        root = self.arrays[f"{name}/root"][np.clip(self.scaled(f"{name}/power", power), 0, ROOTS - 1)]
        return np.clip(self.scaled(name, x * root), -128, 127)

    def widen(self, name, _, x, block=1):
        return depth_to_space(self.scaled(name, self.sums(name, x)), block)

    def add(self, _, x, y, margin=2):
        return x[:, margin : x.shape[1] - margin, margin : x.shape[2] - margin] + y

    def narrow(self, name, stream):
        x = np.clip(stream, -STREAM_LIMIT, STREAM_LIMIT) + self.arrays[f"{name}/bias"]
        return np.clip(self.scaled(name, x), -128, 127)

    def finish(self, name, x):
        return self.scaled(name, self.sums(name, x))

    def linear(self, name, z):
        weights = 256 * self.arrays[f"{name}/high"] + self.arrays[f"{name}/low"]
        largest = self.arrays[f"{name}/largest"]
        return self.scaled(name, np.clip(np.asarray(z, np.int64), -largest, largest) @ weights)

    def lap(self, name, x, block, inside):
        x, half = depth_to_space(x, block).copy(), block // 2
        for axis, some in zip((1, 2), inside, strict=True):
            lines = np.moveaxis(x, axis, 0)  # a view
            for number in range(len(lines) // block - 1):
                if some is not None and not some[number]:
                    continue
                border = (number + 1) * block
                after, before = border + np.arange(half), border - 1 - np.arange(half)
                even, odd = lines[after] + lines[before], lines[after] - lines[before]
                odd = np.moveaxis(self.linear(name, np.moveaxis(odd, 0, -1)), -1, 0)
                lines[after], lines[before] = np.floor_divide(even + odd + 1, 2), np.floor_divide(even - odd + 1, 2)
        return x

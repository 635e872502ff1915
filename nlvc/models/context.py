"""What p(z_1 | z_2) is given of z_1 itself: the rivals of a longer chain.

    spatial   a serial autoregressive model: each position sees those above and to its left (Minnen et al. 2018)
    channel   channel-conditional: each slice of channels sees those before (Minnen & Singh 2020, without its latent
              residual prediction)

Both are networks over 5 x 5 positions of z_1, at zero where nothing is decoded; outside a tile nothing is. Here is
their frozen form, over an arithmetic (`models.frozen`); the trained one is `transforms.Context`.
"""

import numpy as np

from nlvc.config import Config
from nlvc.models.frozen import Arithmetic, level_hidden, level_told

SIZE = 5
"""Of the kernels that look at z_1."""
REACH = SIZE // 2
SLICES = 5
"""Of the channels: 30 in each of 150, where Minnen & Singh have 32 in each of 320."""


def parts(config: Config) -> list[slice]:
    """The channels of z_1 that each network speaks of, in the order in which they are decoded."""
    if config.context == "none":
        return []
    channels, count = config.level_channels[0], 1 if config.context == "spatial" else SLICES
    ends = [channels * part // count for part in range(count + 1)]
    return [slice(*pair) for pair in zip(ends, ends[1:], strict=False) if pair[0] < pair[1]]


def seen(config: Config, part: int) -> int:
    """How many channels of z_1, from the first, the network of a part looks at."""
    return config.level_channels[0] if config.context == "spatial" else parts(config)[part].start


def hyper(a: Arithmetic, config: Config, above) -> tuple:
    """z_2 in units, with its margin -> what `level_told` gives, and for each part a stream of what z_2 says to it.

    The streams have one position more on each side.
    """
    hidden = level_hidden(a, config, 1, above)
    streams = [a.widen(f"context_{n}/Hyper", f"context_{n}", hidden) for n in range(len(parts(config)))]
    return *level_told(a, config, 1, hidden, above), streams


def changes(a: Arithmetic, config: Config, part: int, stream, decoded):
    """What is added to the parameters of p(z_1|z_2) of a part's channels: means, then log scales, in units.

    decoded: z_1 in units with REACH positions around it, zero where nothing is decoded; the channels that are `seen`.
    """
    name = f"context_{part}"
    if seen(config, part):
        looked = a.widen(f"{name}/Seen", name, a.enter(f"{name}/enter", decoded))
        stream = a.add(name, stream, looked, 0)
    x = a.activate(f"{name}/narrow", a.narrow(f"{name}/narrow", stream))
    x = a.activate(f"{name}/Conv_0", a.convolve(f"{name}/Conv_0", x))
    return a.finish(f"{name}/Conv_1", x)


def order(config: Config, height: int, width: int) -> list[tuple]:
    """Indices into z_1 (height, width, C), in the order of decoding: what is at one index is decoded at once.

    Of a spatial context these are not single positions: a position sees two to the right in the row above, so that all
    on a line of slope 3 are known together.
    """
    if config.context == "channel":
        return [np.s_[:, :, channels] for channels in parts(config)]
    lines = []
    for line in range(width + (REACH + 1) * (height - 1)):
        first = max(0, -(-(line - width + 1) // (REACH + 1)))
        rows = np.arange(first, min(height - 1, line // (REACH + 1)) + 1)
        lines.append((rows, line - (REACH + 1) * rows))
    return lines

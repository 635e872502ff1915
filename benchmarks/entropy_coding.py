"""Speed and size of the entropy coder, against constriction's AnsCoder and, where it can be imported, Craystack.

    python benchmarks/entropy_coding.py                       about 10 s; with Craystack about 20 s
    PYTHONPATH=PATH_TO_CRAYSTACK python benchmarks/entropy_coding.py

300,000 symbols, each a zero-mean Gaussian's unit bin at one of 64 scales, all scales equally often: every symbol has
its own distribution, as the latents of an image have. All coders get the same symbols and take turns. Times are medians
of CPU time, so that other work on the machine disturbs less, and reach from the arrays of symbols and scales to the
array of words and back. constriction gets the scale of each symbol and integrates the density as it codes, on the
support -500..500 (its file may be smaller than our ideal: it knows that nothing lies beyond). Craystack gets our
tables, on 16 lanes, and must make the very same words. The goals: push and pop at least 5 times as fast as
constriction's, 100 times Craystack's; on the default lanes at most 0.1 % and 16 bytes over the ideal.
"""

import argparse
import importlib.util
import time

import numpy as np

from nlvc.coding import codecs, rans, tables

CRAYSTACK_LANES = 16
REACH = 500


def ours(lanes):
    table = tables.scale_tables("gaussian")

    def push(symbols, indices):
        return rans.flatten(codecs.indexed(table, indices).push(rans.empty_message(lanes), symbols))

    def pop(words, indices):
        return codecs.indexed(table, indices).pop(rans.unflatten(words, lanes))[1]

    return push, pop


def constriction_ans():
    import constriction

    family = constriction.stream.model.QuantizedGaussian(-REACH, REACH)

    def push(symbols, indices):
        coder = constriction.stream.stack.AnsCoder()
        coder.encode_reverse(symbols, family, np.zeros(len(symbols)), tables.SCALES[indices])
        return coder.get_compressed()

    def pop(words, indices):
        coder = constriction.stream.stack.AnsCoder(words)
        return coder.decode(family, np.zeros(len(indices)), tables.SCALES[indices])

    return push, pop


def craystack_ans():
    """Row by row, with every symbol looked up in one step: as fast as Craystack's own interface can be driven."""
    import craystack

    table = tables.scale_tables("gaussian")
    place_at = np.stack([np.repeat(np.arange(table.size[k] + 1), table.counts(k)) for k in range(len(table))])

    def row_codec(indices):
        first, offset = table.first[indices], table.offset[indices]

        def interval(symbols):
            at = offset + symbols - first
            return table.cdf[at], table.cdf[at + 1] - table.cdf[at]

        return craystack.NonUniform(interval, lambda position: place_at[indices, position] + first, 16)

    def push(symbols, indices):
        message = craystack.base_message(CRAYSTACK_LANES)
        for begin in reversed(range(0, len(symbols), CRAYSTACK_LANES)):
            row = slice(begin, begin + CRAYSTACK_LANES)
            (message,) = row_codec(indices[row]).push(message, symbols[row])
        return craystack.flatten(message)

    def pop(words, indices):
        message = craystack.unflatten(words, (CRAYSTACK_LANES,))
        symbols = np.empty(len(indices), np.int32)
        for begin in range(0, len(indices), CRAYSTACK_LANES):
            row = slice(begin, begin + CRAYSTACK_LANES)
            message, symbols[row] = row_codec(indices[row]).pop(message)
        return symbols

    return push, pop


def measure(coders, symbols, indices, repetitions):
    """{name: (median seconds of push, of pop, words)}; the coders take turns, after one turn that is not counted."""
    times, words = {name: [] for name in coders}, {}
    for turn in range(repetitions + 1):
        for name, (push, pop) in coders.items():
            begin = time.process_time()
            words[name] = push(symbols, indices)
            middle = time.process_time()
            popped = pop(words[name], indices)
            end = time.process_time()
            if not np.array_equal(popped, symbols):
                raise SystemExit(f"{name} did not give its symbols back")
            if turn:
                times[name].append((middle - begin, end - middle))
    return {name: (*np.median(times[name], 0), words[name]) for name in coders}


def report(measured, count, ideal, rival):
    """One line a coder; ideal in bytes."""
    print(f"{'':<22}{'ns/symbol':>16}{'Msymbols/s':>16}{'times ' + rival:>26}{'bytes':>10}{'over the ideal':>20}")
    print(f"{'':<22}" + f"{'push':>8}{'pop':>8}" * 2 + f"{'push':>18}{'pop':>8}")
    for name, (push, pop, words) in measured.items():
        nanoseconds = f"{1e9 * push / count:8.1f}{1e9 * pop / count:8.1f}"
        speed = f"{1e-6 * count / push:8.1f}{1e-6 * count / pop:8.1f}"
        ratio = f"{measured[rival][0] / push:18.1f}{measured[rival][1] / pop:8.1f}"
        size = 4 * len(words)
        print(f"{name:<22}{nanoseconds}{speed}{ratio}{size:10}{size - ideal:+8.0f} B{100 * (size / ideal - 1):+8.4f} %")


def sample(count):
    """(symbols, indices): int32 symbols by the Gaussian of the scale that each index names."""
    rng = np.random.default_rng(0)
    indices = rng.integers(0, len(tables.SCALES), count)
    return np.rint(rng.normal(0, tables.SCALES[indices])).astype(np.int32).clip(-REACH, REACH), indices


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--symbols", type=int, default=300_000)
    parser.add_argument("--repetitions", type=int, default=11)
    arguments = parser.parse_args()
    count = arguments.symbols

    table = tables.scale_tables("gaussian")
    symbols, indices = sample(count)
    ideal = tables.ideal_bits(table, symbols, indices).sum() / 8
    print(f"{count} symbols, 64 scales, {8 * ideal / count:.4f} bits each by the integer tables")
    print(f"{codecs.LANES} lanes are nlvc's default")
    coders = {f"nlvc, lanes: {lanes}": ours(lanes) for lanes in sorted({codecs.LANES, 1, 2, 4, 8, 16})}
    coders["constriction"] = constriction_ans()
    report(measure(coders, symbols, indices, arguments.repetitions), count, ideal, "constriction")

    if not importlib.util.find_spec("craystack"):
        print("\nCraystack cannot be imported here: put its checkout on PYTHONPATH to compare with it")
        return
    # Craystack has no escape, so it gets what lies inside the tables, and whole rows only.
    count -= count % CRAYSTACK_LANES
    symbols, indices = symbols[:count], indices[:count]
    symbols = symbols.clip(table.first[indices], table.first[indices] + table.size[indices] - 1)
    ideal = tables.ideal_bits(table, symbols, indices).sum() / 8
    coders = {f"nlvc, lanes: {CRAYSTACK_LANES}": ours(CRAYSTACK_LANES), "craystack": craystack_ans()}
    measured = measure(coders, symbols, indices, min(arguments.repetitions, 3))
    print()
    report(measured, count, ideal, "craystack")
    same = np.array_equal(*(words for _, _, words in measured.values()))
    print(f"the words of both are {'the same' if same else 'NOT THE SAME'}")


if __name__ == "__main__":
    main()

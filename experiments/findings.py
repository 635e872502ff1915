"""The claims of the paper, one by one, with what the other experiments have measured of them.

    python experiments/findings.py --budget small --photos kodak=KODAK turbine=TURBINE --out OUT

Trains and measures nothing: it reads the tables that levels.py, geometry.py, best_levels.py and complexity.py left in
OUT, and leaves findings.md there. A claim is supported if the 95 % interval of its effect has the sign that it says,
not supported if it has the other one, and else undecided.
"""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from effects import Effect, verdict
from study import Study, parser
from tables import interval, markdown

from nlvc.files import write_whole

HIGH = 1.0
"""Bits per pixel from which a rate counts as high."""


def main() -> None:
    """The command."""
    given = parser(__doc__).parse_args()
    study = Study(given.out, given.budget, given.data, given.photos)
    rows = [row for photos in study.sets for row in claims(given.out, photos.name)]
    text = f"# The claims of the paper\n\nBudget: {given.budget}.\n\n{of(rows)}\n"
    write_whole(given.out / "findings.md", text.encode())
    print(text)


def of(rows: Sequence[tuple]) -> str:
    """The table of findings."""
    return markdown(["photos", "claim", "measured", "effect [95 % interval]", "verdict"], rows)


def claims(out: Path, photos: str) -> Iterator[tuple]:
    """Rows of the table for one set of photos."""
    levels = read(out / f"levels-{photos}.csv")
    claim = "more levels need less rate than the hyperprior"
    for row in levels:
        if row["against"] == "L=2 logistic" and (row["prior"], row["context"]) == ("logistic", "none"):
            if int(row["L"]) > 2:
                yield photos, claim, f"L = {row['L']} against 2, BD-rate, %", *judged(row, -1)
    claim = "for large L a trainable p(z_L) hurts, and the predefined logistic helps"
    for row in levels:
        if row["against"] == "logistic of the same L" and int(row["L"]) > 2:
            yield photos, claim, f"{row['prior']} against logistic, L = {row['L']}, BD-rate, %", *judged(row, +1)
    claim = "common dimensionality helps"
    for row in read(out / f"geometry-{photos}.csv"):
        if row["flag"] == "dims":
            yield photos, claim, f"tapered against common, L = {row['L']}, BD-rate, %", *judged(row, +1)
    yield from best(out, photos)
    claim = "near autoregressive quality at a fraction of its time"
    seconds = {row["name"]: float(row["decode_wall"]) for row in read(out / "complexity.csv")}
    for row in levels:
        if row["against"] == "serial context":
            own, serial = seconds.get(f"L = {row['L']}"), seconds.get("L = 2, spatial context")
            time = f"; decodes in {own / serial:.2f} of its time" if own and serial else ""
            yield photos, claim, f"L = {row['L']} against the serial context, BD-rate, %{time}", *judged(row, -1)


def best(out: Path, photos: str) -> Iterator[tuple]:
    """Of the claim that four levels are the best at high rates."""
    rates: dict[tuple, dict[str, float]] = {}
    for row in read(out / f"best_levels-{photos}.csv"):
        if float(row["bpp"]) >= HIGH and known(row):
            rates.setdefault((row["channels"], row["bpp"]), {})[row["L"]] = float(row["share"])
    for (channels, rate), shares in rates.items():
        if (four := shares.get("L = 4")) is not None:
            winner = max(shares, key=shares.get)
            told = "supported" if four > 0.95 else "not supported" if four < 0.05 else "undecided"
            measured = f"at {float(rate):.2f} bpp with {channels} channels, of the draws it is the best in"
            found = f"{four:.0%} ({winner}: {shares[winner]:.0%})"
            yield photos, "L = 4 is the best at high rates", measured, found, told


def known(row: dict) -> bool:
    """Whether the curve of this L reaches the rate."""
    return row["share"] not in ("", "nan")


def judged(row: dict, sign: int) -> tuple[str, str]:
    """An effect with its interval, and its verdict for the claim that it has a sign."""
    kinds = Effect.__annotations__
    its = Effect(**{field: kinds[field](row[field] or "nan") for field in Effect._fields})
    return interval(its), verdict(its, sign)


def read(path: Path) -> list[dict]:
    """The rows of an experiment's table; none where it has not been run."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    main()

"""What the claims are judged by: tables as the experiments write them."""

import math

import pytest
from effects import Effect
from findings import claims

from nlvc.files import write_csv


def effect(low, high):
    return Effect((low + high) / 2, low, high, 0.01, 0.5, math.nan, 3, 12, 0)._asdict()


@pytest.fixture
def out(tmp_path):
    """Tables of a set called "set"."""
    chain = {"prior": "logistic", "context": "none"}
    write_csv(tmp_path / "levels-set.csv", [
        {"L": 1, **chain, "against": "L=2 logistic", **effect(3, 5)},
        {"L": 3, **chain, "against": "L=2 logistic", **effect(-3, -1)},
        {"L": 3, **chain, "prior": "factorized", "against": "L=2 logistic", **effect(1, 2)},
        {"L": 3, **chain, "prior": "factorized", "against": "logistic of the same L", **effect(-1, 2)},
        {"L": 3, **chain, "against": "serial context", **effect(1, 4)},
    ])  # fmt: skip
    write_csv(tmp_path / "geometry-set.csv", [
        {"L": 3, "flag": "dims", **effect(1, 2)}, {"L": 3, "flag": "strides", **effect(1, 2)}
    ])  # fmt: skip
    write_csv(tmp_path / "complexity.csv", [
        {"name": "L = 3", "decode_wall": 0.5}, {"name": "L = 2, spatial context", "decode_wall": 2.0}
    ])  # fmt: skip
    return tmp_path


def test_claims_are_judged_by_their_intervals(out):
    found = [(measured, effect, told) for _, _, measured, effect, told in claims(out, "set")]
    assert found == [
        ("L = 3 against 2, BD-rate, %", "-2.00 [-3.00, -1.00]", "supported"),
        ("factorized against logistic, L = 3, BD-rate, %", "+0.50 [-1.00, +2.00]", "undecided"),
        ("tapered against common, L = 3, BD-rate, %", "+1.50 [+1.00, +2.00]", "supported"),
        ("L = 3 against the serial context, BD-rate, %; decodes in 0.25 of its time", "+2.50 [+1.00, +4.00]",
         "not supported"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("share", "words", "told"),
    [(0.97, "97% (L = 4: 97%)", "supported"), (0.4, "40% (L = 2: 60%)", "undecided"),
     (0.01, "1% (L = 2: 99%)", "not supported")],
)  # fmt: skip
def test_four_levels_are_judged_by_how_often_they_are_best(out, share, words, told):
    write_csv(out / "best_levels-set.csv", [
        {"channels": 150, "bpp": 0.5, "L": "L = 4", "share": 1.0},  # not a high rate
        {"channels": 150, "bpp": 1.2, "L": "L = 2", "share": 1 - share},
        {"channels": 150, "bpp": 1.2, "L": "L = 4", "share": share},
        {"channels": 150, "bpp": 2.0, "L": "L = 4", "share": math.nan},
        {"channels": 320, "bpp": 1.2, "L": "L = 2", "share": 0.0},
        {"channels": 320, "bpp": 1.2, "L": "L = 4", "share": 1.0},
    ])  # fmt: skip
    found = [row[2:] for row in claims(out, "set") if row[1].startswith("L = 4")]
    assert found == [
        ("at 1.20 bpp with 150 channels, of the draws it is the best in", words, told),
        ("at 1.20 bpp with 320 channels, of the draws it is the best in", "100% (L = 4: 100%)", "supported"),
    ]


def test_what_was_not_run_is_left_out(tmp_path):
    assert list(claims(tmp_path, "set")) == []

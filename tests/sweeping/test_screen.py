"""What is shown: a table in its place on a terminal, lines elsewhere."""

import io

import pytest

from nlvc.sweeping import screen
from nlvc.sweeping.progress import CODING, DONE, FAILED, TRAINING, WAITING, Progress, one_line

FIGURES = {"loss": 1.2345, "bpp": 0.5678, "psnr": 30.123, "images_per_second": 12.3, "seconds_left": 3725.0}


def told(cell, state=TRAINING, step=40, **changes):
    return Progress(cell, state, step, 100, **{**FIGURES, **changes})


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_table():
    lines = screen.table([told("a"), Progress("bb", WAITING), told("c", FAILED, text="why")], 24).splitlines()
    assert lines == [
        "cell  state       step   loss    bpp  PSNR dB  images/s     left",
        "----  --------  ------  -----  -----  -------  --------  -------",
        "a     training  40/100  1.234  0.568    30.12      12.3  1:02:05",
        "bb    waiting",
        "c     failed    40/100  1.234  0.568    30.12      12.3",
        "3 cells: 1 training, 1 waiting, 1 failed",
    ]


def test_a_low_terminal_shows_the_cells_at_work():
    newest = [*(told(f"d{n}", DONE) for n in range(9)), told("x"), told("y", CODING), Progress("w", WAITING)]
    lines = screen.table(newest, 7).splitlines()
    assert len(lines) == 7
    assert [line.split()[0] for line in lines[2:-1]] == ["d0", "x", "y", "w"]
    assert lines[-1] == "12 cells: 9 done, 1 training, 1 coding, 1 waiting"


def test_a_terminal_is_drawn_on_again(monkeypatch):
    monkeypatch.setattr(screen, "REDRAW", 0.0)
    out = Terminal()
    with screen.Screen(["a", "b"], out) as shown:
        shown.tell(told("a"))
        shown.tell(None)
        shown.tell(told("a", DONE, 100))
    first, *again = out.getvalue().split("\x1b[5F\x1b[J")
    assert len(again) == 3
    assert "40/100" in first and "100/100" in again[-1]
    assert "2 cells: 1 done, 1 waiting" in again[-1]


def test_elsewhere_a_cell_says_little(monkeypatch):
    out = io.StringIO()
    with screen.Screen(["a", "b"], out) as shown:
        for step in range(1, 50):
            shown.tell(told("a", step=step))
        shown.tell(told("a", DONE, 100))
        shown.tell(Progress("b", FAILED, text="why"))
        shown.tell(None)
    assert out.getvalue().splitlines() == [
        "a: training, step 1/100, loss 1.234, 0.568 bpp, 30.12 dB, 12.3 images/s, 1:02:05 left",
        "a: done, step 100/100",
        "b: failed: why",
    ]


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00:00"), (59.6, "0:01:00"), (36000, "10:00:00")])
def test_durations(seconds, text):
    assert screen.duration(seconds) == text
    assert screen.duration(float("nan")) == screen.duration(float("inf")) == ""


def test_an_error_is_one_line():
    assert one_line(ValueError("a\n  b\tc")) == "a b c"
    assert one_line(KeyboardInterrupt()) == "KeyboardInterrupt"
    assert len(one_line(ValueError("x" * 5000))) == 300

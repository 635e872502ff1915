"""The journal: one JSON line a step, and after a kill none from the future."""

import json

from nlvc.training.journal import Journal


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_a_line_is_a_step_and_its_numbers(tmp_path):
    with Journal(tmp_path, 0) as journal:
        journal.write(1, {"loss": 2.5, "bpp_1": 0.25})
        # There at once: the process may be killed.
        assert lines(tmp_path) == [{"step": 1, "loss": 2.5, "bpp_1": 0.25}]
        journal.write(2, {"validation_loss": 3.0})
    assert lines(tmp_path) == [{"step": 1, "loss": 2.5, "bpp_1": 0.25}, {"step": 2, "validation_loss": 3.0}]
    assert [path.name for path in (tmp_path / "tensorboard").iterdir() if "tfevents" in path.name] != []


def test_a_resumed_run_drops_the_lines_after_its_start(tmp_path):
    with Journal(tmp_path, 0) as journal:
        for step in (5, 10, 15, 20):
            journal.write(step, {"loss": float(step)})
            journal.write(step, {"validation_loss": float(step)})
    with Journal(tmp_path, 10) as journal:
        assert [line["step"] for line in lines(tmp_path)] == [5, 5, 10, 10]
        journal.write(15, {"loss": -1.0})
    assert [line["step"] for line in lines(tmp_path)] == [5, 5, 10, 10, 15]
    assert lines(tmp_path)[-1]["loss"] == -1.0


def test_a_fresh_start_forgets_everything(tmp_path):
    with Journal(tmp_path, 0) as journal:
        journal.write(3, {"loss": 1.0})
    with Journal(tmp_path, 0):
        pass
    assert lines(tmp_path) == []


def test_a_line_cut_by_a_kill_is_dropped(tmp_path):
    whole = '{"step": 5, "loss": 1.5}\n'
    for cut in range(1, len(whole) - 1):
        (tmp_path / "metrics.jsonl").write_text(whole + whole[:cut])
        with Journal(tmp_path, 5) as journal:
            journal.write(6, {"loss": 1.0})
        assert [line["step"] for line in lines(tmp_path)] == [5, 6]

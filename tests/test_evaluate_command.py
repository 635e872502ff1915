"""`nlvc eval` and `python -m nlvc.evaluate`: what they write, what they refuse, and how they go on."""

import importlib.util
import json
import os
import sys

import numpy as np
import pytest
from PIL import Image

from nlvc import cli, evaluate
from nlvc.evaluation import baselines, read_points

PLOTS = importlib.util.find_spec("matplotlib") is not None
"""Without matplotlib, which is no part of the tests' extra, the command says so in one more line."""
ENCODER = """
import sys
from PIL import Image
source, target, quality = sys.argv[1:]
photo = Image.open(source)
if photo.width == 48:
    sys.exit("too wide")
photo.save(target, "JPEG", quality=int(quality))
"""
DECODER = "import sys; from PIL import Image; Image.open(sys.argv[1]).save(sys.argv[2])"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where commands run: two photos in photos/, and enc.py and dec.py."""
    monkeypatch.chdir(tmp_path)
    os.mkdir("photos")
    rng = np.random.default_rng(0)
    for name, width in (("a.png", 40), ("b.png", 48)):
        waves = rng.normal(128, 40, (3, width // 8, 3)).repeat(8, axis=0).repeat(8, axis=1)
        Image.fromarray(np.clip(waves, 0, 255).astype(np.uint8)).save(f"photos/{name}")
    (tmp_path / "enc.py").write_text(ENCODER)
    (tmp_path / "dec.py").write_text(DECODER)
    return tmp_path


@pytest.fixture
def run(folder, capsys, model_file, monkeypatch):
    """run(arguments...) -> (exit status, stdout, stderr), of a tiny model unless --models is given."""
    monkeypatch.setattr(evaluate, "prepare", lambda: None)

    def call(*arguments, main=evaluate.main):
        arguments = [*arguments, "--photos", "photos"]
        if "--models" not in arguments:
            arguments += ["--models", f"tiny={model_file(rate='variable', L=1, prior='trainable-logistic')}"]
        capsys.readouterr()
        status = main(arguments)
        out, err = capsys.readouterr()
        if not PLOTS and "matplotlib" not in sys.modules:
            err = "".join(line for line in err.splitlines(keepends=True) if "no plots" not in line)
        return status, out, err

    return call


def test_both_entrances(run, folder):
    published = folder / "photos.json"
    published.write_text(json.dumps({"vtm": {"bpp": [0.1, 9], "psnr": [10, 60]}}))
    flags = "--qualities", "0", "100", "--codecs", "jpeg", "--published", str(published)
    status, out, err = run(*flags)
    assert (status, err) == (0, ""), err
    assert "tiny" in out and "jpeg" in out and "vtm (published)" in out
    assert out.splitlines()[-1] == "report: runs/eval-photos/report.html"
    results = folder / "runs" / "eval-photos"
    points = read_points(results / "points.csv")
    assert len(points) == 2 * (2 + 12)
    assert {point.codec for point in points if point.level_bpp} == {"tiny"}
    before = (results / "points.csv").read_bytes()
    assert "fingerprint" in json.loads((results / "codecs.json").read_text())["tiny"]
    page = (results / "report.html").read_text()
    assert "data:image/png" in page and "vtm" in page and "http" not in page
    status, again, err = run(*flags, main=lambda arguments: cli.main(["eval", *arguments]))
    assert (status, again, err) == (0, out, "")
    assert (results / "points.csv").read_bytes() == before


def test_a_command_that_fails_on_a_photo(run, folder):
    command = "test", f"{sys.executable} enc.py {{input}} {{output}} {{setting}}"
    command += f"{sys.executable} dec.py {{input}} {{output}}", "10,90"
    status, out, err = run("--codecs", "none", "--qualities", "50", "--codec-cmd", *command, "--out", "out")
    assert status == 1
    lines = err.splitlines()
    assert len(lines) == 2 and all(line.startswith("nlvc.evaluate: test at setting") for line in lines)
    assert all("b.png" in line and line.endswith("ended with status 1: too wide") for line in lines)
    assert len(read_points(folder / "out" / "points.csv")) == 2 + 2
    assert "lacks 1 of 2 photos" in (folder / "out" / "report.html").read_text()


def test_each_effort_is_a_curve(run, folder):
    status, out, _ = run("--codecs", "none", "--qualities", "0", "100", "--effort", "0", "1", "--out", "out")
    assert status == 0 and "tiny-effort1" in out
    points = read_points(folder / "out" / "points.csv")
    assert sorted(point.codec for point in points) == 4 * ["tiny"] + 4 * ["tiny-effort1"]
    notes = json.loads((folder / "out" / "codecs.json").read_text())
    assert notes["tiny"].endswith("effort 0") and notes["tiny-effort1"].endswith("effort 1")


def test_another_model_of_the_same_name(run, model_file):
    flags = "--codecs", "none", "--out", "out"
    assert run(*flags, "--models", f"one={model_file(L=1)}")[0] == 0
    status, _, err = run(*flags, "--models", f"one={model_file(1, L=1)}")
    assert status == 2 and len(err.splitlines()) == 1 and "points of another one" in err and "another --out" in err


def test_without_matplotlib(run, folder, model_file, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    status, out, err = run("--codecs", "none", "--models", str(model_file(L=1)), "--out", "out")
    assert status == 0 and len(err.splitlines()) == 1 and "pip install 'nlvc[experiments]'" in err
    assert sorted(path.name for path in (folder / "out").iterdir()) == [
        "codecs.json", "crops", "points.csv", "report.html",
    ]  # fmt: skip


def test_rivals_that_are_not_installed(run, model_file, monkeypatch):
    def missing():
        raise ImportError("no module")

    monkeypatch.setattr(baselines, "_RIVALS", {"jpegxl": (missing, "imagecodecs")})
    flags = "--models", str(model_file(L=1)), "--out", "out"
    status, _, err = run(*flags)
    assert status == 0 and err.splitlines() == [
        "nlvc.evaluate: left out because they are not installed: jpegxl: no module; pip install 'imagecodecs'"
    ]
    status, _, err = run(*flags, "--codecs", "jpegxl")
    assert (status, err) == (2, "nlvc.evaluate: jpegxl: no module; pip install 'imagecodecs'\n")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--codecs", "gif"), "no rival 'gif'"),
        (("--codecs", "all", "jpeg"), "takes names, or all, or none"),
        (("--codecs", "jpeg", "jpeg"), "two codecs are called jpeg"),
        (("--codec-cmd", "x", "enc {input}", "dec {input} {output}", "1"), "needs {input} and {output}"),
        (("--codec-cmd", "x", "e {input} {output}", "d {input} {output}", "a,b"), "settings are numbers"),
        (("--codec-cmd", "../x", "e {input} {output}", "d {input} {output}", "1"), "a name here has letters"),
        (("--models", "none.safetensors"), "there is no such model file"),
        (("--published", "none.json"), "none.json"),
        (("--published", "enc.py"), "enc.py: "),
    ],
)
def test_refused_in_one_line(run, flags, said):
    if "--codecs" not in flags:
        flags = (*flags, "--codecs", "none")
    status, out, err = run(*flags)
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1 and said in err and err.startswith("nlvc.evaluate: ")


@pytest.mark.parametrize(
    ("sets", "said"),
    [(["enc.py"], "no such folder"), (["photos", "photos"], "two sets are called photos"), (["../x=photos"], "a name")],
)
def test_sets_that_cannot_be(run, sets, said):
    with pytest.raises(ValueError, match=said):
        evaluate.sets_of(sets)


@pytest.mark.parametrize(
    "flags", [("--qualities", "101"), ("--crop-bpp", "0"), ("--effort", "-1"), ("--format", "xlsx")]
)
def test_wrong_flags(run, flags, capsys):
    with pytest.raises(SystemExit, match="2"):
        run(*flags)


def test_ctrl_c_says_how_to_go_on(run, monkeypatch, folder):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate, "evaluate", stop)
    status, _, err = run("--codecs", "none", "--out", "out")
    assert (status, err) == (130, "nlvc.evaluate: stopped; what is measured is in out, and the same command goes on\n")

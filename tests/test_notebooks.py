"""The notebooks: every cell runs at its smoke size, and what is kept of them is fit to be read.

Running them takes the packages of `pip install -e '.[notebooks]'`; looking at them takes none.
"""

import json
import re
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))

notebooks = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path):
    """(kind, source, outputs) of each cell."""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        yield cell["cell_type"], "".join(cell["source"]), cell.get("outputs", [])


def test_numbered():
    assert [path.name[:3] for path in NOTEBOOKS] == ["01_", "02_", "03_", "04_", "05_"]


@notebooks
def test_fit_to_be_read(path):
    text = "\n".join(source for kind, source, _ in cells(path) if kind == "markdown")
    badges = re.findall(r"colab-badge\.svg\)\]\(https://colab\.research\.google\.com/(\S+)\)", text)
    assert [badge.partition("blob/main/notebooks/")[2] for badge in badges] == [path.name]
    code = [(source, outputs) for kind, source, outputs in cells(path) if kind == "code"]
    for source, _ in code:
        assert len(source.splitlines()) <= 25, f"over a screen:\n{source}"
    assert "pip install" in code[0][0], "the first cell installs what Colab lacks"
    assert any(outputs for _, outputs in code), "kept without its pictures"
    assert not [output for _, outputs in code for output in outputs if output["output_type"] == "error"]


@notebooks
def test_kept_small_and_of_no_machine(path):
    text = path.read_text(encoding="utf-8")
    assert len(text) < 600_000
    assert not re.search(r"/(home|root|work|tmp|Users)/\w", text), "a path of somebody's machine"


@pytest.mark.slow
@notebooks
def test_runs(path, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    import nbformat

    monkeypatch.setenv("NLVC_SMOKE", "1")
    monkeypatch.setenv("PYTHONPATH", str(path.parents[1]))
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any(kind.startswith("image/") for output in outputs for kind in output.get("data", ()))

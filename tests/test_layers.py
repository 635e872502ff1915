"""Imports go down only: every file of nlvc is read, also for imports inside functions, and nothing is run.

    5  nlvc (the lazy facade), nlvc.__main__
    4  cli  train  sweep  sweeping/  evaluate  commands; they may call each other
    3  training/        evaluation/
    2  image_codec
    1  coding/          models/         data/  they do not know each other
    0  config  files  folders  process  zoo
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "nlvc"

COMMANDS = 4
FLOORS = {
    "nlvc": 5,
    "nlvc.__main__": 5,
    "nlvc.cli": COMMANDS,
    "nlvc.train": COMMANDS,
    "nlvc.sweep": COMMANDS,
    "nlvc.sweeping": COMMANDS,
    "nlvc.evaluate": COMMANDS,
    "nlvc.training": 3,
    "nlvc.evaluation": 3,
    "nlvc.image_codec": 2,
    "nlvc.coding": 1,
    "nlvc.models": 1,
    "nlvc.data": 1,
    "nlvc.config": 0,
    "nlvc.files": 0,
    "nlvc.folders": 0,
    "nlvc.process": 0,
    "nlvc.zoo": 0,
}
"""Wing -> floor. A wing is a folder or a file directly under nlvc/."""

JAX = frozenset({"jax", "jaxlib", "flax", "optax", "orbax", "chex"})
FOREIGN = {
    "nlvc.config": JAX | {"numba"},
    "nlvc.coding": JAX,
    "nlvc.coding.bitstream": JAX | {"numba"},
    "nlvc.data": JAX | {"tensorflow"},
}
"""Module, or wing for all of its modules -> the packages that it must not import, not even inside a function."""


def wing(module: str) -> str:
    """`nlvc.coding.rans` -> `nlvc.coding`; the facade is a wing of its own."""
    return ".".join(module.split(".")[:2])


def imports(tree: ast.AST, module: str, is_package: bool) -> Iterator[tuple[int, str, str | None, str | None]]:
    """Yields (line, imported module, name taken from it or None, local alias) for every import of `module`.

    Relative imports are made absolute; `from nlvc import coding` counts as an import of `nlvc.coding`, and so does
    `import_module("nlvc.coding")`.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, None, alias.asname or alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                base = ".".join([*parts[: len(parts) - node.level + is_package], *filter(None, [node.module])])
            for alias in node.names:
                if f"{base}.{alias.name}" in FLOORS:
                    yield node.lineno, f"{base}.{alias.name}", None, alias.asname or alias.name
                else:
                    yield node.lineno, base, alias.name, alias.asname or alias.name
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value, None, None


def is_private(name: str) -> bool:
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def dotted(node: ast.expr) -> str:
    """`a.b.c` as text, or an empty string where the chain does not start at a name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (rest := dotted(node.value)):
        return f"{rest}.{node.attr}"
    return ""


def complaints(source: str, module: str, is_package: bool = False) -> list[str]:
    """What the text of `module` imports against the rules: one readable line each, an empty list if all is well."""
    own = wing(module)
    if own not in FLOORS:
        return [f"{module}: stands on no floor; say in FLOORS where it belongs"]
    tree = ast.parse(source)
    forbidden = FOREIGN.get(module, FOREIGN.get(own, frozenset()))
    found, neighbours = [], set()
    for line, target, name, alias in imports(tree, module, is_package):
        here = f"{module}:{line}"
        package, other = target.split(".")[0], wing(target)
        if package in forbidden:
            found.append(f"{here}: {own} must not import {package}")
        if package != "nlvc" or other == own or (target == "nlvc" and name == "__version__"):
            continue
        if other not in FLOORS:
            found.append(f"{here}: imports {target}, which stands on no floor")
        elif FLOORS[other] > FLOORS[own]:
            found.append(f"{here}: {own} (floor {FLOORS[own]}) imports {target} from above (floor {FLOORS[other]})")
        elif FLOORS[other] == FLOORS[own] != COMMANDS:
            found.append(f"{here}: {own} imports {target} beside it (floor {FLOORS[own]}); join them on a floor above")
        if any(is_private(part) for part in [*target.split("."), *filter(None, [name])]):
            found.append(f"{here}: reaches for a private name of {other}: {'.'.join(filter(None, [target, name]))}")
        if alias:
            neighbours.add(alias)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr) and dotted(node.value) in neighbours:
            found.append(f"{module}:{node.lineno}: reaches for a private name: {dotted(node)}")
    return found


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_imports_go_down_only():
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 10, f"found only {len(files)} files under {PACKAGE}"
    found = [
        line
        for path in files
        for line in complaints(path.read_text(encoding="utf-8"), module_name(path), path.name == "__init__.py")
    ]
    assert not found, "\n" + "\n".join(found)


def test_every_folder_is_a_package():
    """Else it would be missing from what is installed, and from the check above."""
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    assert [folder for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        ("nlvc.config", "from nlvc.models import nested", "from above"),
        ("nlvc.models.loss", "import nlvc.training.loop", "from above"),
        ("nlvc.models.loss", "import nlvc", "from above"),
        ("nlvc.coding.rans", "from nlvc.data import sources", "beside it"),
        ("nlvc.coding.rans", "def f():\n    from ..models import priors", "beside it"),
        ("nlvc.data.sources", "from nlvc import coding", "beside it"),
        ("nlvc.training.loop", "from nlvc.evaluation import metrics", "beside it"),
        ("nlvc.coding.rans", "import jax.numpy as jnp", "must not import jax"),
        ("nlvc.coding.codecs", "from flax import linen", "must not import flax"),
        ("nlvc.coding.bitstream", "if True:\n    import numba", "must not import numba"),
        ("nlvc.data.pipeline", "import_module('jax')", "must not import jax"),
        ("nlvc.image_codec", "from nlvc.coding.rans import _fold", "private name"),
        ("nlvc.image_codec", "from nlvc.coding import rans\nrans._fold(1)", "private name: rans._fold"),
        ("nlvc.image_codec", "import nlvc.coding.rans\nnlvc.coding.rans._fold(1)", "private name"),
        ("nlvc.training.loop", "from nlvc.models._kernels import conv", "private name"),
        ("nlvc.attic", "", "no floor"),
        ("nlvc.cli", "from nlvc.attic import things", "no floor"),
    ],
)
def test_a_wrong_import_is_named(module, source, expected):
    found = complaints(source, module)
    assert any(expected in line for line in found), found
    assert all(line.startswith(module) for line in found)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("nlvc.coding.codecs", "import numba\nfrom nlvc.coding import rans\nfrom .rans import _fold\nrans._fold(1)"),
        ("nlvc.models.nested", "import jax\nfrom nlvc.config import Config\nfrom .priors import _tail"),
        ("nlvc.image_codec", "from nlvc.coding import rans\nfrom nlvc.models.nested import NestedLatentModel"),
        ("nlvc.sweep", "from nlvc import __version__, train\nfrom nlvc.training import loop"),
        ("nlvc.training.loop", "def f(state):\n    return state._replace(step=0), state.__class__"),
    ],
)
def test_a_right_import_passes(module, source):
    assert complaints(source, module) == []


def test_relative_imports_of_a_package_are_its_own():
    assert complaints("from .rans import push\nfrom . import codecs", "nlvc.coding", is_package=True) == []
    assert complaints("from ..data import sources", "nlvc.coding", is_package=True)

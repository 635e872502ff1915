"""`nlvc.coding` names what the other wings may use, and loads it late."""

import pytest

from nlvc import coding


def test_every_name_resolves():
    assert (
        {"Codec", "Message", "Tables", "Header", "indexed", "pack", "LANES"} <= set(coding.__all__) <= set(dir(coding))
    )
    for name in coding.__all__:
        assert getattr(coding, name) is not None


def test_an_unknown_name():
    with pytest.raises(AttributeError, match="nothing_like_it"):
        coding.nothing_like_it  # noqa: B018


def test_the_file_needs_no_coder(run_python):
    done = run_python("-c", "import sys; from nlvc.coding import unpack; print(*sys.modules)")
    assert done.returncode == 0, done.stderr
    assert not {"numpy", "numba", "scipy", "nlvc.coding.rans"} & set(done.stdout.split())

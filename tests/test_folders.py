"""Which files a command takes, and where its results go: none twice, none outside, the tree as it was."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nlvc.folders import files_in, is_folder, sources_of, targets_of

PICTURES = frozenset({".png", ".jpg"})


@pytest.fixture
def tree(tmp_path):
    """Photos, some deep in folders, some hidden, and other files."""
    root = tmp_path / "photos"
    for name in (
        "b.png", "a.JPG", "a/c.png", "a/b/c.jpg", "notes.txt", "png", "b.png.txt", ".hidden.png", ".hidden/d.png",
        "a/.git/e.png",
    ):  # fmt: skip
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (root / "folder.png").mkdir()
    return root


# --- Sources ---


def test_files_in_finds_photos_at_any_depth_in_order(tree):
    names = [path.relative_to(tree).as_posix() for path in files_in(tree, PICTURES)]
    assert sorted(names) == ["a.JPG", "a/b/c.jpg", "a/c.png", "b.png"]
    assert files_in(tree, PICTURES) == sorted(files_in(tree, PICTURES))
    assert files_in(tree, {".webp"}) == []


def test_files_in_a_hidden_folder_that_was_asked_for(tree):
    assert files_in(tree / ".hidden", PICTURES) == [tree / ".hidden" / "d.png"]


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="no links here")
def test_files_in_does_not_run_around_in_circles(tree):
    (tree / "a" / "again").symlink_to(tree, target_is_directory=True)
    assert len(files_in(tree, PICTURES)) == 4


def test_sources_of_a_folder(tree):
    assert sources_of(tree, PICTURES) == files_in(tree, PICTURES)


def test_sources_of_a_file_is_that_file_whatever_its_suffix(tree):
    for name in ("b.png", "notes.txt", "png", ".hidden.png"):
        assert sources_of(tree / name, PICTURES) == [tree / name]


def test_nothing_to_do_is_an_error(tree):
    with pytest.raises(FileNotFoundError, match="nowhere: there is no such file or folder"):
        sources_of(tree / "nowhere", PICTURES)
    with pytest.raises(ValueError, match="folder.png: no files with suffix .jpg, .png in this folder"):
        sources_of(tree / "folder.png", PICTURES)


# --- Targets ---


def target(source, output):
    (place,) = targets_of(source, [source], output, ".nlvc").values()
    return place


def test_the_target_of_a_file(tree):
    source = tree / "b.png"
    assert target(source, None) == tree / "b.nlvc"
    assert target(source, str(tree / "other.name")) == tree / "other.name"
    assert target(source, str(tree / "a")) == tree / "a" / "b.nlvc"
    # A folder that is not there yet can only be meant with a slash.
    assert target(source, f"{tree}/new/") == tree / "new" / "b.nlvc"
    assert target(source, f"{tree}/new") == tree / "new"
    assert target(tree / "png", None) == tree / "png.nlvc"


def test_is_folder(tree):
    assert is_folder(str(tree)) and is_folder("nowhere/")
    assert not is_folder("nowhere") and not is_folder(str(tree / "b.png"))


@pytest.mark.parametrize("output", [None, "results", "results/"])
def test_the_targets_of_a_folder_keep_its_tree(tree, tmp_path, output):
    output = output and f"{tmp_path}/{output}"
    root = tree if output is None else tmp_path / "results"
    targets = targets_of(tree, sources_of(tree, PICTURES), output, ".nlvc")
    assert targets == {
        tree / "a.JPG": root / "a.nlvc",
        tree / "b.png": root / "b.nlvc",
        tree / "a" / "c.png": root / "a" / "c.nlvc",
        tree / "a" / "b" / "c.jpg": root / "a" / "b" / "c.nlvc",
    }


def test_results_of_a_folder_do_not_go_into_a_file(tree):
    with pytest.raises(ValueError, match="b.png: a file, but a folder of results needs a folder"):
        targets_of(tree, sources_of(tree, PICTURES), str(tree / "b.png"), ".nlvc")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a.png", "a.jpg", "b.png"], ["a.png.nlvc", "a.jpg.nlvc", "b.nlvc"]),
        (["a.png", "a.PNG"], ["a.png.nlvc", "a.PNG.nlvc"]),
        (["a.png", "x/a.jpg"], ["a.nlvc", "x/a.nlvc"]),
        # Here "a.png.nlvc" would be the short name of one and the long name of another.
        (["a.png", "a.jpg", "a.png.png", "b.png"], ["a.png.nlvc", "a.jpg.nlvc", "a.png.png.nlvc", "b.png.nlvc"]),
    ],
)
def test_names_that_would_meet_keep_their_old_suffix(tmp_path, names, expected):
    targets = targets_of(tmp_path, [tmp_path / name for name in names], None, ".nlvc")
    assert [path.relative_to(tmp_path).as_posix() for path in targets.values()] == expected


stems = st.text("ab", min_size=1, max_size=2)
suffixes = st.lists(st.sampled_from([".png", ".jpg", ".PNG", ".nlvc", ".a"]), min_size=1, max_size=3).map("".join)
names = st.builds("{}{}{}".format, st.sampled_from(["", "a/", "b/", "a.png/"]), stems, suffixes)


@settings(max_examples=200)
@given(names=st.lists(names, min_size=1, max_size=12, unique=True), output=st.sampled_from([None, "out"]))
def test_no_two_sources_share_a_target(tmp_path_factory, names, output):
    root = tmp_path_factory.getbasetemp()
    output = output and str(root / output)
    sources = [root / name for name in names]
    targets = targets_of(root, sources, output, ".nlvc")
    assert list(targets) == sources
    assert len(set(targets.values())) == len(sources)
    for source, place in targets.items():
        assert place.parent == Path(output or root) / source.relative_to(root).parent
        assert place.name in (source.stem + ".nlvc", source.name + ".nlvc")

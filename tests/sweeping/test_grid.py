"""From words to cells: combinations, names, and what cannot be."""

from pathlib import Path

import pytest

from nlvc.config import Config, ConfigError
from nlvc.sweeping.grid import axes_of, cells_of


def cells(*words):
    return cells_of(words, Path("folder"))


def test_every_combination_is_a_cell_and_the_last_flag_changes_fastest():
    axes = ["--L", "2", "3", "--prior=logistic", "factorized", "--lmbda", "0.01", "--seed=4", "5"]
    found = cells("--preset=tiny", *axes)
    assert [cell.name for cell in found] == [
        f"L={levels},prior={prior},lmbda=0.01,seed={seed}"
        for levels in (2, 3) for prior in ("logistic", "factorized") for seed in (4, 5)
    ]  # fmt: skip
    config = found[-1].config
    assert (config.preset, config.L, config.prior, config.lmbda, config.seed) == ("tiny", 3, "factorized", 0.01, 5)
    assert all(cell.config.workdir == f"folder/{cell.name}" and not cell.error for cell in found)


def test_a_cell_is_what_nlvc_train_makes_of_its_flags():
    (cell,) = cells("--preset=paper", "--patch-size", "256", "--quantize-aware", "--strides", "16", "2", "2", "--L=3")
    flags = ["--preset=paper", "--patch-size=256", "--quantize-aware", "--strides", "16", "2", "2", "--L=3"]
    assert cell.config == Config.from_args([*flags, f"--workdir=folder/{cell.name}"])


def test_presets_bring_their_own_values():
    few, usual = cells("--preset", "tiny", "base")
    assert (few.config.channels, usual.config.channels) == (12, 150)
    assert few.name == "L=2,prior=logistic,lmbda=0.013,seed=0,preset=tiny"


def test_no_flags_are_one_cell():
    (cell,) = cells()
    assert cell.config == Config(workdir="folder/L=2,prior=logistic,lmbda=0.013,seed=0")


def test_strides_are_given_once_for_each_value():
    found = cells("--preset=tiny", "--strides", "16", "4", "--strides", "8", "4")
    assert [cell.config.strides for cell in found] == [(16, 4), (8, 4)]
    assert found[1].name == "L=2,prior=logistic,lmbda=0.013,seed=0,strides=8x4"


def test_a_switch_and_its_opposite_are_two_values():
    found = cells("--preset=tiny", "--linear-path", "--no-linear-path")
    assert [cell.config.linear_path for cell in found] == [True, False]
    assert [cell.name.rpartition(",")[2] for cell in found] == ["linear_path=on", "linear_path=off"]
    (cell,) = cells("--preset=tiny", "--no-linear-path")
    assert not cell.config.linear_path


def test_two_spellings_of_a_value_are_one_cell():
    assert len(cells("--lmbda", "0.01", "0.010", "1e-2", "--seed", "1", "1")) == 1


def test_folders_of_photos_do_not_become_folders_of_runs():
    found = cells("--data", "/a/x", "/b/x")
    assert [cell.config.data for cell in found] == ["/a/x", "/b/x"]
    assert [cell.workdir.parent for cell in found] == [Path("folder")] * 2


def test_a_combination_that_cannot_be_is_a_cell_with_an_error():
    found = cells("--preset=tiny", "--L", "2", "3", "--strides", "16", "4")
    assert [bool(cell.error) for cell in found] == [False, True]
    assert found[1].config is None
    assert found[1].name == "L=3"
    assert found[1].error.startswith("strides=(16, 4): give one stride for each of the L=3 levels")


@pytest.mark.parametrize(
    ("words", "message"), [(["3"], "3: flags begin with --"), (["--workdir=x"], "the sweep makes one for each cell")]
)
def test_words_that_are_no_flags(words, message):
    with pytest.raises(ConfigError, match=message):
        axes_of(words)


@pytest.mark.parametrize("words", [["--cauchy", "1"], ["--prior", "cauchy"], ["--L", "2", "many"], ["--L"]])
def test_wrong_flags_end_the_program(words, capsys):
    with pytest.raises(SystemExit) as caught:
        cells(*words)
    assert caught.value.code == 2
    assert words[0].strip("-") in capsys.readouterr().err

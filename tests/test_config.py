"""The configuration: round trips, flags, presets, and one clear line for everything that cannot be."""

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nlvc.config import LAMBDAS, LEARNED_PRIORS, MAX_LEVELS, PREDEFINED_PRIORS, PRESETS, Config, ConfigError, base, tiny

FIELDS = {field.name: field for field in dataclasses.fields(Config)}
README = Path(__file__).parents[1] / "README.md"


def choices(name):
    """The values of a field with a fixed set of them, or ()."""
    kind = FIELDS[name].type
    return get_args(kind) if get_origin(kind) is Literal else ()


def positive(most):
    return st.floats(0, most, exclude_min=True, allow_subnormal=False)


@st.composite
def configs(draw):
    """Any configuration that can be, every field drawn."""
    values = {name: draw(st.sampled_from(choices(name))) for name in FIELDS if choices(name)}
    values["init_from"] = "runs/a" if values["trained"] == "chain" else draw(st.sampled_from(["", "runs/a"]))
    levels = draw(st.integers(1 if values["context"] == "none" else 2, MAX_LEVELS))
    strides = draw(st.just(()) | st.tuples(st.integers(1, 6), *[st.integers(0, 3)] * (levels - 1)))
    if sum(strides) > 12:
        strides = (strides[0], *[min(s, 6 // levels) for s in strides[1:]])
    strides = tuple(2**s for s in strides)
    first = strides[0] if strides else 16
    linear = draw(st.booleans())
    if values["distortion"] != "mse" or not linear:
        values["rate"] = "fixed"
    coarsest = math.prod(strides or (16, 2, 2))
    accumulate = draw(st.integers(1, 100))
    least_patch = max(2 * coarsest, 161 if values["distortion"] == "ms-ssim" else 1)
    return Config(
        **values,
        L=levels,
        strides=strides,
        linear_path=linear,
        channels=draw(st.integers(1, min(4096, 3 * first**2) if linear else 4096)),
        filters=draw(st.integers(1, 4096)),
        latent_filters=draw(st.integers(1, 4096)),
        prior_scale=draw(st.floats(0.01, 256)),
        lmbda=draw(positive(1e30)),
        steps=draw(st.integers(1, 10**9)),
        batch_size=accumulate * draw(st.integers(1, 10**4)),
        accumulate=accumulate,
        remat=draw(st.booleans()),
        quantize_aware=values["dtype"] == "float32" and draw(st.booleans()),
        patch_size=first * draw(st.integers(-(-least_patch // first), 10**4)),
        learning_rate=draw(positive(1e3)),
        warmup_steps=draw(st.integers(0, 10**9)),
        clip_norm=draw(positive(1e30)),
        ema_decay=draw(st.floats(0, 1, exclude_max=True)),
        seed=draw(st.integers(0, 2**32 - 1)),
        data=draw(st.text()),
        workdir=draw(st.text()),
        checkpoint_every=draw(st.integers(1, 10**9)),
        log_every=draw(st.integers(1, 10**9)),
    )


def assert_refused(call, *words):
    """`call` raises ConfigError with one line that has every word."""
    with pytest.raises(ConfigError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message
    return message


# --- JSON ---


@given(configs())
def test_json_round_trip(config):
    text = config.to_json()
    again = Config.from_json(text)
    assert again == config
    assert repr(again) == repr(config)  # also the kind of every value, since 1 == 1.0
    assert json.loads(text).keys() == FIELDS.keys()


@pytest.mark.parametrize("start", PRESETS.values(), ids=PRESETS)
def test_json_round_trip_of_the_presets(start):
    assert Config.from_json(start().to_json()) == start()


def test_unknown_key_is_named_beside_the_known_ones():
    text = json.dumps({**dataclasses.asdict(base()), "lambda": 1})
    assert_refused(lambda: Config.from_json(text), "unknown", "lambda", "lmbda", "strides")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1, 2]", "3", "null", '"L"', "L=5", '{"L": 2', "[" * 100_000, '{"L": 1' + "0" * 5000 + "}"],
    ids=lambda text: text[:8],
)
def test_what_is_not_a_configuration_is_refused(text):
    assert_refused(lambda: Config.from_json(text), "configuration")


WRONG = {
    str: [None, 3, True, ["embedded"], {}],
    int: [None, "2", 2.0, True, [2], {}],
    float: [None, "0.5", True, [0.5], {}],
    bool: [None, "true", 1, 0.0, []],
    tuple[int, ...]: [None, "16", 16, {}, [16, 4.0], ["16", "4"], [[16, 4]], [16, True], [None, 4]],
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_value_of_the_wrong_kind_is_refused(name):
    for wrong in [None, "no such", 1, [], {}] if choices(name) else WRONG[FIELDS[name].type]:
        text = json.dumps({name: wrong})
        assert_refused(lambda text=text: Config.from_json(text), name, "must be", *choices(name))


# --- What cannot be ---

IMPOSSIBLE = {
    "no level": ({"L": 0}, "L=0", "1 to 8"),
    "too many levels": ({"L": 9}, "L=9", "1 to 8"),
    "too few strides": ({"L": 3, "strides": (16, 2)}, "(16, 2)", "L=3"),
    "too many strides": ({"L": 1, "strides": (16, 2)}, "(16, 2)", "L=1"),
    "not a power of two": ({"L": 2, "strides": (16, 3)}, "(16, 3)", "power of two"),
    "stride zero": ({"L": 2, "strides": (16, 0)}, "(16, 0)", "power of two"),
    "negative stride": ({"L": 2, "strides": (16, -2)}, "(16, -2)", "power of two"),
    "z_1 at the photo's size": ({"L": 2, "strides": (1, 2)}, "(1, 2)", "2 to 64"),
    "z_1 too coarse": ({"L": 1, "strides": (128,)}, "(128,)", "2 to 64"),
    "too coarse together": ({"L": 2, "strides": (64, 128)}, "(64, 128)", "4096"),
    "no channels": ({"channels": 0}, "channels=0", "1 to 4096"),
    "no filters": ({"filters": -1}, "filters=-1", "1 to 4096"),
    "too many filters": ({"latent_filters": 5000}, "latent_filters=5000", "1 to 4096"),
    "more components than samples": ({"strides": (4, 4), "channels": 49}, "channels=49", "48", "--no-linear-path"),
    "prior scale zero": ({"prior_scale": 0.0}, "prior_scale=0.0", "0.01 to 256"),
    "prior scale not a number": ({"prior_scale": float("nan")}, "prior_scale=nan"),
    "no steps": ({"steps": 0}, "steps=0", "at least 1"),
    "empty batch": ({"batch_size": 0}, "batch_size=0", "at least 1"),
    "empty patch": ({"patch_size": 0}, "patch_size=0", "at least 1"),
    "no part": ({"accumulate": 0}, "accumulate=0", "at least 1"),
    "parts of different sizes": ({"accumulate": 3}, "accumulate=3", "8"),
    "8 bits too coarsely": ({"dtype": "bfloat16", "quantize_aware": True}, "dtype=bfloat16", "--quantize-aware"),
    "never saved": ({"checkpoint_every": 0}, "checkpoint_every=0", "at least 1"),
    "impatient": ({"patience": -1}, "patience=-1", "negative"),
    "never logged": ({"log_every": 0}, "log_every=0", "at least 1"),
    "lambda zero": ({"lmbda": 0.0}, "lmbda=0.0", "positive"),
    "lambda not a number": ({"lmbda": float("nan")}, "lmbda=nan", "positive"),
    "lambda infinite": ({"lmbda": float("inf")}, "lmbda=inf", "finite"),
    "lambda beyond floats": ({"lmbda": 10**400}, "lmbda=1000", "finite"),
    "negative rate": ({"learning_rate": -1e-3}, "learning_rate=-0.001", "positive"),
    "clip to nothing": ({"clip_norm": 0.0}, "clip_norm=0.0", "positive"),
    "mean of all times": ({"ema_decay": 1.0}, "ema_decay=1.0", "[0, 1)"),
    "negative decay": ({"ema_decay": -0.1}, "ema_decay=-0.1", "[0, 1)"),
    "negative warm-up": ({"warmup_steps": -1}, "warmup_steps=-1", "negative"),
    "negative seed": ({"seed": -1}, "seed=-1", "0 to 4294967295"),
    "seed beyond 32 bits": ({"seed": 2**32}, "seed=4294967296", "0 to 4294967295"),
    "patch not a multiple": ({"patch_size": 100}, "patch_size=100", "16"),
    "patch of one position": ({"strides": (16, 16)}, "patch_size=128", "256", "neighbour"),
    "patch too small for five scales": ({"distortion": "ms-ssim", "patch_size": 160}, "patch_size=160", "161"),
}


@pytest.mark.parametrize("case", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_impossible_combinations_are_refused(case):
    changes, *words = case
    message = assert_refused(lambda: base(**changes), *words)
    values = {**dataclasses.asdict(base()), **changes}
    assert assert_refused(lambda: Config.from_json(json.dumps(values))) == message


def test_the_limits_themselves_are_allowed():
    assert base(L=MAX_LEVELS).L == MAX_LEVELS
    assert base(strides=(64, 64), patch_size=8192).level_strides == (64, 64)
    assert base(strides=(2, 1), channels=12).level_channels == (12, 12)
    assert base(strides=(4, 4), channels=49, linear_path=False).channels == 49
    assert base(distortion="ms-ssim", patch_size=176, seed=2**32 - 1, warmup_steps=0, ema_decay=0.0).seed == 2**32 - 1


def test_a_configuration_is_frozen_and_hashable():
    with pytest.raises(dataclasses.FrozenInstanceError):
        base().L = 3
    assert {base(): 1}[base(L=2)] == 1


# --- What follows from the fields ---


@pytest.mark.parametrize(
    ("levels", "strides"),
    [(1, (16,)), (2, (16, 4)), (3, (16, 2, 2)), (5, (16, 2, 2, 1, 1))],
)
def test_strides_of_the_levels(levels, strides):
    assert base(L=levels).level_strides == strides


def test_channels_of_the_levels():
    assert base(L=3).level_channels == (150, 150, 150)
    assert base(channels=192, dims="tapered").level_channels == (192, 128)  # the hyperprior's
    assert tiny(L=8, channels=2, dims="tapered").level_channels[-1] == 1


@given(configs(), st.integers(1, 10**4), st.integers(1, 10**4))
def test_shapes_of_the_levels_round_up(config, height, width):
    shapes = config.level_shapes(height, width)
    assert len(shapes) == config.L
    stride = 1
    for (rows, columns), factor in zip(shapes, config.level_strides, strict=True):
        stride *= factor
        # Rounding up at each level in turn is the same as once, since the strides divide each other.
        assert (rows - 1) * stride < height <= rows * stride
        assert (columns - 1) * stride < width <= columns * stride


def test_priors_of_the_two_kinds_are_those_of_the_flag():
    assert (*PREDEFINED_PRIORS, *LEARNED_PRIORS) == choices("prior")
    assert sorted(LAMBDAS) == list(LAMBDAS) and base().lmbda in LAMBDAS


# --- Flags ---


def test_flags_of_the_readme():
    assert Config.from_args(["--L=5", "--prior=logistic"]) == base(L=5, prior="logistic")
    assert Config.from_args([]) == base()


def test_flags_may_start_as_those_of_another_run(tmp_path):
    theirs = tiny(L=3, data="photos", workdir="elsewhere", seed=4, strides=(16, 2, 1), steps=70, patch_size=64)
    (tmp_path / "config.json").write_text(theirs.to_json())
    for flags in ([f"--init-from={tmp_path}"], ["--init_from", str(tmp_path)]):
        expected = dataclasses.replace(theirs, init_from=str(tmp_path), workdir="runs/b", steps=9)
        assert Config.from_args([*flags, "--workdir=runs/b", "--steps", "9"]) == expected
    assert Config.from_args([f"--init-from={tmp_path}", "--trained=chain"]).trained == "chain"
    with pytest.raises(ConfigError, match="nowhere: not the workdir of a run of nlvc.train"):
        Config.from_args(["--init-from=nowhere"])
    with pytest.raises(ConfigError, match="trained=chain: needs --init-from"):
        Config.from_args(["--trained=chain"])


def test_every_field_has_its_flag():
    others = {name: [c for c in choices(name) if c != getattr(base(), name)] for name in FIELDS}
    others["rate"] = others["trained"] = []
    changed = Config(
        **{name: values[0] for name, values in others.items() if values},
        **{"L": 3, "strides": (8, 4, 2), "linear_path": False, "prior_scale": 0.5, "lmbda": 0.25, "channels": 7},
        rate="fixed",  # variable does not go with two of the choices above
        quantize_aware=False,  # nor this with bfloat16
        **{"accumulate": 3, "remat": True},
        **{"filters": 5, "latent_filters": 6, "steps": 11, "batch_size": 3, "patch_size": 176, "learning_rate": 0.01},
        **{"warmup_steps": 2, "clip_norm": 2.0, "ema_decay": 0.5, "seed": 9, "data": "tfds:clic", "workdir": "a b"},
        **{"checkpoint_every": 4, "log_every": 5, "patience": 6},
    )
    values = dataclasses.asdict(changed)
    unchanged = ["rate", "quantize_aware", "init_from", "trained"]  # the last two have a test of their own
    assert [name for name in FIELDS if values[name] == getattr(base(), name)] == unchanged
    flags = ["--strides", *map(str, values.pop("strides")), "--no-linear-path", "--no-quantize-aware", "--remat"]
    for name in ("linear_path", "quantize_aware", "remat"):
        values.pop(name)
    flags += [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]
    assert Config.from_args([flag for flag in flags if flag != "--init-from="]) == changed
    assert Config.from_args(["--rate=variable"]) == dataclasses.replace(base(), rate="variable")
    assert Config.from_args(["--quantize-aware"]) == dataclasses.replace(base(), quantize_aware=True)


@pytest.mark.parametrize("flags", [["--preset=NAME"], ["--preset", "NAME"], ["--preset=base", "--preset=NAME"]])
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_start_that_other_flags_change(name, flags):
    flags = [flag.replace("NAME", name) for flag in flags]
    assert Config.from_args(flags) == PRESETS[name]()
    assert Config.from_args(["--L=4", *flags, "--seed", "7"]) == PRESETS[name](L=4, seed=7)


def test_presets_bear_their_names():
    assert {name: start().preset for name, start in PRESETS.items()} == {name: name for name in PRESETS}
    assert set(choices("preset")) == PRESETS.keys()


@pytest.mark.parametrize(
    ("flag", "word"),
    [("--preset=huge", "paper"), ("--prior=cauchy", "factorized"), ("--lambda=1", "--lambda"), ("--L=x", "--L")],
)
def test_a_wrong_flag_ends_the_program_with_a_message(flag, word, capsys):
    with pytest.raises(SystemExit) as caught:
        Config.from_args([flag])
    assert caught.value.code == 2
    assert word in capsys.readouterr().err


def test_an_impossible_combination_of_flags_is_the_same_one_line(capsys):
    assert_refused(lambda: Config.from_args(["--L=3", "--strides", "16", "2"]), "strides=(16, 2)", "L=3")
    assert_refused(lambda: Config.from_args(["--preset=tiny", "--channels=2000"]), "channels=2000", "768")
    assert capsys.readouterr().err == ""


def test_help_names_every_flag(capsys):
    with pytest.raises(SystemExit) as caught:
        Config.from_args(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert [name for name in FIELDS if f"--{name.replace('_', '-')}" not in text] == []


# --- The README's table of flags ---


def readme_flags():
    """Field -> (meaning, base, paper), the cells of the table."""
    rows = {}
    for line in README.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 4 and (flag := re.fullmatch(r"`--([A-Za-z-]+)`", cells[0])):
            rows[flag[1].replace("-", "_")] = cells[1:]
    return rows


def test_readme_lists_every_flag_with_its_choices():
    rows = readme_flags()
    assert rows.keys() == FIELDS.keys() - {"preset"}
    for name, (meaning, *_) in rows.items():
        assert [choice for choice in choices(name) if f"`{choice}`" not in meaning] == [], name


@pytest.mark.parametrize(("column", "start"), [(1, PRESETS["base"]), (2, PRESETS["paper"])], ids=["base", "paper"])
def test_readme_tells_the_defaults(column, start):
    config = start()
    assert readme_flags()["workdir"][column] == "`runs/...`" and config.workdir == ""
    assert readme_flags()["strides"][2] == "the same" and config.strides == ()
    *strides, others = readme_flags()["strides"][1].split("; ")
    assert others == "..." and len(strides) > 3
    for levels, chain in enumerate(strides, start=1):
        assert chain == " ".join(map(str, start(L=levels).level_strides))
    for name in FIELDS.keys() - {"preset", "strides", "workdir"}:
        cell, value = readme_flags()[name][column], getattr(config, name)
        if isinstance(value, bool):
            assert cell == ("on" if value else "off"), name
        elif isinstance(value, str):
            assert cell == (f"`{value}`" if value else "none"), name
        else:
            assert float(cell) == value, name

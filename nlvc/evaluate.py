"""`python -m nlvc.evaluate`, also `nlvc eval`: models and their rivals on photos, by real files, and a report of it.

Exit status: 0; 1 if a codec failed, or a photo cannot be read; 2 for wrong arguments; 130 after Ctrl-C.
"""

import argparse
import os
import re
import sys
from functools import partial
from pathlib import Path


def main(argv: list[str] | None = None) -> int:
    """The command. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m nlvc.evaluate", description=DESCRIPTION, allow_abbrev=False)
    add_flags(parser)
    return run(parser.parse_args(argv), "nlvc.evaluate")


DESCRIPTION = (
    "Measures models and other codecs by real files, and writes points, plots and a report. The same command goes on."
)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """What the command takes, for this entrance and the other."""
    parser.add_argument("--photos", metavar="[NAME=]FOLDER", nargs="+", required=True,
                        help="sets of photos, called after their folders")  # fmt: skip
    parser.add_argument("--models", metavar="[NAME=]PATH", nargs="+",
                        help="as of nlvc compress; several models in a folder are one curve; default: the one that "
                        "comes with nlvc")  # fmt: skip
    parser.add_argument("--qualities", metavar="Q", nargs="+", type=quality,
                        help="0 to 100, of models of variable rate; default: eight")  # fmt: skip
    parser.add_argument("--effort", metavar="N", nargs="+", type=effort, default=[0],
                        help="of models, as of nlvc compress; each makes a curve of its own")  # fmt: skip
    parser.add_argument("--codecs", metavar="NAME", nargs="+", default=["all"],
                        help="jpeg, jpeg-444, webp, jpeg2000, avif, jpegxl, hevc, all that are installed (default), "
                        "or none")  # fmt: skip
    parser.add_argument("--codec-cmd", metavar=("NAME", "ENCODE", "DECODE", "SETTINGS"), nargs=4, action="append",
                        default=[], help="two commands as a codec: 'enc {input} {output} -q {setting}' from PNG to a "
                        "file that ends in .NAME, 'dec {input} {output}' back to PNG, and settings 10,50,90, lowest "
                        "rate first")  # fmt: skip
    parser.add_argument("--published", metavar=("FILE", "NAME"), nargs="+", action="append", default=[],
                        help="curves, all or those named, over the set that is called as the file, to draw and to "
                        "compare with")  # fmt: skip
    parser.add_argument("--crop-bpp", metavar="X", type=rate, default=0.25,
                        help="rate at which codecs are shown side by side; default: 0.25")  # fmt: skip
    parser.add_argument("--format", choices=("csv", "parquet"), default="csv", help="of the points; default: csv")
    parser.add_argument("--out", metavar="FOLDER", type=Path, help="default: runs/eval-SETS")


def quality(text: str) -> float:
    """A number from 0 to 100."""
    if not 0 <= float(text) <= 100:
        raise argparse.ArgumentTypeError("must be from 0 to 100")
    return float(text)


def effort(text: str) -> int:
    """A whole number, not negative."""
    if int(text) < 0:
        raise argparse.ArgumentTypeError("must not be negative")
    return int(text)


def rate(text: str) -> float:
    """A positive number."""
    if not 0 < float(text) < float("inf"):
        raise argparse.ArgumentTypeError("must be positive")
    return float(text)


def run(arguments: argparse.Namespace, called: str) -> int:
    """Measures what is asked for, and reports it. `called` begins every line of complaint. Returns the exit status."""
    from nlvc.evaluation.measuring import Store

    def complain(text) -> None:
        from tqdm import tqdm

        tqdm.write(f"{called}: {' '.join(str(text).split())}", file=sys.stderr)

    prepare()
    try:
        sets = sets_of(arguments.photos)
        contenders = contenders_of(arguments, complain)
        published = published_of(arguments.published, [photos.name for photos in sets], complain)
        out = arguments.out or Path("runs") / ("eval-" + "+".join(photos.name for photos in sets))
        store = Store(out / f"points.{arguments.format}", [contender.codec for contender in contenders])
    except (ValueError, OSError) as error:
        complain(error)
        return 2
    try:
        return evaluate(sets, contenders, published, store, out, arguments.crop_bpp, complain)
    except (ValueError, OSError) as error:
        complain(error)
        return 1
    except KeyboardInterrupt:
        complain(f"stopped; what is measured is in {out}, and the same command goes on")
        return 130


def prepare() -> None:
    """Leaves a GPU's memory to the processes that code: here models are only looked at, and MS-SSIM is taken."""
    import jax

    from nlvc.process import keep_programs

    jax.config.update("jax_platforms", "cpu")
    keep_programs()


def named(text: str) -> tuple[str, Path]:
    """[NAME=]PATH; the name is empty where there is none. Raises ValueError for one that cannot be part of a file's."""
    name, equals, path = text.partition("=")
    if not equals or Path(text).exists():
        return "", Path(text)
    return checked(name), Path(path)


def checked(name: str) -> str:
    """A name that files can have. Raises ValueError for others."""
    if not re.fullmatch(r"\w[\w.+ -]*", name):
        raise ValueError(f"{name!r}: a name here has letters, digits, and . + - _ only")
    return name


def unique(names: list[str], what: str) -> None:
    """Raises ValueError if a name is there twice."""
    if twice := [name for index, name in enumerate(names) if name in names[:index]]:
        raise ValueError(f"two {what} are called {twice[0]}: write NAME=PATH")


def sets_of(photos: list[str]) -> list:
    """The sets. Raises ValueError for one without photos, or a name that is there twice."""
    from nlvc.evaluation.measuring import photo_set

    sets = []
    for text in photos:
        name, folder = named(text)
        sets.append(photo_set(name or checked(folder.resolve().name), folder))
    unique([photos.name for photos in sets], "sets")
    return sets


def contenders_of(arguments: argparse.Namespace, complain) -> list:
    """The models, then the rivals. Raises ValueError for what is not there or has a name twice."""
    from nlvc.evaluation import available, rivals
    from nlvc.evaluation.external import command_codec
    from nlvc.evaluation.measuring import Contender

    found = []
    for text in arguments.models or [""]:
        name, path = named(text) if text else ("", None)
        for effort in arguments.effort:
            make = partial(model, path, arguments.qualities, name, effort)
            found.append(Contender(make(), make))
            checked(found[-1].codec.name)
    names = arguments.codecs
    if {"all", "none"} & set(names) and len(names) > 1:
        raise ValueError("--codecs takes names, or all, or none")
    if names == ["all"]:
        missing = {name: why for name, why in available().items() if why}
        if missing:
            complain(f"left out because they are not installed: {'; '.join(missing.values())}")
        names = [name for name in available() if name not in missing]
    for name in names if names != ["none"] else []:
        make = partial(rival, name)
        found.append(Contender(rivals([name])[0], make))
    for name, encode, decode, settings in arguments.codec_cmd:
        try:
            numbers = tuple(float(setting) for setting in settings.split(","))
        except ValueError as error:
            raise ValueError(f"--codec-cmd {name}: settings are numbers with commas between, not {settings}") from error
        make = partial(command_codec, checked(name), encode, decode, numbers, suffix=f".{name}")
        found.append(Contender(make(), make))
    unique([contender.codec.name for contender in found], "codecs")
    return found


def model(path: Path | None, qualities: list[float] | None, name: str, effort: int):
    """A model as a codec, also in another process."""
    from nlvc.evaluation.codecs import model_codec

    codec = model_codec(path, qualities, effort)
    return codec._replace(name=(name or codec.name) + (f"-effort{effort}" if effort else ""))


def rival(name: str):
    """A rival, also in another process."""
    from nlvc.evaluation.baselines import rivals

    return rivals([name])[0]


def published_of(files: list[list[str]], sets: list[str], complain) -> dict[str, dict]:
    """Set -> published curves by name. Raises ValueError for a file that does not hold them."""
    from nlvc.evaluation.published import read_published

    found: dict[str, dict] = {}
    for file, *names in files:
        curves = read_published(Path(file), names)
        stem = Path(file).stem
        its = [name for name in sets if name.lower() == stem.lower()]
        if not its:
            complain(f"{file} is for a set called {stem}, and there is none: --photos {stem}=FOLDER")
        for name in its:
            found.setdefault(name, {}).update(curves)
    return found


def evaluate(sets: list, contenders: list, published: dict, store, out: Path, crop_bpp: float, complain) -> int:
    """Measures, then writes plots and report. Returns the exit status: 1 if anything failed."""
    from tqdm import tqdm

    from nlvc.evaluation import crops, html, plots
    from nlvc.evaluation.comparisons import aligned, compare, means_table, rates_table, set_results
    from nlvc.evaluation.measuring import jobs, measure_all
    from nlvc.evaluation.points import Point
    from nlvc.files import write_whole

    codecs = [contender.codec for contender in contenders]
    points, notes = [], []

    def note(text: str) -> None:
        notes.append(text)
        complain(text)

    hidden = not sys.stderr.isatty()
    for outcome in tqdm(measure_all(sets, contenders, store), total=jobs(sets, contenders), unit="file",
                        dynamic_ncols=True, disable=hidden):  # fmt: skip
        if isinstance(outcome, Point):
            points.append(outcome)
        elif outcome:
            note(outcome)
    shown = []
    for outcome in crops.showcases(sets, contenders, store.find, crop_bpp, out / "crops"):
        if isinstance(outcome, str):
            note(outcome)
        else:
            shown.append(outcome)
    failed = bool(notes)

    found, drawn = [], {}
    models = [codec.name for codec in codecs if codec.levels]
    others = [codec.name for codec in codecs if not codec.levels]
    for photos in sets:
        its = [point for point in points if point.set == photos.name]
        results = set_results(photos.name, len(photos.names), models, others, its, published.get(photos.name, {}))
        notes += results.lacking
        found.append(results)
        try:
            drawn[photos.name] = plots.inline(plots.save_curves(results, out))
        except ImportError:
            if not drawn and photos is sets[0]:
                note("no plots, because matplotlib is not installed: pip install 'nlvc[experiments]'")
        print(f"\n{photos.name}: {len(photos.names)} photos\n\n{aligned(means_table(results))}")
        if comparisons := compare(results):
            print(f"\n{aligned(rates_table(comparisons), left=2)}")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    page = html.report(found, codecs, drawn, shown, notes, cores)
    write_whole(out / "report.html", page.encode())
    print(f"\nreport: {out / 'report.html'}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

"""The `nlvc` command: compress, decompress and info, on files and folders.

Exit status: 0; 1 if any file failed; 2 for wrong arguments. A source is never touched, an output appears whole or not
at all, and a folder goes on after a bad file.
"""

import argparse
import io
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from nlvc import __version__

SUFFIX = ".nlvc"


def main(argv: list[str] | None = None) -> int:
    """The console script. argv: without the program's name; None means the process's own."""
    parser = build_parser()
    arguments = parser.parse_args(argv)
    try:
        return arguments.run(arguments)
    except (ValueError, OSError) as error:
        return complain(error)
    except KeyboardInterrupt:
        print("nlvc: stopped; what is written is whole", file=sys.stderr)
        return 130


def build_parser() -> argparse.ArgumentParser:
    """The commands and their flags."""
    parser = argparse.ArgumentParser(prog="nlvc", description="Lossy image compression with nested latent variables.")
    parser.add_argument("--version", action="version", version=f"nlvc {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, run, what, output in (
        ("compress", compress, "photos to .nlvc files", ".nlvc file or folder; default: beside IN"),
        ("decompress", decompress, ".nlvc files to photos",
         "picture (format by its suffix) or folder; default: PNG beside IN"),
    ):  # fmt: skip
        command = commands.add_parser(name, help=what, description=f"Turns {what}, singly or by the folder.")
        command.add_argument("input", metavar="IN", type=Path, help="a file, or a folder to search")
        # Not a Path, which would forget a slash at the end.
        command.add_argument("output", metavar="OUT", nargs="?", help=output)
        command.add_argument("--model", metavar="PATH", type=Path, required=True,
                             help="model.safetensors, or the workdir of the run that wrote it")  # fmt: skip
        command.add_argument("--force", action="store_true", help="write over outputs that are already there")
        command.set_defaults(run=run)
    command = commands.add_parser("info", help="what a .nlvc file says of itself; needs no model")
    command.add_argument("files", metavar="FILE", type=Path, nargs="+", help=".nlvc files, or folders of them")
    command.set_defaults(run=info)
    return parser


def compress(arguments: argparse.Namespace) -> int:
    """`nlvc compress IN [OUT] --model PATH`."""
    from nlvc import data, image_codec

    model = image_codec.load(arguments.model)

    def convert(source: Path) -> tuple[bytes, str]:
        picture = data.open_picture(source)
        code = image_codec.compress(picture, model=model)
        pixels = picture.width * picture.height
        return code, f"{len(code)} bytes, {8 * len(code) / pixels:.3f} bpp"

    return each(arguments, data.SUFFIXES, SUFFIX, convert)


def decompress(arguments: argparse.Namespace) -> int:
    """`nlvc decompress IN [OUT] --model PATH`."""
    from PIL import Image

    from nlvc import image_codec

    model = image_codec.load(arguments.model)
    to_file = arguments.output and not arguments.input.is_dir() and not is_folder(arguments.output)
    suffix = (Path(arguments.output).suffix if to_file else "") or ".png"
    format_ = Image.registered_extensions().get(suffix.lower())
    if format_ not in Image.SAVE:
        raise ValueError(f"{suffix}: no picture format that can be written; give OUT another suffix, say .png")

    def convert(source: Path) -> tuple[bytes, str]:
        pixels = image_codec.decompress(source.read_bytes(), model=model)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, format_)
        return file.getvalue(), f"{pixels.shape[1]} x {pixels.shape[0]}"

    return each(arguments, {SUFFIX}, suffix, convert)


def info(arguments: argparse.Namespace) -> int:
    """`nlvc info FILE`: header, rate, and the share of each level."""
    from nlvc.coding import bitstream

    failed = 0
    for source in arguments.files:
        paths = files_in(source, {SUFFIX}) if source.is_dir() else [source]
        if not paths:
            failed = complain(ValueError(f"{source}: no files with suffix {SUFFIX} in this folder"))
        for path in paths:
            try:
                code = path.read_bytes()
                header, _, _ = bitstream.unpack(code)
            except (ValueError, OSError) as error:
                failed = complain(error, path)
                continue
            pixels = header.width * header.height
            print(f"{path}: {header.width} x {header.height} {header.mode}, {len(code)} bytes, "
                  f"{8 * len(code) / pixels:.4f} bpp, model {header.fingerprint}, format {header.version}")  # fmt: skip
            sizes = [(f"z_{level}", size) for level, size in enumerate(header.level_bytes, start=1)]
            sizes += [("alpha", header.alpha_bytes)] if header.alpha_bytes else []
            sizes += [("header", len(code) - sum(size for _, size in sizes))]
            for name, size in sizes:
                print(f"  {name:<7}{size:>10} bytes {8 * size / pixels:8.4f} bpp {size / len(code):7.1%}")
    return failed


def each(
    arguments: argparse.Namespace, suffixes: Iterable[str], suffix: str, convert: Callable[[Path], tuple[bytes, str]]
) -> int:
    """Converts one file, or all of a folder with those suffixes, and writes the results. Returns the exit status."""
    from tqdm import tqdm

    from nlvc.files import write_whole

    source = arguments.input
    if source.is_dir():
        sources = files_in(source, suffixes)
        if not sources:
            raise ValueError(f"{source}: no files with suffix {', '.join(sorted(suffixes))} in this folder")
    elif source.exists():
        sources = [source]
    else:
        raise FileNotFoundError(f"{source}: there is no such file or folder")
    targets = outputs(source, sources, arguments.output, suffix)
    failed = skipped = 0
    for path in tqdm(sources, unit="file", disable=len(sources) == 1 or not sys.stderr.isatty()):
        target = targets[path]
        try:
            if target.exists() and target.samefile(path):
                raise ValueError("its output would replace it; give another OUT")
            if target.exists() and not arguments.force:
                if len(sources) == 1:
                    raise FileExistsError(f"{target} is already there; --force writes over it")
                skipped += 1
                continue
            result, message = convert(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            write_whole(target, result)
            tqdm.write(f"{path} -> {target}: {message}")
        except (ValueError, OSError, MemoryError, RuntimeError) as error:  # JAX out of memory: RuntimeError
            failed += 1
            complain(error, path)
    if len(sources) > 1:
        done = len(sources) - failed - skipped
        print(f"{done} written, {skipped} skipped because they are already there, {failed} failed")
    return int(failed > 0)


def outputs(source: Path, sources: list[Path], output: str | None, suffix: str) -> dict[Path, Path]:
    """Where each result goes: the tree of `source` is kept, and no two sources share an output."""
    if not source.is_dir():
        beside = source.with_suffix(suffix)
        if output is None:
            return {source: beside}
        return {source: Path(output, beside.name) if is_folder(output) else Path(output)}
    if output is not None and Path(output).exists() and not Path(output).is_dir():
        raise ValueError(f"{output}: a file, but a folder of results needs a folder")
    root = source if output is None else Path(output)
    short = [root / path.relative_to(source).with_suffix(suffix) for path in sources]
    long = [target.with_name(path.name + suffix) for path, target in zip(sources, short, strict=True)]
    # a.png and a.jpg would both become a.nlvc: such names keep their old suffix.
    count = Counter(short)
    targets = [b if count[a] > 1 else a for a, b in zip(short, long, strict=True)]
    # That may meet a third one, from a.png.png; then all keep theirs.
    return dict(zip(sources, targets if len(set(targets)) == len(targets) else long, strict=True))


def is_folder(output: str) -> bool:
    """Whether OUT is a folder that is there, or a name that can only be meant as one."""
    return Path(output).is_dir() or output.endswith(("/", os.sep))


def files_in(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """All files below a folder with one of these suffixes, hidden ones left out, in order."""
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in names
                  if not name.startswith(".") and Path(name).suffix.lower() in suffixes]  # fmt: skip
    return sorted(found)


def complain(error: Exception, path: Path | None = None) -> int:
    """One line on stderr; returns exit status 1."""
    text = " ".join(str(error).split()) or type(error).__name__
    print(f"nlvc: {path}: {text}" if path is not None and str(path) not in text else f"nlvc: {text}", file=sys.stderr)
    return 1

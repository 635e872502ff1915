"""The `nlvc` command: compress, decompress, info and freeze, on files and folders; pack and eval for sets of photos.

Exit status: 0; 1 if any file failed (of `nlvc pack`: if there is no data set); 2 for wrong arguments. A source is never
touched, an output appears whole or not at all, and a folder goes on after a bad file.
"""

import argparse
import io
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from nlvc import __version__
from nlvc.folders import files_in, is_folder, sources_of, targets_of

SUFFIX = ".nlvc"
MAX_PIXELS = 200_000_000


class Result(NamedTuple):
    """What became of one file: the bytes to write, a line for the reader, and the same for machines."""

    data: bytes
    text: str
    facts: dict
    warning: str = ""


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
    from nlvc import evaluate

    parser = argparse.ArgumentParser(prog="nlvc", description="Lossy image compression with nested latent variables.")
    parser.add_argument("--version", action="version", version=f"nlvc {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("input", metavar="IN", type=Path, help="a file, or a folder to search")
    common.add_argument("--model", metavar="PATH", type=Path,
                        help="model.safetensors, the workdir of its run, or a folder of several; "
                        "default: the one that comes with nlvc")  # fmt: skip
    common.add_argument("--force", action="store_true", help="write over outputs that are already there")
    common.add_argument("--strip", action="store_true", help="leave out Exif, colour profile and XMP")
    common.add_argument("--max-pixels", type=positive, default=MAX_PIXELS, metavar="N", help="refuse larger pictures")
    common.add_argument("--jobs", type=positive, metavar="N", help="files at once; default: as cores and memory allow")
    common.add_argument("--json", action="store_true", help="one JSON object a file on stdout, and one for all")

    command = commands.add_parser("compress", parents=[common], help="photos to .nlvc files")
    # Not a Path, which would forget a slash at the end.
    command.add_argument("output", metavar="OUT", nargs="?", help=".nlvc file or folder; default: beside IN")
    rate = command.add_mutually_exclusive_group()
    rate.add_argument("--lmbda", type=float, metavar="X", help="rate of a variable model, or of several")
    rate.add_argument("--quality", type=float, metavar="Q", help="the same from 0 (smallest) to 100")
    command.add_argument("--effort", type=evaluate.effort, default=0, metavar="N",
                         help="how often to look for better symbols; 0 (default): never, 2: smaller files, slowly"
                         )  # fmt: skip
    command.add_argument("--verify", action="store_true", help="decode every file before it counts")
    command.set_defaults(run=compress)

    command = commands.add_parser("decompress", parents=[common], help=".nlvc files to photos")
    command.add_argument("output", metavar="OUT", nargs="?",
                         help="picture (format by its suffix) or folder; default: PNG beside IN")  # fmt: skip
    command.add_argument("--region", metavar="X,Y,W,H", type=region, help="this part only")
    command.add_argument("--preview", action="store_true", help="a quick look, an eighth as wide and high")
    command.add_argument("--salvage", action="store_true", help="what is left of a damaged file")
    command.set_defaults(run=decompress)

    command = commands.add_parser("info", help="what a .nlvc file says of itself; needs no model")
    command.add_argument("files", metavar="FILE", type=Path, nargs="+", help=".nlvc files, or folders of them")
    command.add_argument("--json", action="store_true", help="one JSON object a file")
    command.set_defaults(run=info)

    command = commands.add_parser("freeze", help="the checkpoint of a run to a model that codes photos")
    command.add_argument("checkpoint", metavar="CHECKPOINT", type=Path, help="the workdir of a run of nlvc.train")
    command.add_argument("output", metavar="OUT", type=Path, help="model.safetensors")
    command.set_defaults(run=freeze)

    command = commands.add_parser("pack", help="a folder of photos to a data set for training")
    command.add_argument("input", metavar="FOLDER", type=Path, help="photos")
    command.add_argument("output", metavar="OUT", type=Path, help="folder, for nlvc.train --data=OUT")
    command.add_argument("--force", action="store_true", help="replace a data set that is already there")
    command.add_argument("--jobs", type=positive, metavar="N", help="photos at once; default: as compress")
    command.set_defaults(run=pack)

    command = commands.add_parser("eval", help="models and other codecs on photos: curves, BD-rates and a report",
                                  description=evaluate.DESCRIPTION)  # fmt: skip
    evaluate.add_flags(command)
    command.set_defaults(run=partial(evaluate.run, called="nlvc"))
    return parser


def positive(text: str) -> int:
    """A number of at least 1."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return int(text)


def region(text: str) -> tuple[int, int, int, int]:
    """X,Y,W,H as numbers."""
    numbers = tuple(int(number) for number in text.split(","))
    if len(numbers) != 4:
        raise argparse.ArgumentTypeError("four numbers, X,Y,W,H")
    return numbers


def compress(arguments: argparse.Namespace) -> int:
    """`nlvc compress IN [OUT]`."""
    from nlvc import data, image_codec

    prepare()
    model = image_codec.ready(arguments.model, quality=arguments.quality, lmbda=arguments.lmbda)

    def convert(source: Path) -> Result:
        picture = data.open_picture(source, max_pixels=arguments.max_pixels)
        metadata = {} if arguments.strip else data.read_metadata(picture)
        code = image_codec.compress(
            picture, model=model, effort=arguments.effort, metadata=metadata, max_pixels=arguments.max_pixels,
            verify=arguments.verify,
        )  # fmt: skip
        bpp = 8 * len(code) / (picture.width * picture.height)
        facts = {"width": picture.width, "height": picture.height, "bytes": len(code), "bpp": bpp}
        return Result(code, f"{len(code)} bytes, {bpp:.3f} bpp", facts)

    return each(arguments, data.SUFFIXES, SUFFIX, convert)


def decompress(arguments: argparse.Namespace) -> int:
    """`nlvc decompress IN [OUT]`."""
    from PIL import Image

    from nlvc import data, image_codec

    prepare()
    models = image_codec.models_in(arguments.model) if arguments.model else []
    model = image_codec.load(models[0]) if len(models) == 1 else arguments.model
    to_file = arguments.output and not arguments.input.is_dir() and not is_folder(arguments.output)
    suffix = (Path(arguments.output).suffix if to_file else "") or ".png"
    format_ = Image.registered_extensions().get(suffix.lower())
    if format_ not in Image.SAVE:
        raise ValueError(f"{suffix}: no picture format that can be written; give OUT another suffix, say .png")
    options = {"region": arguments.region, "preview": arguments.preview, "max_pixels": arguments.max_pixels}

    def convert(source: Path) -> Result:
        code, lost = source.read_bytes(), []
        if arguments.salvage:
            pixels, lost = image_codec.salvage(code, model=model, **options)
        else:
            pixels = image_codec.decompress(code, model=model, **options)
        metadata = {} if arguments.strip else image_codec.metadata_of(code)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, format_, **data.save_options(metadata, format_))
        facts = {"width": pixels.shape[1], "height": pixels.shape[0], "lost": lost}
        warning = f"lost: {', '.join(lost)}" if lost else ""
        return Result(file.getvalue(), f"{pixels.shape[1]} x {pixels.shape[0]}", facts, warning)

    return each(arguments, {SUFFIX}, suffix, convert)


def prepare() -> None:
    """What pays for a process that codes photos and nothing else."""
    from nlvc import process

    process.keep_freed_memory()
    process.keep_programs()


def freeze(arguments: argparse.Namespace) -> int:
    """`nlvc freeze CHECKPOINT OUT`."""
    from nlvc.train import freeze_run

    print(f"{arguments.output}: fingerprint {freeze_run(arguments.checkpoint, arguments.output)}")
    return 0


def pack(arguments: argparse.Namespace) -> int:
    """`nlvc pack FOLDER OUT`. A picture that cannot be read is named and left out, and is no failure."""
    from tqdm import tqdm

    from nlvc import data

    if arguments.output.exists() and not arguments.force:
        raise FileExistsError(f"{arguments.output} is already there; --force replaces a packed data set")
    index = data.pack(
        arguments.input,
        arguments.output,
        replace=arguments.force,
        jobs=arguments.jobs or jobs(os.cpu_count() or 1),
        progress=partial(tqdm, unit="photo", disable=not sys.stderr.isatty()),
        warn=lambda name, reason: tqdm.write(f"nlvc: cannot read {name}: {reason}", file=sys.stderr),
    )
    size = sum(shard.bytes for shard in index.shards)
    print(f"{arguments.output}: {len(index.names)} photos, {len(index.skipped)} left out as unreadable, "
          f"{size / 1e6:.1f} MB in {len(index.shards)} shards")  # fmt: skip
    return 0


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
                file = bitstream.unpack(code)
                file.check()
            except (ValueError, OSError) as error:
                failed = complain(error, path)
                continue
            header, pixels = file.header, file.header.width * file.header.height
            sizes = [(f"z_{level}", sum(sizes)) for level, sizes in enumerate(file.sizes, start=1)]
            sizes += [(name, len(content)) for name, content in file.chunks.items()]
            sizes += [("header", len(code) - sum(size for _, size in sizes))]
            if arguments.json:
                facts = {**header._asdict(), "file": str(path), "bytes": len(code), "sizes": dict(sizes)}
                print(json.dumps(facts))
                continue
            rows, columns = header.tiles
            counted = "1 tile" if rows * columns == 1 else f"{rows * columns} tiles"
            print(f"{path}: {header.width} x {header.height} {header.mode}, {len(code)} bytes, "
                  f"{8 * len(code) / pixels:.4f} bpp, {counted}, model {header.fingerprint}, "
                  f"format {bitstream.VERSION}.{header.minor}")  # fmt: skip
            for name, size in sizes:
                print(f"  {name:<7}{size:>10} bytes {8 * size / pixels:8.4f} bpp {size / len(code):7.1%}")
    return failed


def each(arguments: argparse.Namespace, suffixes, suffix: str, convert: Callable[[Path], Result]) -> int:
    """Converts one file, or all of a folder with those suffixes, and writes the results. Returns the exit status."""
    from concurrent.futures import ThreadPoolExecutor, as_completed

    from tqdm import tqdm

    from nlvc.files import remove_leftovers, write_whole

    sources = sources_of(arguments.input, suffixes)
    targets = targets_of(arguments.input, sources, arguments.output, suffix)
    counts, read, written = {"written": 0, "skipped": 0, "failed": 0}, 0, 0

    def work(path: Path) -> tuple[str, str, dict, str]:
        target = targets[path]
        if target.exists() and target.samefile(path):
            raise ValueError("its output would replace it; give another OUT")
        if target.exists() and not arguments.force:
            if len(sources) == 1:
                raise FileExistsError(f"{target} is already there; --force writes over it")
            return "skipped", "", {}, ""
        result = convert(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, result.data)
        facts = {**result.facts, "size": len(result.data)}
        return "written", f"{path} -> {target}: {result.text}", facts, result.warning

    for folder in {target.parent for target in targets.values()}:
        remove_leftovers(folder)
    sizes = {path: size_of(path) for path in sources}
    hidden = len(sources) == 1 or not sys.stderr.isatty()
    bar = tqdm(total=sum(sizes.values()), unit="B", unit_scale=True, disable=hidden)
    with bar, ThreadPoolExecutor(arguments.jobs or jobs(len(sources))) as pool:
        try:
            running = {pool.submit(work, path): path for path in sources}
            for future in as_completed(running):
                path = running[future]
                size = sizes[path]
                try:
                    outcome, text, facts, warning = future.result()
                except (ValueError, OSError, MemoryError, RuntimeError) as error:  # JAX out of memory: RuntimeError
                    outcome, text, facts, warning = "failed", "", {"error": one_line(error)}, ""
                    complain(error, path)
                counts[outcome] += 1
                if warning:
                    complain(ValueError(warning), path)
                if outcome == "written":
                    read, written = read + size, written + facts["size"]
                    bar.set_postfix_str(f"{read / max(written, 1):.1f} times smaller" if written < read else "")
                bar.update(size)
                if arguments.json:
                    print(json.dumps({"file": str(path), "output": str(targets[path]), "outcome": outcome, **facts}))
                elif text:
                    tqdm.write(text)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if arguments.json:
        print(json.dumps({**counts, "bytes_in": read, "bytes_out": written}))
    elif len(sources) > 1:
        print("{written} written, {skipped} skipped because they are already there, {failed} failed".format(**counts))
    return int(counts["failed"] > 0)


def size_of(path: Path) -> int:
    """Bytes of a file, or 0 if it is gone or was never more than a link to nowhere: that is said where it is read."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def jobs(files: int) -> int:
    """Files at a time: as many as there are cores, and as have four gigabytes of memory each."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 4 << 30
    return max(1, min(files, os.cpu_count() or 1, memory // (4 << 30)))


def one_line(error: Exception) -> str:
    """What the error says, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def complain(error: Exception, path: Path | None = None) -> int:
    """One line on stderr; returns exit status 1."""
    text = one_line(error)
    print(f"nlvc: {path}: {text}" if path is not None and str(path) not in text else f"nlvc: {text}", file=sys.stderr)
    return 1

"""Files and folders that appear whole or not at all."""

import contextlib
import csv
import io
import os
import platform
import re
import shutil
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

_COMPUTER = f"{zlib.crc32(platform.node().encode()):08x}"
_TEMPORARY = re.compile(r"\..{0,40}\.[0-9a-f]{8}-([0-9a-f]{8})-([0-9]{1,9})\.tmp", re.DOTALL)
_LONGEST_WRITE = 3600.0


def write_whole(path: Path, data: bytes) -> None:
    """Writes data under a temporary name in the same folder, brings it to the disk, and renames it to `path`."""
    temporary = _temporary(path)
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """A new folder under a temporary name beside `path`, which gets that name, and is on the disk, after the block.

    If the block raises, nothing is left. `replace` allows for a folder in the place of `path`, which is removed then;
    without it the new one goes only where nothing or an empty folder is, else OSError.
    """
    temporary, former = _temporary(path), _temporary(path.with_name(f"{path.name}.former"))
    for folder in (temporary, former):  # left by a killed process of the same number
        shutil.rmtree(folder, ignore_errors=True)
    try:
        temporary.mkdir()
        yield temporary
        for file in [*temporary.iterdir(), temporary]:
            _flush(file)
        if replace and path.exists():
            path.rename(former)
        temporary.rename(path)
        _flush(path.parent)
    finally:
        if former.exists() and not path.exists():
            former.rename(path)
        for folder in (temporary, former):
            shutil.rmtree(folder, ignore_errors=True)


def write_csv(path: Path, records: Sequence[dict]) -> None:
    """One line for each record, one column for each key in the order of first appearance; what is missing is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for record in records for key in record)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    write_whole(path, text.getvalue().encode())


def remove_leftovers(folder: Path) -> None:
    """Removes what killed processes have left of `write_whole` and `whole_folder` in a folder: those of this computer
    at once, of others an hour after their last write. A folder that is not there, or belongs to somebody else, stays as
    it is."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if found := _TEMPORARY.fullmatch(entry.name):
                with contextlib.suppress(OSError):
                    ended = found[1] == _COMPUTER and not _runs(int(found[2]))
                    if ended or time.time() - entry.stat().st_mtime > _LONGEST_WRITE:
                        shutil.rmtree(entry) if entry.is_dir(follow_symlinks=False) else os.unlink(entry)


def _temporary(path: Path) -> Path:
    # A part of the name, because no name may be longer than 255 bytes; its checksum, because threads may write files
    # whose names begin alike.
    checksum = zlib.crc32(os.fsencode(path.name))
    return path.with_name(f".{path.name[:40]}.{checksum:08x}-{_COMPUTER}-{os.getpid()}.tmp")


def _flush(path: Path) -> None:
    if os.name != "posix" and path.is_dir():  # elsewhere a folder cannot be opened
        return
    descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _runs(process: int) -> bool:
    if os.name != "posix":  # elsewhere this signal would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True

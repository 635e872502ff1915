"""Files that appear whole or not at all."""

import contextlib
import csv
import io
import os
import platform
import re
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

_COMPUTER = f"{zlib.crc32(platform.node().encode()):08x}"
_TEMPORARY = re.compile(r"\..{0,40}\.[0-9a-f]{8}-([0-9a-f]{8})-([0-9]{1,9})\.tmp", re.DOTALL)
_LONGEST_WRITE = 3600.0


def write_whole(path: Path, data: bytes) -> None:
    """Writes data under a temporary name in the same folder, brings it to the disk, and renames it to `path`."""
    # A part of the name, because no name may be longer than 255 bytes; its checksum, because threads may write files
    # whose names begin alike.
    checksum = zlib.crc32(os.fsencode(path.name))
    temporary = path.with_name(f".{path.name[:40]}.{checksum:08x}-{_COMPUTER}-{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_csv(path: Path, records: Sequence[dict]) -> None:
    """One line for each record, one column for each key in the order of first appearance; what is missing is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for record in records for key in record)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    write_whole(path, text.getvalue().encode())


def remove_leftovers(folder: Path) -> None:
    """Removes what killed processes have left of `write_whole` in a folder: those of this computer at once, of others
    an hour later. A folder that is not there, or belongs to somebody else, stays as it is."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if found := _TEMPORARY.fullmatch(entry.name):
                with contextlib.suppress(OSError):
                    ended = found[1] == _COMPUTER and not _runs(int(found[2]))
                    if ended or time.time() - entry.stat().st_mtime > _LONGEST_WRITE:
                        os.unlink(entry)


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

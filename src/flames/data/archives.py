"""A ZIP of a folder: unpacked beside the results while it is read, and then taken away."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flames.errors import FlamesError


@contextmanager
def unpacked(source: Path, beside: Path) -> Iterator[Path]:
    """Yield ``source`` if it is a folder, or the folder that a ZIP was unpacked to.

    Raises:
        FlamesError: The ZIP is damaged or encrypted, or there is no room for what it holds.
    """
    if not (source.is_file() and source.suffix.lower() == ".zip"):
        yield source
        return
    try:
        beside.mkdir(parents=True, exist_ok=True)
        room = Path(tempfile.mkdtemp(prefix=".unpacked-", dir=beside))
        folder = room / source.stem  # series at its top are named after the ZIP
        folder.mkdir()
    except OSError as error:
        raise FlamesError(
            f"cannot write into {beside}: {error.strerror}", "choose another place"
        ) from error
    try:
        _unpack(source, folder)
        yield folder
    finally:
        shutil.rmtree(room, ignore_errors=True)


def _unpack(source: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(source) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
            free = shutil.disk_usage(folder).free
            if size > free:
                raise FlamesError(
                    f"{source} unpacks to {size / 1e9:.1f} GB, {folder.parents[1]} has room for "
                    f"{free / 1e9:.1f} GB",
                    "free some space, or write the results to another disk",
                )
            archive.extractall(folder)
    except FlamesError:
        raise
    except Exception as error:
        # BadZipFile, OSError, RuntimeError for a password, zlib.error for a bit that flipped.
        raise FlamesError(
            f"cannot unpack {source}: {error}", "copy it again, or unpack it yourself to a folder"
        ) from error

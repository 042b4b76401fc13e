"""A ZIP of a folder: unpacked beside the results while it is read, and then taken away.

What is unpacked are patients' images. A process that is asked to stop takes them away; one that is
killed leaves them, and the next one to unpack there takes them away.
"""

from __future__ import annotations

import fcntl
import shutil
import signal
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flames.errors import FlamesError

PREFIX = ".unpacked-"
LOCK = ".in-use"
"""Locked by the process that unpacked a ZIP, as long as it lives."""


@contextmanager
def unpacked(source: Path, beside: Path) -> Iterator[Path]:
    """Yield ``source`` if it is a folder, or the folder that a ZIP was unpacked to.

    An error raised meanwhile names files by the ZIP: the folder is gone when somebody reads it.

    Raises:
        FlamesError: The ZIP is damaged or encrypted, or there is no room for what it holds.
    """
    if not (source.is_file() and source.suffix.lower() == ".zip"):
        yield source
        return
    try:
        beside.mkdir(parents=True, exist_ok=True)
        _clear_abandoned(beside)
        room = Path(tempfile.mkdtemp(prefix=PREFIX, dir=beside))
        folder = room / source.stem  # series at its top are named after the ZIP
        folder.mkdir()
        (room / LOCK).touch()
    except OSError as error:
        raise FlamesError(
            f"cannot write into {beside}: {error.strerror}", "choose another place"
        ) from error
    try:
        with _asked_to_stop(), (room / LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            _unpack(source, folder)
            yield folder
    except FlamesError as error:
        raise error.renamed(folder, source) from error
    finally:
        shutil.rmtree(room, ignore_errors=True)


def _clear_abandoned(beside: Path) -> None:
    """Take away what killed processes unpacked here; what a living one works on is locked."""
    for room in beside.glob(f"{PREFIX}*"):
        try:
            with (room / LOCK).open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(room, ignore_errors=True)
        except OSError:
            continue  # it is in use, or not of this program


@contextmanager
def _asked_to_stop() -> Iterator[None]:
    """End by an exception when the process is asked to terminate, so that files are cleared."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


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

"""What lies below a folder: links are followed, and nothing is left out without a word."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from flames.data.sources import natural
from flames.errors import FlamesError


def files_below(folder: Path) -> list[Path]:
    """Return the visible files in `folders_below`, in natural order.

    Raises:
        FlamesError: A folder or file cannot be read, or a link leads nowhere.
    """
    return sorted((path for _, files in _walk(folder) for path in files), key=natural)


def folders_below(folder: Path) -> list[Path]:
    """Return ``folder`` and the visible folders below it.

    Links are followed, but not to a folder that holds ``folder``. A folder that can be reached in
    two ways is there once, by its own name where that is below ``folder`` too. What begins with a
    dot is passed over.

    Args:
        folder: Where to look; the paths begin with it.

    Raises:
        FlamesError: A folder or file cannot be read, or a link leads nowhere.
    """
    return [found for found, _ in _walk(folder)]


def _walk(folder: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Yield every folder with its files."""
    seen = {_identity(parent.stat()) for parent in folder.resolve().parents}
    folders, linked = deque([folder]), deque[Path]()
    while folders or linked:
        here = folders.popleft() if folders else linked.popleft()
        status = _status(here)
        if _identity(status) in seen:
            continue
        seen.add(_identity(status))
        files = []
        for path in _visible(here):
            mode = _status(path).st_mode
            if stat.S_ISDIR(mode):
                (linked if path.is_symlink() else folders).append(path)
            elif stat.S_ISREG(mode):
                files.append(path)
        yield here, files


def _visible(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise _unreadable(folder, error) from error
    return [folder / name for name in sorted(names, key=natural)]


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _status(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        if path.is_symlink():
            raise FlamesError(
                f"{path} is a link to what is not there or cannot be read",
                "copy what it should lead to, or take the link away",
            ) from error
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> FlamesError:
    return FlamesError(
        f"cannot read {path}: {error.strerror or error}",
        "have it made readable for you, or take it away",
    )

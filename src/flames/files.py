"""Files are written whole, then renamed: a reader sees the old file or the new one."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from flames.errors import NotWritten


def save_text(path: Path, text: str) -> None:
    """Write whole, then rename: a reader never sees half a file.

    Raises:
        NotWritten: The disk is full or the folder cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise NotWritten(
            f"cannot write {path}: {error.strerror}",
            "choose another folder"
            if isinstance(error, NotADirectoryError | FileExistsError)
            else "free some space or choose another folder; what was stopped continues",
        ) from error


def nothing_in(folder: Path, *, beside: Collection[str] = ()) -> bool:
    """Return whether a folder is missing, or empty but for ``beside`` and a file half written.

    A process that is killed while it writes its first file leaves that.
    """
    if not folder.exists():
        return True
    return folder.is_dir() and all(
        path.name in beside or (path.name.startswith(".") and path.name.endswith(".partial"))
        for path in folder.iterdir()
    )


def flush(path: Path) -> None:
    """Return once a file, or the names in a folder, are on the disk and outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Do several things in ``path``; what the system says of its disk is told as `NotWritten`."""
    try:
        yield
    except OSError as error:
        raise NotWritten(
            f"cannot write {path}: {error.strerror or 'not all of it could be copied'}",
            "free some space or choose another folder",
        ) from error


def save_json(path: Path, content: Any) -> None:
    """Write ``content`` as readable JSON; a number that is not finite is refused."""
    save_text(path, json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n")

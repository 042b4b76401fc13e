"""Files are written whole, then renamed: a reader sees the old file or the new one."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from flames.errors import FlamesError


def save_text(path: Path, text: str) -> None:
    """Write whole, then rename: a reader never sees half a file.

    Raises:
        FlamesError: The disk is full or the folder cannot be written.
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
        raise FlamesError(
            f"cannot write {path}: {error.strerror}",
            "free some space or choose another folder; a run continues with --resume",
        ) from error


def save_json(path: Path, content: Any) -> None:
    """Write ``content`` as readable JSON; a number that is not finite is refused."""
    save_text(path, json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n")

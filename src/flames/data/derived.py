"""Folders of a store's cache: written beside their place, and there whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flames.errors import FlamesError


@contextmanager
def derived_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder to write into; it becomes ``folder`` when all went well.

    Where another run has derived the same meanwhile, its folder stays and this one's goes.

    Raises:
        FlamesError: The disk is full or not writable.
    """
    partial: Path | None = None
    try:
        folder.parent.mkdir(exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder.parent))
        yield partial
        partial.rename(folder)
    except OSError as error:
        if not folder.exists():
            raise FlamesError(
                f"cannot write {folder}: {error.strerror}", "free some space beside the store"
            ) from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)

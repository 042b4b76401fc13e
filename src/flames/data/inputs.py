"""What a person names to be looked at: files and folders become a list, nothing read yet."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from flames.data.scans import READERS, known_suffix
from flames.data.sources import natural
from flames.errors import FlamesError


@dataclass(frozen=True)
class Input:
    """One image to look at."""

    name: str
    """Its path without the ending, relative to the folder that was named: unique in a list."""
    path: Path


def find_inputs(paths: Iterable[Path]) -> list[Input]:
    """Return every image among files and below folders, in natural order.

    Files of other kinds below a folder are passed over; one that was named itself is not.

    Raises:
        FlamesError: A path is not there, a named file is of no known kind, a folder holds no
            image, or two images have one name.
    """
    found: dict[str, Input] = {}
    for path in paths:
        for one in _inputs(path):
            other = found.setdefault(one.name.lower(), one)
            if other is not one and other.path != one.path:
                raise FlamesError(
                    f"{other.path} and {one.path} would both be {one.name!r}",
                    "rename one of them, or give them in two calls with two -o",
                )
    if not found:
        raise FlamesError("there is no image to look at", "name files or folders")
    return list(found.values())


def _inputs(path: Path) -> list[Input]:
    if not path.exists():
        raise FlamesError(f"there is no file or folder {path}", "check the path")
    if not path.is_dir():
        return [Input(_name(path, path.parent), path)]
    inside = [p for p in path.rglob("*") if p.is_file() and known_suffix(p)]
    seen = [
        p for p in inside if not any(part.startswith(".") for part in p.relative_to(path).parts)
    ]
    if not seen:
        raise FlamesError(
            f"{path} holds no image that flames reads", f"known endings: {', '.join(READERS)}"
        )
    return [Input(_name(p, path), p) for p in sorted(seen, key=natural)]


def _name(path: Path, folder: Path) -> str:
    suffix = known_suffix(path)
    if suffix is None:
        raise FlamesError(
            f"{path} is not an image that flames reads", f"known endings: {', '.join(READERS)}"
        )
    return path.relative_to(folder).as_posix()[: -len(suffix)]

"""What is in a folder, links followed: what cannot be read is an error, and nothing is left out."""

from __future__ import annotations

import fnmatch
import glob
import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePath

from flames.data.sources import listing, natural
from flames.data.walking import folders_below
from flames.errors import FlamesError


def subfolders(folder: Path) -> list[Path]:
    """Return the visible folders in ``folder``, links among them, in natural order.

    Raises:
        FlamesError: ``folder`` cannot be read, or a link in it leads nowhere or to a folder that
            is there already.
    """
    found: dict[Path, Path] = {}
    for path in _inside(folder):
        if path.name.startswith(".") or not _leads_to_folder(path):
            continue
        other = found.setdefault(path.resolve(), path)
        if other is not path:
            raise FlamesError(f"{other} and {path} are the same folder", "take the link away")
    return list(found.values())


def matches(folder: Path, pattern: str) -> list[Path]:
    """Return what the glob ``pattern`` finds below ``folder``, in natural order.

    ``**`` is any number of visible folders, see `folders_below`. Names that begin with a dot are
    found by a pattern that does so too, as in a shell. Brackets stand for themselves where a name
    has them; elsewhere ``[ab]`` is one of these characters. An umlaut is one character, whether a
    disk or who typed the pattern keeps it as one or as two.

    Raises:
        FlamesError: A folder cannot be read, or a link leads nowhere.
        ValueError: ``pattern`` is absolute, or has ``**`` as a part of a name.
    """
    parts = PurePath(pattern).parts
    if PurePath(pattern).is_absolute():
        raise ValueError("it is absolute")
    if any("**" in part and part != "**" for part in parts):
        raise ValueError("** must stand between slashes")
    return sorted(set(_matching(folder, parts)), key=natural)


def _matching(folder: Path, parts: tuple[str, ...]) -> Iterator[Path]:
    if not parts:
        yield folder
        return
    first, rest = parts[0], parts[1:]
    if first == "**":
        for below in folders_below(folder):
            yield from _matching(below, rest or ("*",))
    elif not glob.has_magic(first) and _is_there(folder / first):
        yield from _matching(folder / first, rest)
    elif _leads_to_folder(folder):
        for path in _fitting(folder, first):
            yield from _matching(path, rest)


def _fitting(folder: Path, part: str) -> list[Path]:
    """Return what in ``folder`` one part of a pattern names."""
    part = unicodedata.normalize("NFC", part)
    names = {path: unicodedata.normalize("NFC", path.name) for path in _inside(folder)}
    shown = {p: n for p, n in names.items() if part.startswith(".") or not n.startswith(".")}
    as_they_are = [p for p, n in shown.items() if fnmatch.fnmatch(n, part.replace("[", "[[]"))]
    return as_they_are or [p for p, n in shown.items() if fnmatch.fnmatch(n, part)]


def _is_there(path: Path) -> bool:
    with listing(path.parent):
        return path.exists()


def _leads_to_folder(path: Path) -> bool:
    """Return whether ``path`` is a folder or a link to one; a link to nowhere is an error."""
    with listing(path.parent):
        lost, is_folder = path.is_symlink() and not path.exists(), path.is_dir()
    if lost:
        raise FlamesError(f"{path} is a link that leads nowhere", "mend the link, or take it away")
    return is_folder


def _inside(folder: Path) -> list[Path]:
    with listing(folder):
        return sorted(folder.iterdir(), key=natural)

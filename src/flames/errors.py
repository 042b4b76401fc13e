"""The error that a person can act on: what was found, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path


class FlamesError(Exception):
    """A problem that the user can mend. The command line prints it calmly and exits with 2."""

    def __init__(self, found: str, remedy: str = "") -> None:
        """Keep what was found and the remedy apart, so that programs can show both.

        Args:
            found: What is wrong, naming the file, key or value.
            remedy: What the user can do about it.
        """
        super().__init__(f"{found}\n  {remedy}" if remedy else found)
        self.found = found
        self.remedy = remedy

    def renamed(self, folder: Path, name: Path) -> FlamesError:
        """Return the error with another name of a folder wherever it stands."""
        old, new = str(folder), str(name)
        return FlamesError(self.found.replace(old, new), self.remedy.replace(old, new))


class NotWritten(FlamesError):
    """A file could not be written, such as on a full disk; later it may be."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint such as ``"did you mean 'rounds'?"``, or every known name when none is near.

    >>> nearest("ronds", ["rounds", "seed"])
    "did you mean 'rounds'?"
    >>> nearest("zzz", ["rounds", "seed"])
    'known: rounds, seed'
    """
    names = sorted(known)
    close = get_close_matches(name, names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}"

"""Files that belong to an image without being named: headers beside voxels, or voxels beside them.

Analyze keeps its header in ``.hdr``, and SPM a matrix in ``.mat``. The headers of MetaImage
(``ElementDataFile``) and NRRD (``data file``) may name one file of voxels, a list of files, or a
pattern such as ``slice_%03d.raw 1 24 1``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

from flames.data.volumes import ITK_SUFFIXES
from flames.errors import FlamesError

HEADER_BYTES = 1 << 20
_DATA_FILE = re.compile(r"(?:ElementDataFile\s*=|data ?file\s*:)\s*(?P<value>.*)", re.IGNORECASE)
_RUN = re.compile(r"(?P<name>.*%\d*d.*?)\s+(?P<first>\d+)\s+(?P<last>\d+)(?:\s+(?P<step>\d+))?")


def companions(path: Path) -> Iterator[Path]:
    """Yield the further files that reading the volume at ``path`` reads; most have none.

    Raises:
        FlamesError: ``path`` cannot be read, or such a file is not there.
    """
    for file in _beside(path):
        if not file.is_file():
            raise FlamesError(
                f"{path} belongs together with {file}, which is not there",
                "copy it there, or take the image away",
            )
        yield file


def _beside(path: Path) -> Iterator[Path]:
    if path.name.lower().endswith(".img"):
        lower, upper = path.with_suffix(".hdr"), path.with_suffix(".HDR")
        yield upper if upper.is_file() and not lower.is_file() else lower
        yield from (p for p in (path.with_suffix(".mat"),) if p.is_file())
    elif path.name.lower().endswith(ITK_SUFFIXES):
        yield from (path.parent / name for name in _named(_header(path)))


def _named(lines: list[str]) -> Iterator[str]:
    """Yield the names of the files of voxels in the lines of a header."""
    for number, line in enumerate(lines):
        match = _DATA_FILE.match(line)
        if match is not None:
            yield from _names(match["value"].strip(), lines[number + 1 :])


def _names(value: str, after: list[str]) -> Iterator[str]:
    run = _RUN.match(value)
    if value.upper().startswith("LIST"):
        yield from (line.strip() for line in after)
    elif run is not None:
        step = max(1, int(run["step"] or 1))
        for number in range(int(run["first"]), int(run["last"]) + 1, step):
            yield re.sub(r"%(\d*d)", lambda spec, n=number: format(n, spec[1]), run["name"])
    elif value.upper() not in ("", "LOCAL") and "%" not in value:
        yield value


def _header(path: Path) -> list[str]:
    """Return the lines of a header, up to the empty line or to the voxels behind it."""
    try:
        with path.open("rb") as file:
            text = file.read(HEADER_BYTES).decode("utf-8", "replace")
    except OSError as error:
        raise FlamesError(
            f"cannot read {path}: {error.strerror}", "check that the file is there and readable"
        ) from error
    return list(takewhile(str.strip, text.splitlines()))

"""What a person names to be looked at: files and folders become a list, nothing read yet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from flames.data.scans import READERS, known_suffix
from flames.data.walking import files_below
from flames.errors import FlamesError


@dataclass(frozen=True)
class Input:
    """One image to look at: a file, or the files of a DICOM series."""

    name: str
    """Its path without the ending, relative to the folder that was named: unique in a list."""
    paths: tuple[Path, ...]
    dicom: bool = False
    unpacked: tuple[Path, Path] | None = None
    """Of what lies unpacked for a while, the folder and its ZIP."""

    @property
    def path(self) -> Path:
        """Return the file that stands for it."""
        return self.paths[0]

    @property
    def source(self) -> str:
        """Return what a table calls it."""
        if self.unpacked is None:
            return str(self.path)
        folder, archive = self.unpacked
        return str(archive / self.path.relative_to(folder))

    def named(self, error: FlamesError) -> FlamesError:
        """Return an error that names files as `source` does."""
        return error if self.unpacked is None else error.renamed(*self.unpacked)


def find_inputs(
    paths: Iterable[Path], *, unpacked: Mapping[Path, Path] | None = None
) -> list[Input]:
    """Return every image among files and below folders, in natural order.

    Files of other kinds below a folder are passed over; one that was named itself is not. DICOM
    files are gathered into their series.

    Args:
        paths: What was named.
        unpacked: Of the folders among them that a ZIP was unpacked to, that ZIP.

    Raises:
        FlamesError: A path is not there, a named file is of no known kind, a folder holds no
            image, two images have one name, or a DICOM file is damaged.
    """
    found: dict[str, Input] = {}
    for path, inputs in _inputs(paths):
        archive = (unpacked or {}).get(path)
        for one in inputs:
            if archive is not None:
                one = replace(one, unpacked=(path, archive))
            other = found.setdefault(one.name.lower(), one)
            if other is not one and other.paths != one.paths:
                raise FlamesError(
                    f"{other.path} and {one.path} would both be {one.name!r}",
                    "rename one of them, or give them in two calls with two -o",
                )
    if not found:
        raise FlamesError("there is no image to look at", "name files or folders")
    return list(found.values())


def _inputs(paths: Iterable[Path]) -> Iterator[tuple[Path, list[Input]]]:
    """Yield what is in each path; files that lie beside each other are taken together."""
    named: dict[Path, list[Path]] = {}
    paths = list(dict.fromkeys(paths))
    for path in paths:
        if not path.exists():
            raise FlamesError(f"there is no file or folder {path}", "check the path")
        if not path.is_dir():
            named.setdefault(path.parent, []).append(path)
    for path in paths:
        if path.is_dir():
            yield path, _below(path)
        elif path.parent in named:
            yield path, _named(named.pop(path.parent), path.parent)


def _below(path: Path) -> list[Input]:
    found = _of(files_below(path), path)
    if not found:
        raise FlamesError(
            f"{path} holds no image that flames reads",
            f"known endings: {', '.join(READERS)}, DICOM",
        )
    return found


def _named(paths: Sequence[Path], folder: Path) -> list[Input]:
    found = _of(paths, folder)
    taken = {path for one in found for path in one.paths}
    for path in paths:
        if path not in taken:
            raise FlamesError(
                f"{path} is not an image that flames reads",
                f"known endings: {', '.join(READERS)}, DICOM",
            )
    return found


def _of(paths: Sequence[Path], folder: Path) -> list[Input]:
    from flames.data.dicom.headers import dicom_among

    found, others = [], []
    for path in paths:
        suffix = known_suffix(path)
        if suffix is None:
            others.append(path)
        else:
            found.append(Input(path.relative_to(folder).as_posix()[: -len(suffix)], (path,)))
    return found + _series(dicom_among(others), folder)


def _series(paths: Sequence[Path], folder: Path) -> list[Input]:
    """Return one input a series, named by its folder; numbered where a folder holds several."""
    from flames.data.dicom.find import read_files

    if not paths:
        return []
    groups, _ = read_files(paths)
    by_name: dict[str, list[tuple[Path, ...]]] = {}
    for headers in groups.values():
        files = tuple(header.path for header in headers)
        by_name.setdefault(_series_name(files, folder), []).append(files)
    return [
        Input(name if len(several) == 1 else f"{name}-{number}", files, dicom=True)
        for name, several in by_name.items()
        for number, files in enumerate(several, start=1)
    ]


def _series_name(files: tuple[Path, ...], folder: Path) -> str:
    if len(files) == 1:
        name = files[0].relative_to(folder)
        known = name.suffix.lower() in (".dcm", ".dicom")
        return (name.with_suffix("") if known else name).as_posix()
    name = files[0].parent.relative_to(folder)
    return name.as_posix() if name.name else folder.resolve().name

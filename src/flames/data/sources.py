"""What a source format finds: one light description a case, nothing of it read yet."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from flames.data.store import Modality
from flames.errors import FlamesError, nearest

Key = TypeVar("Key", str, int | None)
Reader = Literal["picture", "slices", "volume", "dicom"]
WHERE_KEYS = ("hospital", "category", "patient")
MOST_CHARACTERS = 246
"""Of a case id: disks allow 255 of a name, and a folder that is not yet whole has nine more."""
_TCGA = re.compile(r"TCGA[_-]([A-Z0-9]{2})[_-]")


@dataclass(frozen=True)
class SourceOptions:
    """What a user may say about a source; every one of them changes numbers."""

    channel: int | None = None
    """Channel of an image with several; None is the format's own choice, or none."""
    tumour_labels: tuple[int, ...] = ()
    """Label values that are tumour; empty means every value but 0."""
    other_labels: tuple[int, ...] = ()
    """Label values that are known and are not tumour."""
    images: str | None = None
    """Glob of the images, for ``pairs``."""
    masks: str | None = None
    """Glob of the masks, for ``pairs``."""
    patient: str | None = None
    """Regular expression that finds the patient in an image's path, for ``pairs``."""
    unknown_spacing: bool = False
    """True where the spacing in the headers is a placeholder: it becomes 1 px."""
    roi: str | None = None
    """Regular expression for the names of structures that are tumour, for ``dicom``."""
    blank_text: bool = False
    """True where writing that was burned into pictures is to be painted over."""
    key: bytes = field(default=b"", repr=False)
    """Of the site, for keyed hashes; decides names, never numbers, and is written nowhere."""

    def as_dict(self) -> dict[str, Any]:
        """Return all but the key."""
        return {name: value for name, value in asdict(self).items() if name != "key"}


@dataclass(frozen=True)
class Source:
    """One case as its source lays it out."""

    case_id: str
    images: tuple[Path, ...]
    masks: tuple[Path, ...]
    """Every mask that outlines tumour; their union is the label, none is no tumour."""
    reader: Reader
    patient_id: str | None = None
    hospital: str | None = None
    category: str | None = None
    no_tumour: bool = False
    """True where the mask outlines something that is not a tumour."""
    any_colour: bool = False
    """True where every colour but black is inside, not only the brighter half."""
    channel: int | None = None
    """Channel to read from the image, where it has several."""
    modality: Modality | None = None
    """Where the source tells."""
    private_names: bool = False
    """True where names of files can be names of patients: a store keeps none of them."""


def safe_case_id(name: str) -> str:
    """Return ``name`` with only the characters that a case folder may have.

    A name with others than ASCII characters, or of which nothing is left, ends in a hash of it, and
    so does one that is too long for a folder: what the wildcards of a pattern match can be a path.

    >>> safe_case_id("benign (4)"), safe_case_id("Müller"), safe_case_id("肿瘤")
    ('benign-4', 'M-ller-a7842989', 'b8b64660')
    """
    # One name, whether a disk keeps an umlaut as one character or as two.
    name = unicodedata.normalize("NFC", name)
    kept = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.")
    if kept and name.isascii() and len(kept) <= MOST_CHARACTERS:
        return kept
    kept = kept[: MOST_CHARACTERS - 9]
    short = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{kept}-{short}" if kept else short


def tcga_hospital(name: str) -> str | None:
    """Return the tissue source site in a TCGA name, or None.

    >>> tcga_hospital("TCGA_CS_4942_19970222")
    'CS'
    """
    match = _TCGA.search(name)
    return match.group(1) if match else None


def files_with(
    folder: Path, suffixes: Iterable[str], *, not_read: Iterable[str] = ()
) -> list[Path]:
    """Return the visible files of ``folder`` with one of the suffixes, in natural order.

    Args:
        folder: Where to look.
        suffixes: Endings of the files, in small letters.
        not_read: Endings of images of other kinds, which would be left out without a word.

    Raises:
        FlamesError: ``folder`` is missing, is not a folder, cannot be read, or holds an image of
            another kind.
    """
    check_folder(folder)
    endings, others = tuple(suffixes), tuple(not_read)
    with listing(folder):
        visible = [path for path in folder.iterdir() if not path.name.startswith(".")]
    found = [path for path in visible if path.name.lower().endswith(endings)]
    for path in sorted(set(visible) - set(found), key=natural):
        if path.name.lower().endswith(others):
            raise FlamesError(
                f"{path} is an image of another kind: only {' and '.join(endings)} are read here",
                "convert it, or take it away; the format pairs reads several kinds",
            )
    return sorted(found, key=natural)


@contextmanager
def listing(folder: Path) -> Iterator[None]:
    """Turn what goes wrong while the names in ``folder`` are read into an error with a remedy."""
    try:
        yield
    except OSError as error:
        raise FlamesError(
            f"cannot read the folder {folder}: {error.strerror or error}",
            "get the right to read it, or take it away",
        ) from error


def natural(path: Path | str) -> list[tuple[int, int, str]]:
    """Return a sort key that puts ``slice_2`` before ``slice_10``."""
    parts = re.split(r"(\d+)", str(path))
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts]


def check_folder(folder: Path) -> None:
    """Refuse what is not a folder.

    Raises:
        FlamesError: ``folder`` is missing, is a file, or lies where nothing can be read.
    """
    with listing(folder.parent):
        there, is_folder = folder.exists(), folder.is_dir()
    if not there:
        raise FlamesError(f"there is no folder {folder}", "check the path of SOURCE")
    if not is_folder:
        raise FlamesError(f"{folder} is a file, not a folder", "give the folder that holds it")


def put_once(files: dict[Key, Path], key: Key, path: Path) -> None:
    """Add a file to those found so far.

    Raises:
        FlamesError: Another is there for the same ``key``, such as ``a.nii`` beside ``a.nii.gz``.
    """
    other = files.setdefault(key, path)
    if other is not path:
        raise FlamesError(f"{other} and {path} are both there", "take one of them away")


def missing_mask(image: Path, expected: Path | str) -> FlamesError:
    """Return the error for an image without its mask."""
    return FlamesError(
        f"{image} has no mask: {expected} is not there",
        "add the mask (all black where there is no tumour), or take the image away",
    )


def parse_where(filters: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return ``hospital=CS,DU`` and the like as a mapping.

    >>> parse_where(["hospital=CS,DU"])
    {'hospital': ('CS', 'DU')}

    Raises:
        FlamesError: A filter has no ``=``, or its key is not one of `WHERE_KEYS`.
    """
    found: dict[str, tuple[str, ...]] = {}
    for text in filters:
        key, equals, values = text.partition("=")
        if not equals or not values:
            raise FlamesError(f"--where {text!r} is not KEY=VALUE", "write it as hospital=CS")
        if key not in WHERE_KEYS:
            raise FlamesError(f"--where does not know {key!r}", nearest(key, WHERE_KEYS))
        found[key] = found.get(key, ()) + tuple(values.split(","))
    return found


def select(sources: Iterable[Source], where: Mapping[str, tuple[str, ...]]) -> list[Source]:
    """Return the sources that pass every filter, by ``case_id``.

    Raises:
        FlamesError: A filter leaves nothing, or two sources want one ``case_id``.
    """
    kept = list(sources)
    for key, values in where.items():
        there = sorted({str(_field(s, key)) for s in kept if _field(s, key) is not None})
        kept = [s for s in kept if _field(s, key) in values]
        if not kept:
            raise FlamesError(
                f"--where {key}={','.join(values)} leaves no case",
                f"the source has {key}: {', '.join(there[:20]) or 'none recorded'}",
            )
    _check_unique(kept)
    return sorted(kept, key=lambda s: natural(s.case_id))


def _field(source: Source, key: str) -> str | None:
    value = source.patient_id if key == "patient" else getattr(source, key)
    return None if value is None else str(value)


def _check_unique(sources: list[Source]) -> None:
    seen: dict[str, Source] = {}
    for source in sources:
        assert source.case_id, source
        # Case folders on a disk that ignores case would fall together too.
        other = seen.setdefault(source.case_id.lower(), source)
        if other is not source:
            raise FlamesError(
                f"{other.images[0]} and {source.images[0]} would both be case {source.case_id!r}",
                "rename one of them",
            )

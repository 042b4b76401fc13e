"""Any folder: one glob names the images, one the masks, and what the wildcards match pairs them.

With ``--images 'img/*.png' --masks 'gt/*_seg.png'``, ``img/7.png`` goes with ``gt/7_seg.png``.
"""

from __future__ import annotations

import re
import unicodedata
from contextlib import suppress
from itertools import count
from pathlib import Path

from flames.data.folders import matches
from flames.data.msd import nifti_stem
from flames.data.sources import (
    Source,
    SourceOptions,
    check_folder,
    missing_mask,
    safe_case_id,
    tcga_hospital,
)
from flames.data.volumes import VOLUME_SUFFIXES
from flames.errors import FlamesError

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", *VOLUME_SUFFIXES)
WILDCARDS = {"**/": "((?:.*/)?)", "*": "([^/]*)", "?": "([^/])"}
PIECES = re.compile(r"(\*\*/|\*|\?|\[!?\]?[^]/]*\])")
"""Wildcards, and what stands in brackets."""
UNREAD = (".bmp", ".gif", ".webp", ".jp2", ".dcm", ".mgz")
"""Images of other kinds: beside those that are read they would be left out without a word."""


def find_pairs(folder: Path, options: SourceOptions) -> list[Source]:
    """Return one source an image that the globs pair with a mask.

    Raises:
        FlamesError: A glob is missing or matches nothing or an image of another kind, an image or
            mask is left over, or an image's path names no patient where it should.
    """
    check_folder(folder)
    if not options.images or not options.masks:
        raise FlamesError(
            "the format pairs needs to know where images and masks are",
            "add --images 'images/*.png' --masks 'masks/*.png', relative to SOURCE",
        )
    mask_files = _matches(folder, options.masks, "--masks")
    image_files = _matches(folder, options.images, "--images", leave_out=set(mask_files))
    patterns = {"--images": options.images, "--masks": options.masks}
    images, masks = _by_key(folder, patterns, image_files, mask_files)
    for key, path in images.items():
        if key not in masks:
            raise missing_mask(path, f"{options.masks} with {key!r}")
    for key in sorted(masks.keys() - images.keys()):
        raise FlamesError(
            f"{masks[key]} has no image: {options.images} with {key!r} is not there",
            "add the image, or take the mask away",
        )
    return [
        _source(
            key,
            images[key],
            masks[key],
            channel=options.channel,
            patient=_patient(images[key].relative_to(folder).as_posix(), options.patient),
        )
        for key in images
    ]


def wildcard_part(pattern: str, name: str, *, sets: bool = True) -> str:
    """Return what the wildcards of ``pattern`` match in ``name``.

    An umlaut is one character, whether a disk keeps it as one or as two. Without ``sets`` a name
    that a set of characters is a part of counts whole, without its ending.

    >>> wildcard_part("gt/*_seg.png", "gt/7_seg.png")
    '7'
    >>> wildcard_part("gt/[ab]*.png", "gt/a7.png"), wildcard_part("gt[2]/*.png", "gt[2]/7.png")
    ('a7', '7')
    """
    pattern, name = (unicodedata.normalize("NFC", text) for text in (pattern, name))
    match = re.fullmatch(_regex(pattern, sets), name)
    found, joined = "", True
    for number, part in enumerate(match.groups("") if match else (), start=1):
        # A character of a set is one name with what stands beside it: "[ab]*" is a part of "*".
        of_set = match is not None and number in match.re.groupindex.values()
        if part:
            found += part.strip("/") if joined or of_set else f"_{part.strip('/')}"
            joined = of_set
    return found or Path(name).stem


def _by_key(
    folder: Path, patterns: dict[str, str], images: list[Path], masks: list[Path]
) -> tuple[dict[str, Path], dict[str, Path]]:
    """Return images and masks by what pairs them.

    Of a pattern with a set of characters that is the whole name where it pairs them all: so a case
    keeps its name, of which a set such as ``[0-9]`` is the end only.
    """
    found = zip(patterns.items(), (images, masks), strict=True)
    files = [(option, pattern, paths) for (option, pattern), paths in found]
    with suppress(FlamesError):
        by_image, by_mask = (_keyed(folder, *one, sets=False) for one in files)
        if by_image.keys() == by_mask.keys():
            return by_image, by_mask
    by_image, by_mask = (_keyed(folder, *one, sets=True) for one in files)
    return by_image, by_mask


def _keyed(
    folder: Path, option: str, pattern: str, paths: list[Path], *, sets: bool
) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        key = wildcard_part(pattern, path.relative_to(folder).as_posix(), sets=sets)
        if key in found:
            raise FlamesError(
                f"{option} {pattern!r} finds both {found[key]} and {path} for {key!r}",
                "make the pattern tell them apart",
            )
        found[key] = path
    return found


def _matches(
    folder: Path, pattern: str, option: str, leave_out: set[Path] | None = None
) -> list[Path]:
    try:
        paths = matches(folder, pattern)
    except ValueError as error:
        raise FlamesError(
            f"{option} {pattern!r} cannot be searched: {error}", "give it relative to SOURCE"
        ) from error
    found: list[Path] = []
    for path in paths:
        if path in (leave_out or set()):
            continue
        if path.name.lower().endswith(UNREAD):
            raise FlamesError(
                f"{option} {pattern!r} finds {path}, which is no image that flames reads",
                "convert it to PNG, a volume to NIfTI, or make the pattern leave it out",
            )
        if path.name.lower().endswith(SUFFIXES):
            found.append(path)
    if not found:
        raise FlamesError(
            f"{option} {pattern!r} finds no image in {folder}",
            f"quote the pattern; known endings: {', '.join(SUFFIXES)}",
        )
    return found


def _regex(pattern: str, sets: bool) -> str:
    """Return what matches a path, with a group for what each wildcard matches."""
    numbers = count()

    def translated(piece: str) -> str:
        inside = piece[1:-1]
        if piece in WILDCARDS or not (inside and PIECES.fullmatch(piece)):
            return WILDCARDS.get(piece, re.escape(piece))
        # Brackets of a name, or a set of characters; one of a single character is no wildcard.
        themselves = "".join(translated(part) for part in PIECES.split(inside))
        if not sets:
            return rf"\[{themselves}\]"
        single = re.escape(inside) if len(inside) == 1 else f"(?P<set{next(numbers)}>[^/])"
        return rf"(?:\[{themselves}\]|{single})"

    return "".join(translated(piece) for piece in PIECES.split(pattern))


def _patient(name: str, pattern: str | None) -> str | None:
    """Return the patient whose image has this path in the source; None where nobody said how."""
    if pattern is None:
        return None
    match = re.search(pattern, unicodedata.normalize("NFC", name))
    found = "_".join(filter(None, match.groups() or (match[0],))) if match else ""
    if not found:
        raise FlamesError(
            f"--patient {pattern!r} finds no patient in {name}",
            "write it so that it finds one in the path of every image, relative to SOURCE, such as "
            "'sub-([0-9]+)'",
        )
    return safe_case_id(found)


def _source(
    key: str, image: Path, mask: Path, *, channel: int | None, patient: str | None
) -> Source:
    volume = image.name.lower().endswith(VOLUME_SUFFIXES)
    if volume != mask.name.lower().endswith(VOLUME_SUFFIXES):
        raise FlamesError(
            f"{image} and its mask {mask} are not both pictures or both volumes",
            "convert one of them",
        )
    return Source(
        safe_case_id(key),
        (image,),
        (mask,),
        "volume" if volume else "picture",
        patient_id=patient,
        hospital=tcga_hospital(nifti_stem(image)),
        channel=channel,
    )

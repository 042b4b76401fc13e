"""OTU_2d ovarian ultrasound: ``images/N.JPG`` and ``annotations/N.PNG``, black outside.

The optional ``classes.tsv`` gives one ``N<tab>class`` a line. The mask of class ``Ovary_Normal``
outlines the ovary, not a tumour: such images become cases without tumour.

Zhao et al., MMOTU, arXiv 2207.06799.
"""

from __future__ import annotations

from pathlib import Path

from flames.data.sources import (
    Source,
    SourceOptions,
    check_folder,
    files_with,
    missing_mask,
    put_once,
    safe_case_id,
)
from flames.errors import FlamesError

PICTURES = (".png", ".jpg", ".jpeg")
NO_TUMOUR = "Ovary_Normal"


def find_otu2d(folder: Path, options: SourceOptions) -> list[Source]:
    """Return one source an image below ``folder`` or its ``OTU_2d``.

    Raises:
        FlamesError: No image, an image without annotation or with two, or a damaged
            ``classes.tsv``.
    """
    check_folder(folder)
    root = folder / "OTU_2d" if (folder / "OTU_2d").is_dir() else folder
    images = files_with(root / "images", PICTURES)
    if not images:
        raise FlamesError(
            f"{root / 'images'} has no picture", "give the folder that holds images and annotations"
        )
    masks: dict[str, Path] = {}
    for path in files_with(root / "annotations", PICTURES):
        put_once(masks, path.stem, path)
    classes = _classes(root / "classes.tsv", images)
    found = []
    for path in images:
        if path.stem not in masks:
            raise missing_mask(path, root / "annotations" / f"{path.stem}.PNG")
        category = classes.get(path.stem)
        found.append(
            Source(
                safe_case_id(path.stem),
                (path,),
                (masks[path.stem],),
                "picture",
                category=category,
                no_tumour=category == NO_TUMOUR,
                any_colour=True,
                channel=options.channel,
            )
        )
    return found


def _classes(path: Path, images: list[Path]) -> dict[str, str]:
    """Return the class of each image that a line names, with or without its ending.

    A list may go on about images that are not here, as that of the whole dataset does of a part.
    One that has no line for an image, and one that names none, is refused.
    """
    if not path.exists():
        return {}
    stems = {name: image.stem for image in images for name in (image.name, image.stem)}
    classes: dict[str, str] = {}
    elsewhere: list[tuple[int, str]] = []
    for number, line in enumerate(_text(path).splitlines(), start=1):
        fields = [field.strip() for field in line.split("\t")]
        if not line.strip():
            continue
        if len(fields) != 2:
            raise FlamesError(
                f"{path}, line {number}: {line!r} is not NUMBER<tab>CLASS",
                "mend the line, or take the file away",
            )
        if fields[0] not in stems:
            elsewhere.append((number, fields[0]))
            continue
        said = classes.setdefault(stems[fields[0]], fields[1])
        if said != fields[1]:
            raise FlamesError(
                f"{path}, line {number}: {fields[0]!r} is {fields[1]!r}, and {said!r} in a line "
                "above",
                "take the wrong line away",
            )
    missing = [image for image in images if image.stem not in classes]
    if elsewhere and missing:
        number, name = elsewhere[0]
        raise FlamesError(
            f"{path} has no line for {missing[0].name}, and line {number} names {name!r}, which is "
            "no image",
            "correct the line",
        )
    return classes


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise FlamesError(f"{path} is not UTF-8 text", "save it as UTF-8") from error
    except OSError as error:
        raise FlamesError(
            f"cannot read {path}: {error.strerror}", "check that the file is readable"
        ) from error

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
    safe_case_id,
)
from flames.errors import FlamesError

PICTURES = (".png", ".jpg", ".jpeg")
NO_TUMOUR = "Ovary_Normal"


def find_otu2d(folder: Path, options: SourceOptions) -> list[Source]:
    """Return one source an image below ``folder`` or its ``OTU_2d``.

    Raises:
        FlamesError: No image, an image without annotation, or a damaged ``classes.tsv``.
    """
    check_folder(folder)
    root = folder / "OTU_2d" if (folder / "OTU_2d").is_dir() else folder
    images = files_with(root / "images", PICTURES)
    if not images:
        raise FlamesError(
            f"{root / 'images'} has no picture", "give the folder that holds images and annotations"
        )
    masks = {path.stem: path for path in files_with(root / "annotations", PICTURES)}
    classes = _classes(root / "classes.tsv")
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


def _classes(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    classes = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        fields = line.split("\t")
        if not line.strip():
            continue
        if len(fields) != 2:
            raise FlamesError(
                f"{path}, line {number}: {line!r} is not NUMBER<tab>CLASS",
                "mend the line, or take the file away",
            )
        classes[fields[0].strip()] = fields[1].strip()
    return classes

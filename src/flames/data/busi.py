"""BUSI breast ultrasound: ``{benign,malignant,normal}/X (N).png`` beside ``X (N)_mask.png``.

Seventeen images have several masks, ``_mask_1.png`` and so on: the label is their union. Images of
``normal`` have an empty mask and stay, as cases without tumour.

Al-Dhabyani et al., Data in Brief 2020, 10.1016/j.dib.2019.104863.
"""

from __future__ import annotations

import re
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

CATEGORIES = ("benign", "malignant", "normal")
NOT_READ = (".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".webp")
_MASK = re.compile(r"^(?P<stem>.+)_mask(_\d+)?$")


def find_busi(folder: Path, options: SourceOptions) -> list[Source]:
    """Return one source an image below ``folder`` or its ``Dataset_BUSI_with_GT``.

    Raises:
        FlamesError: No category folder, an image without mask or twice, or a mask without image.
    """
    check_folder(folder)
    inner = folder / "Dataset_BUSI_with_GT"
    root = inner if inner.is_dir() else folder
    found = [
        s for name in CATEGORIES if (root / name).is_dir() for s in _category(root / name, options)
    ]
    if not found:
        raise FlamesError(
            f"{root} has no BUSI image: no PNG in {', '.join(CATEGORIES)}",
            "give the folder that holds Dataset_BUSI_with_GT, or say another --format",
        )
    return found


def _category(folder: Path, options: SourceOptions) -> list[Source]:
    images: dict[str, Path] = {}
    masks: dict[str, list[Path]] = {}
    for path in files_with(folder, (".png",), not_read=NOT_READ):
        match = _MASK.match(path.stem)
        if match:
            masks.setdefault(match["stem"], []).append(path)
        else:
            put_once(images, path.stem, path)
    for stem, path in images.items():
        if stem not in masks:
            raise missing_mask(path, f"{stem}_mask.png")
    for stem in masks.keys() - images.keys():
        raise FlamesError(
            f"{masks[stem][0]} has no image {stem}.png", "add the image, or take the mask away"
        )
    return [
        Source(
            safe_case_id(stem),
            (path,),
            tuple(masks[stem]),
            "picture",
            category=folder.name,
            channel=options.channel,
        )
        for stem, path in images.items()
    ]

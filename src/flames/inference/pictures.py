"""Pictures of cases with outlines of label and prediction, for owners who allow them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from flames.data.slices import case_slices
from flames.data.store import SiteStore
from flames.inference.predict import predict_case
from flames.inference.score import ScoreOptions, TrainedModel
from flames.models.precision import Precision

LABEL_COLOUR = (0, 158, 115)
PREDICTION_COLOUR = (230, 159, 0)
SIDE = 256


def draw_gallery(
    folder: Path,
    model: TrainedModel,
    store: SiteStore,
    rows: Sequence[dict[str, Any]],
    *,
    precision: Precision,
    options: ScoreOptions,
) -> list[dict[str, Any]]:
    """Draw a site's best, median and worst case into ``folder``; return their index.

    Label outlines are green, predictions orange, each on the slice with most label.
    """
    scored = sorted((row for row in rows if row["dice"] is not None), key=lambda r: r["dice"])
    if not scored:
        return []
    picks = {"best": scored[-1], "median": scored[len(scored) // 2], "worst": scored[0]}
    index = []
    for rank, row in picks.items():
        case = store.cases[row["case_id"]]
        probs, presence = predict_case(
            model.network,
            store,
            case,
            image_size=model.image_size,
            precision=precision,
            batch_size=options.batch_size,
            flip=options.flip,
            plan=model.plan,
        )
        images, labels = case_slices(store, case)
        found = model.decide(probs, presence)
        found = found[None] if case.slice_axis is None else np.moveaxis(found, case.slice_axis, 0)
        shown = int(np.argmax(labels.sum((1, 2)) + 0.01 * found.sum((1, 2))))
        name = f"{row['site']}-{rank}.png"
        folder.mkdir(parents=True, exist_ok=True)
        picture = outline(images[shown], labels[shown] > 0, found[shown])
        if case.slice_axis is not None:
            picture = picture.transpose(1, 0, 2)[::-1]
        _enlarge(picture).save(folder / name)
        index.append(
            {
                "site": row["site"],
                "case_id": row["case_id"],
                "model": row["model"],
                "dice": row["dice"],
                "rank": rank,
                "file": name,
            }
        )
    return index


def outline(image: np.ndarray, label: np.ndarray, prediction: np.ndarray) -> np.ndarray:
    """Return ``(H, W, 3)`` uint8 of a normalised image with both masks' inner edges."""
    grey = ((np.clip(image, -1, 1) + 1) * 127.5).astype(np.uint8)
    picture = np.repeat(grey[..., None], 3, axis=-1)
    picture[_edge(label)] = LABEL_COLOUR
    picture[_edge(prediction)] = PREDICTION_COLOUR
    return picture


def _edge(mask: np.ndarray) -> np.ndarray:
    inside = np.pad(mask, 1)
    core = inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:] & mask
    return mask & ~core


def _enlarge(picture: np.ndarray) -> Image.Image:
    scale = SIDE / max(picture.shape[:2])
    size = (round(picture.shape[1] * scale), round(picture.shape[0] * scale))
    return Image.fromarray(np.ascontiguousarray(picture)).resize(size, Image.Resampling.NEAREST)

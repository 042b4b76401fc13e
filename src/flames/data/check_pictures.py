"""The check of a store as pictures: histograms, and a sheet of cases with their outlines.

Both show what is in a hospital's images: they are drawn only where somebody asked for them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from flames.data.check import Check, shown_slice
from flames.data.normalise import normalise
from flames.data.store import SPLITS, SiteStore
from flames.errors import FlamesError
from flames.files import save_json

THUMB = 192
CAPTION = 16
COLUMNS = 8
MOST = 48
OUTLINE = (255, 170, 40)
FLAGGED = (255, 120, 110)
COLOURS = {"train": "#3b6ea5", "val": "#8a8a8a", "test": "#c8692b"}


def draw_check(check: Check, store: SiteStore, folder: Path) -> list[Path]:
    """Write ``check.json``, ``check.png`` and ``contact-sheet.png`` into ``folder``.

    Raises:
        FlamesError: The disk is full or the folder cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise FlamesError(f"cannot write into {folder}: it is a file", "choose another --out")
    files = [folder / name for name in ("check.json", "check.png", "contact-sheet.png")]
    save_json(files[0], check.as_json())
    _save(histograms(check), files[1])
    _save(contact_sheet(check, store), files[2])
    return files


def contact_sheet(check: Check, store: SiteStore) -> Image.Image:
    """Return up to `MOST` cases, those with findings first, then evenly through the store."""
    flagged = {
        name for f in check.findings if f.kind not in ("shifted", "writing") for name in f.cases
    }
    names = _chosen([c.case_id for c in check.cases], flagged)
    rows = -(-len(names) // COLUMNS)
    columns = min(COLUMNS, len(names))
    sheet = Image.new("RGB", (columns * THUMB, rows * (THUMB + CAPTION)), (18, 18, 18))
    draw = ImageDraw.Draw(sheet)
    sides = {c.case_id: c.split for c in check.cases}
    for i, name in enumerate(names):
        left, top = i % COLUMNS * THUMB, i // COLUMNS * (THUMB + CAPTION)
        picture = _thumb(store, name)
        sheet.paste(picture, (left + (THUMB - picture.width) // 2, top))
        colour = FLAGGED if name in flagged else (200, 200, 200)
        draw.text((left + 3, top + THUMB + 2), f"{sides[name]} {name}"[:30], fill=colour)
    return sheet


def histograms(check: Check) -> Image.Image:
    """Return intensities, tumour sizes, tumour shares and cases a side as one picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6.4), layout="constrained", dpi=120)
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2)
    figure.suptitle(f"{check.site}: {check.modality} {check.organ}, {len(check.cases)} cases")
    _draw_intensities(axes[0, 0], check)
    _draw_counts(axes[0, 1], check)
    with_tumour = [c for c in check.cases if c.tumour_share > 0]
    sizes = {s: [c.tumour_size for c in with_tumour if c.split == s] for s in SPLITS}
    shares = {s: [100 * c.tumour_share for c in with_tumour if c.split == s] for s in SPLITS}
    _draw_values(axes[1, 0], sizes, f"tumour size ({check.size_unit.replace('mm2', 'mm²')})")
    _draw_values(axes[1, 1], shares, "tumour, % of the image")
    for ax in axes.flat:
        ax.spines[["top", "right"]].set_visible(False)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])


def outline(mask: np.ndarray) -> np.ndarray:
    """Return the pixels of ``mask`` that have a neighbour outside it.

    >>> outline(np.ones((3, 3), bool)).astype(int)  # only the middle is inside all around
    array([[1, 1, 1],
           [1, 0, 1],
           [1, 1, 1]])
    """
    inside = np.pad(mask.astype(bool), 1)
    whole = inside[:-2, 1:-1] & inside[2:, 1:-1] & inside[1:-1, :-2] & inside[1:-1, 2:]
    return mask.astype(bool) & ~whole


def _chosen(names: list[str], flagged: set[str]) -> list[str]:
    first = [name for name in names if name in flagged][: MOST // 2]
    rest = [name for name in names if name not in first]
    room = MOST - len(first)
    step = max(1.0, len(rest) / room)
    return first + [rest[int(i * step)] for i in range(min(room, len(rest)))]


def _thumb(store: SiteStore, case_id: str) -> Image.Image:
    record = store.cases[case_id]
    image, label = shown_slice(record, store.image(case_id), store.label(case_id))
    if record.affine is not None:
        # As a radiologist looks: first axis to the right, second upwards; both run the other way.
        image, label = image.T[::-1, ::-1], label.T[::-1, ::-1]
    grey = ((normalise(image, record.intensity) + 1) * 127.5).astype(np.uint8)
    scale = THUMB / max(grey.shape)
    size = (max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale)))
    picture = np.array(Image.fromarray(grey).resize(size, Image.Resampling.BILINEAR).convert("RGB"))
    mask = np.asarray(
        Image.fromarray(np.ascontiguousarray(label)).resize(size, Image.Resampling.NEAREST)
    )
    picture[outline(mask)] = OUTLINE
    return Image.fromarray(picture)


def _draw_intensities(ax: Any, check: Check) -> None:
    for name, shares in check.intensities.items():
        edges = np.linspace(-1, 1, len(shares) + 1)
        ax.stairs(shares, edges, color=COLOURS[name], label=name)
    ax.set(xlabel="normalised intensity", ylabel="share of pixels", yscale="log")
    ax.legend(frameon=False)


def _draw_counts(ax: Any, check: Check) -> None:
    kinds = sorted({c.category or "all" for c in check.cases})
    for i, name in enumerate(SPLITS):
        counts = [sum((c.category or "all") == k for c in check.side(name)) for k in kinds]
        ax.barh(np.arange(len(kinds)) + (i - 1) * 0.27, counts, 0.25, color=COLOURS[name])
    ax.set(xlabel="cases", yticks=range(len(kinds)), yticklabels=kinds)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.invert_yaxis()


def _draw_values(ax: Any, values: dict[Any, list[float]], label: str) -> None:
    everything = [v for side in values.values() for v in side]
    ax.set(xlabel=label, ylabel="cases")
    ax.yaxis.get_major_locator().set_params(integer=True)
    if not everything:
        return
    low, high = min(everything), max(everything)
    edges = np.geomspace(low, high, 21) if high > low else np.array([low * 0.9, low * 1.1])
    for name, side in values.items():
        ax.stairs(np.histogram(side, edges)[0], edges, color=COLOURS[name])
    ax.set(xscale="log")


def _save(picture: Image.Image, path: Path) -> None:
    partial = path.with_name(f".{path.name}.partial")
    try:
        picture.save(partial, format="PNG")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise FlamesError(
            f"cannot write {path}: {error.strerror or error}",
            "free some space or choose another folder",
        ) from error

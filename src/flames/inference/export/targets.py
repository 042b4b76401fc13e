"""Every target of an export by name, its check against the network, and the card beside it."""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from flames.data.inputs import Input
from flames.data.normalise import intensity_window, normalise
from flames.data.scans import read_scan, read_series
from flames.data.slices import fit
from flames.errors import FlamesError, nearest
from flames.inference.export.bundle import write_bundle
from flames.inference.export.card import model_card
from flames.inference.export.onnx import load_onnx, write_onnx
from flames.inference.export.torchscript import load_torchscript, write_torchscript
from flames.inference.score import TrainedModel
from flames.models.student import Told
from flames.models.weights import load_metadata
from flames.runs import RunFolder

TOLERANCE = 1e-3
"""Largest difference of a probability that an export may show."""
MADE_UP = 16
"""Squares of noise and blobs that check an export where no image is given."""


@dataclass(frozen=True)
class Target:
    """How one kind of file is written, and how what was written is run."""

    write: Callable[[TrainedModel, dict[str, str], Path], Path]
    """Writes into a folder; returns the file that holds the network."""
    load: Callable[[Path], nn.Module]
    """Returns a module that runs that file on ``(N, 1, S, S)``."""


TARGETS: dict[str, Target] = {
    "bundle": Target(write_bundle, load_torchscript),
    "onnx": Target(write_onnx, load_onnx),
    "torchscript": Target(write_torchscript, load_torchscript),
}


@dataclass(frozen=True)
class Checked:
    """How far an exported network is from the one that it was made from."""

    squares: int
    images: int
    """0 where none was given, and the squares are made up."""
    largest_difference: float
    """Of a probability."""
    other_decisions: int
    """Pixels on another side of the threshold."""


def export_model(
    model: TrainedModel,
    path: Path,
    target: str,
    out: Path,
    *,
    images: Sequence[Input] = (),
    licence: str = "",
) -> Checked:
    """Write a model as ``target`` into the new folder ``out``, checked, with ``model-card.md``.

    Args:
        model: As loaded, in float32 on the processor.
        path: Its file, in its run folder where the card is to have scores.
        target: A name of `TARGETS`.
        out: New folder.
        images: Cases on which the exported network is compared with the network; without any,
            made-up squares are.
        licence: Of the weights, for the card.

    Raises:
        FlamesError: The target is not known or not installed, ``out`` holds something, an image is
            damaged or of another modality, or the exported network gives other numbers.
    """
    if target not in TARGETS:
        raise FlamesError(f"there is no export to {target!r}", nearest(target, TARGETS))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FlamesError(f"{out} is not an empty folder", "name a new -o")
    if isinstance(model.network, Told):
        raise FlamesError(
            f"model {model.name} is told the modality of an image, which an export cannot be",
            "export the student that is not told",
        )
    metadata = {key: value for key, value in load_metadata(path).items() if key != "format"}
    metadata["version"] = model.version
    with _whole(out) as folder:
        written = TARGETS[target].write(model, metadata, folder)
        checked = compare(model, TARGETS[target].load(written), squares_of(model, images),
                          images=len(images))  # fmt: skip
        if checked.largest_difference > TOLERANCE:
            raise FlamesError(
                f"the export to {target} gives probabilities that differ by up to "
                f"{checked.largest_difference:.2g}",
                "export to another target, and report the network that it happened with",
            )
        card = model_card(model, metadata, _run_of(path), checked, target, licence)
        (folder / "model-card.md").write_text(card, encoding="utf-8")
        (folder / "check.json").write_text(json.dumps(vars(checked), indent=2) + "\n")
    return checked


def compare(
    model: TrainedModel, exported: nn.Module, squares: Iterable[np.ndarray], *, images: int
) -> Checked:
    """Return the largest difference between two networks over batches ``(N, S, S)``."""
    largest, others, count = 0.0, 0, 0
    model.network.eval()
    with torch.inference_mode():
        for batch in squares:
            given = torch.from_numpy(np.asarray(batch, np.float32))[:, None]
            one, two = (torch.sigmoid(net(given).float()) for net in (model.network, exported))
            largest = max(largest, float((one - two).abs().max()))
            others += int(((one > 0.5) != (two > 0.5)).sum())
            count += len(batch)
    return Checked(count, images, largest, others)


def squares_of(model: TrainedModel, images: Sequence[Input]) -> Iterable[np.ndarray]:
    """Yield the slices of images as the network gets them; without images, made-up ones."""
    if not images:
        rng = np.random.default_rng(0)
        coarse = rng.normal(0, 1, (MADE_UP, 8, 8)).astype(np.float32)
        fine = rng.normal(0, 0.2, (MADE_UP, model.image_size, model.image_size))
        yield np.clip(fit(coarse, model.image_size, fill=0.0) + fine, -1, 1).astype(np.float32)
        return
    for one in images:
        scan = read_series(one.paths) if one.dicom else read_scan(one.path)
        modality = scan.modality if model.modality == "all" else model.modality
        if modality is None or scan.modality not in (None, modality):
            raise FlamesError(
                f"{one.path} is {scan.modality or 'of no known modality'}, the model was trained "
                f"on {model.modality}",
                "compare it on images that it is for",
            )
        window = intensity_window(scan.image, modality)  # type: ignore[arg-type]
        slices = fit(scan.slices(normalise(scan.image, window)), model.image_size, fill=-1.0)
        for start in range(0, len(slices), 16):
            yield np.clip(slices[start : start + 16], -1, 1)


def _run_of(path: Path) -> RunFolder | None:
    run = RunFolder(path.resolve().parents[1])
    return run if run.config.exists() and run.summary.exists() else None


@contextmanager
def _whole(out: Path):  # type: ignore[no-untyped-def]
    """Yield a folder beside ``out`` that takes its name only when nothing went wrong."""
    partial: Path | None = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".export-", dir=out.parent))
        with warnings.catch_warnings():
            # Exporters of torch announce their own replacement; sizes here are fixed on purpose.
            warnings.simplefilter("ignore")
            yield partial
        if out.exists():
            out.rmdir()
        partial.chmod(0o755)
        partial.rename(out)
    except OSError as error:
        raise FlamesError(
            f"cannot write {out}: {error.strerror or error}", "free some space or name another -o"
        ) from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)

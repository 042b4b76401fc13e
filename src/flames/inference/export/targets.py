"""Every target of an export by name, its check against the network, and the card beside it."""

from __future__ import annotations

import json
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from flames.data.inputs import Input
from flames.data.store import Modality, SiteStore
from flames.errors import FlamesError, nearest
from flames.inference.export.bundle import write_bundle
from flames.inference.export.card import model_card
from flames.inference.export.check import Checked, check
from flames.inference.export.onnx import load_onnx, write_onnx
from flames.inference.export.torchscript import load_torchscript, write_torchscript
from flames.inference.score import TrainedModel
from flames.models.student import Told, of_one_modality, tell
from flames.models.weights import load_metadata
from flames.runs import RunFolder

TOLERANCE = 1e-3
"""Largest difference of a probability that an export may show."""


@dataclass(frozen=True)
class Target:
    """How one kind of file is written, and how what was written is run."""

    write: Callable[[TrainedModel, dict[str, str], Path], Path]
    """Writes into a folder; returns the file that holds the network."""
    load: Callable[[Path], nn.Module]
    """Returns a module that runs that file on ``(N, 1, S, S)``, or on patches."""


TARGETS: dict[str, Target] = {
    "bundle": Target(write_bundle, load_torchscript),
    "onnx": Target(write_onnx, load_onnx),
    "torchscript": Target(write_torchscript, load_torchscript),
}


def export_model(
    model: TrainedModel,
    path: Path,
    target: str,
    out: Path,
    *,
    images: Sequence[Input | SiteStore] = (),
    licence: str = "",
    modality: Modality | None = None,
) -> Checked:
    """Write a model as ``target`` into the new folder ``out``, checked, with ``model-card.md``.

    Args:
        model: As loaded, in float32 on the processor.
        path: Its file, in its run folder where the card is to have scores.
        target: A name of `TARGETS`.
        out: New folder.
        images: Cases on which the exported network is compared with the network, of a store its
            test cases; without any, made-up ones.
        licence: Of the weights, for the card.
        modality: That the model is thought to be of; of one for all, what a bundle is for, what
            images are that do not say it, and what one that is told the modality is told for good.

    Raises:
        FlamesError: The target is not known or not installed, ``out`` holds something, the model or
            an image is damaged or of another modality, or the exported network gives other numbers.
    """
    if target not in TARGETS:
        raise FlamesError(f"there is no export to {target!r}", nearest(target, TARGETS))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FlamesError(f"{out} is not an empty folder", "name a new -o")
    said = _for(model, modality, target)
    if isinstance(model.network, Told):
        tell(model.network, said.modality)
        model = replace(said, network=model.network)
    metadata = {key: value for key, value in load_metadata(path).items() if key != "format"}
    metadata["version"] = model.version
    with _whole(out) as folder:
        written = TARGETS[target].write(said, metadata, folder)
        checked = check(model, TARGETS[target].load(written), images, modality=modality)
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


def _for(model: TrainedModel, modality: Modality | None, target: str) -> TrainedModel:
    """Return the model as one of the modality that it is exported for.

    A bundle normalises by one, and nobody tells an exported network what it is shown.
    """
    if modality is not None and model.modality not in ("all", modality):
        raise FlamesError(
            f"model {model.name} was trained on {model.modality}, not {modality}",
            f"name a model of {modality}, or leave --modality out",
        )
    one = modality if model.modality == "all" else model.modality
    if one is None and isinstance(model.network, Told):
        raise FlamesError(
            f"model {model.name} is told the modality, and an export is not",
            "say for which it is with --modality",
        )
    if one is None and target == "bundle":
        raise FlamesError(
            f"model {model.name} serves every modality, a bundle one", "say which with --modality"
        )
    if isinstance(model.network, Told):
        model = replace(model, network=of_one_modality(model.network, str(one)))
    elif target != "bundle":
        return model
    trained_on = tuple(site for site in model.trained_on if site.modality == one)
    return replace(model, modality=str(one), trained_on=trained_on)


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

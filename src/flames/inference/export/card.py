"""The model card: what a model learned from, how it scores, what it is for and what it is not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import flames
from flames.config import ModelConfig, PlanConfig
from flames.inference.predict_volumes import OVERLAP
from flames.inference.score import THRESHOLD, TrainedModel
from flames.metrics.presence import MINIMUM_PIXELS, TOP_SHARE
from flames.runs import RunFolder

if TYPE_CHECKING:
    from flames.inference.export.check import Checked

FORMS = {
    "onnx": "`model.onnx`, to be run with onnxruntime",
    "torchscript": "`model.ts`, to be loaded with `torch.jit.load`",
    "bundle": "a MONAI bundle; `python -m monai.bundle run` runs it, `docs/README.md` says how",
}


def model_card(
    model: TrainedModel,
    metadata: dict[str, str],
    run: RunFolder | None,
    checked: Checked,
    target: str,
    licence: str,
) -> str:
    """Return the card as Markdown, filled from the model's file and its run."""
    network = ModelConfig.model_validate_json(metadata["network"])
    parts = [
        f"# {model.name}",
        f"Tumour segmentation in {_kind(model)}, trained with FLAMES "
        f"{flames.__version__} by {_trainer(metadata)}. "
        "**For research only: not a medical device, not for diagnosis or treatment.**",
        _facts(model, metadata, network.name, target),
        "## What it learned from\n\n" + _training(model, metadata),
        "## How it scores\n\n" + _scores(model, run),
        "## How the export was checked\n\n" + _check(checked),
        "## Known limits\n\n" + _limits(model, run),
        "## Intended use\n\nResearch on tumour segmentation: comparing methods, preparing outlines "
        "that a person then corrects. Nobody may be diagnosed or treated by what it says.",
        "## Licence\n\n" + (licence or "Not stated by whoever exported it: ask before use."),
        "## Citation\n\nThe method: Savoia, Prezioso, Piccialli, Expert Systems 42(8), 2025, "
        "10.1111/exsy.70090. Cite the data that it learned from too.",
    ]
    return "\n\n".join(parts) + "\n"


def _facts(model: TrainedModel, metadata: dict[str, str], network: str, target: str) -> str:
    rows = {
        "form": FORMS[target],
        "version": f"`{model.version}`, first digits of the SHA-256 of its weights' file",
        "network": f"`{network}`",
        "modality": model.modality,
        "input": _sides(model) + ", " + metadata.get("input", "one channel in [-1, 1]"),
        "output": metadata.get("output", f"logits; sigmoid above {THRESHOLD} is tumour"),
        "seed": metadata.get("seed", "unknown"),
    }
    if model.presence.threshold > 0:
        rows["no tumour"] = (
            f"a case whose presence score is below {model.presence.threshold:g} gets an empty "
            "mask, in the scores below too; the score is the mean of the highest probabilities of "
            f"a slice, {TOP_SHARE:.1%} of its pixels and at least {MINIMUM_PIXELS}, in the slice "
            "where it is highest"
        )
    if model.plan is not None:
        rows["spacing"] = f"{spacing_words(model.plan)}, to which a volume is brought first"
        rows["windows"] = f"patches overlap by {OVERLAP:g}, Gaussian weights average them"
    lines = [f"| {key} | {value} |" for key, value in rows.items()]
    return "\n".join(["| | |", "|---|---|", *lines])


def _kind(model: TrainedModel) -> str:
    return "two-dimensional slices" if model.plan is None else "volumes, in three dimensions"


def _sides(model: TrainedModel) -> str:
    sides = " x ".join(str(side) for side in model.sides)
    if model.plan is None:
        return f"squares of {sides}"
    return f"patches of {sides} voxels (slices, rows, columns)"


def spacing_words(plan: PlanConfig) -> str:
    """Return a plan's spacing in words, slices first.

    >>> plan = {"patch": (4, 8, 8), "strides": [(1, 2, 2)] * 3, "kernels": [(1, 3, 3)] * 3}
    >>> spacing_words(PlanConfig(spacing=(3, 0.8, 0.8), **plan))
    '3 x 0.8 x 0.8 mm'
    >>> spacing_words(PlanConfig(spacing=(0, 0, 0), **plan))
    "every volume's own"
    """
    if not any(plan.spacing):
        return "every volume's own"
    return " x ".join(f"{length:g}" if length else "its own" for length in plan.spacing) + " mm"


def _trainer(metadata: dict[str, str]) -> str:
    if "teachers" in metadata:
        return "`flames distill`"
    further = ", and further by `flames adapt`" if "labelled_cases" in metadata else ""
    return f"strategy `{metadata.get('strategy', 'unknown')}`{further}"


def _training(model: TrainedModel, metadata: dict[str, str]) -> str:
    if "teachers" in metadata:
        images = "drew" if metadata["made_up_images"] == "true" else "owned"
        teachers = ", ".join(json.loads(metadata["teachers"]))
        told = f"A federation's models of {teachers}, on images" if teachers else "Labels of images"
        return f"{told} that the server {images}. Its file does not say more."
    if not model.trained_on:
        return "Its file does not say: it is from before models carried that."
    rows = [
        f"| {s.modality} {s.organ}{' (made up)' if s.made_up else ''} | {s.cases} | "
        f"{'volumes' if s.dimensions == 3 else 'single images'} | {_range(s.in_plane)} "
        f"{s.spacing_unit} | {_range(s.between) if s.between else '-'} |"
        for s in model.trained_on
    ]
    cases = metadata.get("labelled_cases")
    further = f"Then {cases} labelled cases of the site that `{model.name}` names." if cases else ""
    return "\n".join(
        [
            "Counts, and 5th, 50th and 95th percentiles over a site's training cases.",
            "",
            "| site | cases | of | pixels | between slices |",
            "|---|---|---|---|---|",
            *rows,
            *(["", further] if further else []),
        ]
    )


def _scores(model: TrainedModel, run: RunFolder | None) -> str:
    if run is None:
        return "The model was exported without its run, so no score is at hand."
    rows = [r for r in run.load_summary()["scores"] if r["model"] == model.name]
    if not rows:
        return "Its run scored it on no site."
    lines = [
        f"| {r['site']} ({r['modality']} {r['organ']}) | {r['cases']} | {_interval(r['dice'])} | "
        f"{_interval(r['hd95'])} {r['distance_unit']} | {_number(r['presence']['sensitivity'])} | "
        f"{_number(r['presence']['specificity'])} | {r['missed']} |"
        for r in rows
    ]
    return "\n".join(
        [
            "On test cases, which chose nothing; means with 95 % bootstrap intervals over cases.",
            "",
            "| site | cases | Dice | HD95 | sensitivity | specificity | tumours missed |",
            "|---|---|---|---|---|---|---|",
            *lines,
        ]
    )


def _check(checked: Checked) -> str:
    return (
        f"{checked.compared} through both networks: probabilities differ by at most "
        f"{checked.largest_difference:.2g}, {checked.other_decisions} {checked.points} are decided "
        "otherwise."
    )


def _limits(model: TrainedModel, run: RunFolder | None) -> str:
    limits = [
        "It sees one slice at a time, at the size above: small tumours in large images can vanish."
        if model.plan is None
        else "It works on volumes only and sees one patch at a time, at the spacing above: tumours "
        "of few voxels there can vanish, and what lies beyond a patch does not count.",
        "It knows no modality, organ or kind of image but those above.",
        "Where its training images were cropped around tumours, it finds too much elsewhere.",
    ]
    cases = sum(s.cases for s in model.trained_on)
    if model.trained_on and cases < 100:
        limits.append(f"It learned from {cases} cases only.")
    if any(s.made_up for s in model.trained_on):
        limits.append("Some or all of its training images are made up: it knows no real patient.")
    if run is not None:
        few = [r for r in run.load_summary()["scores"] if r["model"] == model.name]
        small = [r["site"] for r in few if r["cases"] < 10]
        if small:
            limits.append(
                f"Fewer than ten test cases at {', '.join(small)}: the scores say little."
            )
    return "\n".join(f"- {limit}" for limit in limits)


def _range(values: Any) -> str:
    low, middle, high = values
    return f"{middle:.3g} ({low:.3g} to {high:.3g})"


def _interval(score: Any) -> str:
    if isinstance(score, str):
        score = json.loads(score)
    if score is None or score.get("mean") is None:
        return "undefined"
    return f"{score['mean']:.3f} ({_number(score['low'])} to {_number(score['high'])})"


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.3f}"

"""The parts of a MONAI bundle that are of a network in three dimensions."""

from __future__ import annotations

from typing import Any

from flames.data import blocks, volumes
from flames.inference.export import bundle_parts as parts
from flames.inference.predict_volumes import OVERLAP
from flames.inference.score import TrainedModel

SCRIPT = "flames_volumes"


def volume_script() -> str:
    """Return a module that brings a volume to a plan's spacing, and what is found there back."""
    functions = (
        volumes.voxel_sizes,
        volumes.slice_axis,
        blocks.slice_first_spacing,
        blocks.planned_shape,
        blocks.resample,
    )
    constants = [(volumes, ("CLEARLY_THICKER", "MILLIMETRES"))]
    return parts.filled_script("bundle_volumes.txt", functions, constants)


def volume_inference(model: TrainedModel) -> dict[str, Any]:
    """Return the configuration of the inference."""
    plan = model.plan
    assert plan is not None
    load = {
        "_target_": "LoadImaged",
        "keys": "image",
        "dtype": None,
        "reader": {"_target_": f"scripts.{SCRIPT}.NativeReader"},
    }
    first = [load, {"_target_": "EnsureChannelFirstd", "keys": "image"}, parts.RAS]
    return (
        parts.settings(model, "*.nii*")
        | {
            "spacing": list(plan.spacing),
            "patch": list(plan.patch),
            "overlap": OVERLAP,
            "batch_size": plan.batch_size,
            "inferer": {
                "_target_": "SlidingWindowInferer",
                "roi_size": "@patch",
                "sw_batch_size": "@batch_size",
                "overlap": "@overlap",
                "mode": "gaussian",
                "padding_mode": "constant",
                "cval": -1.0,
                "sw_device": "@device",
                "device": "cpu",
            },
            "finder": {
                "_target_": f"scripts.{SCRIPT}.VolumeFinder",
                "network": "@network",
                "inferer": "@inferer",
                "modality": "@modality",
                "ct_window": "@ct_window",
                "spacing": "@spacing",
                "threshold": "@threshold",
                "presence_threshold": "@presence_threshold",
                "mirror": "@mirror",
            },
        }
        | parts.steps(first, "finder", [parts.BACK, parts.save_nifti(SCRIPT)])
    )

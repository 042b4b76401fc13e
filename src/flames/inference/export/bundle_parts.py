"""What the bundles of both kinds of model are made of: their script, and how they read and save."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from importlib.resources import files
from types import ModuleType
from typing import Any

from flames.data import normalise as intensities
from flames.data.augment import mirror_axis
from flames.inference.export.bundle_writer import GridWriter
from flames.inference.looks import look
from flames.inference.predict_files import ct_window
from flames.inference.score import THRESHOLD, TrainedModel
from flames.metrics import presence

CONSTANTS: tuple[tuple[ModuleType, tuple[str, ...]], ...] = (
    (intensities, intensities.CONSTANTS),
    (presence, ("TOP_SHARE", "MINIMUM_PIXELS")),
)
FUNCTIONS: tuple[Any, ...] = (
    intensities.looks_like_hu,
    *intensities.WINDOW_PARTS,
    intensities.intensity_window,
    intensities.normalise,
)
RAS = {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS", "labels": None}
BACK = {
    "_target_": "Invertd",
    "keys": "pred",
    "transform": "@preprocessing",
    "orig_keys": "image",
    "nearest_interp": True,
    "to_tensor": True,
}
SAVE = {
    "_target_": "SaveImaged",
    "keys": "pred",
    "output_dir": "@output_dir",
    "output_postfix": "mask",
    "output_dtype": "$numpy.uint8",
    "separate_folder": False,
    "resample": False,
}


def save_nifti(script: str) -> dict[str, Any]:
    """Return how a bundle whose script is ``script`` saves the mask of a volume."""
    return SAVE | {"writer": f"scripts.{script}.GridWriter"}


def filled_script(
    template: str,
    functions: Sequence[Any],
    constants: Sequence[tuple[ModuleType, tuple[str, ...]]] = (),
) -> str:
    """Return a module that needs numpy, torch, MONAI and nibabel only.

    Args:
        template: Name of a file beside this one.
        functions: FLAMES' own, whose source is carried along besides `FUNCTIONS`.
        constants: What they use, by module, besides `CONSTANTS`.
    """
    text = files("flames.inference.export").joinpath(template).read_text(encoding="utf-8")
    values = "".join(
        f"{name} = {getattr(module, name)!r}\n"
        for module, names in (*CONSTANTS, *constants)
        for name in names
    )
    carried = (*FUNCTIONS, *functions, presence.presence_score, look, GridWriter)
    sources = "\n\n".join(inspect.getsource(function) for function in carried)
    return text.replace("# CONSTANTS\n", values).replace("# FUNCTIONS\n", sources)


def settings(model: TrainedModel, pattern: str, modules: Sequence[str] = ()) -> dict[str, Any]:
    """Return what can be set from outside in the inference of either kind.

    Args:
        model: Which is exported.
        pattern: Of the names of images.
        modules: What is imported besides, as MONAI writes it.
    """
    return {
        "imports": ["$import glob", "$import numpy", "$import torch", *modules],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/images'",
        "output_dir": "$@bundle_root + '/found'",
        "pattern": pattern,
        "modality": model.modality,
        "ct_window": list(ct_window(model)),
        "threshold": THRESHOLD,
        "presence_threshold": model.presence.threshold,
        "mirror": mirror_axis(model.modality),
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "datalist": "$sorted(glob.glob(@dataset_dir + '/' + @pattern))",
        "network_def": "$torch.jit.load(@bundle_root + '/models/model.ts', map_location=@device)",
        "network": "$@network_def.to(@device)",
    }


def steps(first: Sequence[Any], finder: str, last: Sequence[Any]) -> dict[str, Any]:
    """Return the data set, and the run of every image to its mask.

    Args:
        first: Transforms of an image.
        finder: Key of what finds the mask.
        last: Transforms of the mask.
    """
    return {
        "preprocessing": {"_target_": "Compose", "transforms": list(first)},
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': i} for i in @datalist]",
            "transform": "@preprocessing",
        },
        "postprocessing": {"_target_": "Compose", "transforms": list(last)},
        "run": [f"$[@postprocessing(@{finder}(one)) for one in @dataset]"],
    }

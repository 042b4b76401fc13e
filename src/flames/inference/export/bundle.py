"""A MONAI bundle: network, settings and a script that carries what FLAMES does to an image.

The script is put together from the source of FLAMES' own functions, so that both do the same. The
bundle needs MONAI, with what its command line needs, and PyTorch, and no FLAMES.
"""

from __future__ import annotations

import inspect
import json
import platform
from pathlib import Path
from typing import Any

import monai
import numpy as np
import torch

from flames.data import picture_pixels, slices
from flames.inference.export import bundle_parts as parts
from flames.inference.export.bundle_volumes import SCRIPT as VOLUMES
from flames.inference.export.bundle_volumes import volume_inference, volume_script
from flames.inference.export.torchscript import write_torchscript
from flames.inference.score import TrainedModel

SLICES = "flames_slices"
PICTURES = "flames_pictures"
SHOWN = "$lambda one: Image.fromarray(pixels(upright(one)))"
"""What a bundle makes of an opened picture."""
SHOWN_BY = [
    "$from PIL import Image",
    *(f"$from scripts.{PICTURES} import {name}" for name in ("pixels", "upright")),
]


def write_bundle(model: TrainedModel, metadata: dict[str, str], folder: Path) -> Path:
    """Write the bundle into ``folder``; return its network's file."""
    for name in ("configs", "models", "scripts", "docs"):
        (folder / name).mkdir()
    network = write_torchscript(model, metadata, folder / "models")
    if model.plan is None:
        name, script, inference = SLICES, slice_script(), slice_inference(model)
    else:
        name, script, inference = VOLUMES, volume_script(), volume_inference(model)
    for kind, content in {"metadata": _metadata(model, metadata), "inference": inference}.items():
        text = json.dumps(content, indent=4) + "\n"
        (folder / "configs" / f"{kind}.json").write_text(text, encoding="utf-8")
    (folder / "scripts" / "__init__.py").write_text('"""Of this bundle."""\n', encoding="utf-8")
    (folder / "scripts" / f"{name}.py").write_text(script, encoding="utf-8")
    if _of_pictures(model):
        pictures = inspect.getsource(picture_pixels)
        (folder / "scripts" / f"{PICTURES}.py").write_text(pictures, encoding="utf-8")
    (folder / "docs" / "README.md").write_text(_readme(model, name), encoding="utf-8")
    return network


def slice_script() -> str:
    """Return a module that fits slices into squares, and brings what is found there back."""
    functions = (slices.fitted_size, slices.fit, slices.unfit)
    return parts.filled_script("bundle_slices.txt", functions)


def slice_inference(model: TrainedModel) -> dict[str, Any]:
    """Return the configuration of the inference of a model of slices or single images."""
    pictures = _of_pictures(model)
    load: dict[str, Any] = {"_target_": "LoadImaged", "keys": "image"}
    save: dict[str, Any] = dict(parts.SAVE)
    first: list[Any] = [load, {"_target_": "EnsureChannelFirstd", "keys": "image"}]
    last: list[Any] = []
    if pictures:
        reader = {"_target_": "PILReader", "converter": SHOWN, "reverse_indexing": False}
        load["reader"] = reader
        save |= {"output_ext": ".png", "writer": "PILWriter", "scale": 255}
        last.append({"_target_": f"scripts.{SLICES}.Transposed", "keys": "pred"})
    else:
        first.append(parts.RAS)
        last.append(parts.BACK)
        save = parts.save_nifti(SLICES)
    return (
        parts.settings(model, "*.png" if pictures else "*.nii*", SHOWN_BY if pictures else ())
        | {
            "image_size": model.image_size,
            "batch_size": 16,
            "inferer": {
                "_target_": f"scripts.{SLICES}.SliceInferer",
                "network": "@network",
                "modality": "@modality",
                "ct_window": "@ct_window",
                "image_size": "@image_size",
                "threshold": "@threshold",
                "presence_threshold": "@presence_threshold",
                "mirror": "@mirror",
                "batch_size": "@batch_size",
                "device": "@device",
            },
        }
        | parts.steps(first, "inferer", [*last, save])
    )


def _of_pictures(model: TrainedModel) -> bool:
    flat = [site.dimensions == 2 for site in model.trained_on]
    return model.plan is None and (all(flat) if flat else model.modality == "US")


def _metadata(model: TrainedModel, metadata: dict[str, str]) -> dict[str, Any]:
    flat = model.plan is None
    what = "slice by slice" if flat else "in volumes, patch by patch"

    def data(kind: str, low: float, high: float, meaning: str) -> dict[str, Any]:
        return {
            "type": "image",
            "format": kind,
            "modality": model.modality,
            "num_channels": 1,
            "spatial_shape": list(model.sides),
            "dtype": "float32",
            "value_range": [low, high],
            "is_patch_data": not flat,
            "channel_def": {"0": meaning},
        }

    return {
        "schema": "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
        "meta_schema_20240725.json",
        "version": "0.1.0",
        "changelog": {"0.1.0": f"exported from {model.name}, version {model.version}"},
        "monai_version": monai.__version__,
        "pytorch_version": torch.__version__.split("+")[0],
        "numpy_version": np.__version__,
        "required_packages_version": {"nibabel": "5.3", "fire": "0.7"}
        | ({"pillow": "11"} if flat else {}),
        "supported_apps": {},
        "name": model.name,
        "task": f"Tumour segmentation in {model.modality}",
        "description": f"A federated model, {what}. Research only, not for diagnosis.",
        "authors": "see model-card.md",
        "copyright": "see model-card.md",
        "data_source": "see model-card.md",
        "data_type": "nibabel",
        "intended_use": "Research only, not for diagnosis or treatment",
        "references": ["Savoia et al., Expert Systems 42(8), 2025, 10.1111/exsy.70090"],
        "python_version": platform.python_version(),
        "strategy": metadata.get("strategy", "unknown"),
        "network_data_format": {
            "inputs": {"image": data("magnitude", -1, 1, "image")},
            "outputs": {"pred": data("segmentation", -100, 100, "tumour logits")},
        },
    }


def _readme(model: TrainedModel, script: str) -> str:
    if model.plan is None:
        packages, images = "MONAI, fire, PyTorch, nibabel and Pillow", "image"
        work = (
            "normalises an image, fits its slices into squares of\n"
            f"{model.image_size} pixels and brings the result back."
        )
    else:
        packages, images = "MONAI, fire, PyTorch and nibabel", "volume"
        sides = " x ".join(str(side) for side in model.plan.patch)
        work = (
            "normalises a volume, brings it to the spacing that\n"
            "`configs/inference.json` says, and the result back. In between MONAI's\n"
            f"`SlidingWindowInferer` goes over it in patches of {sides} voxels, slices first."
        )
    return f"""# {model.name} as a MONAI bundle

Research only, not for diagnosis. `model-card.md` says what the model learned from and how it
scores.

From this folder, with {packages} installed, and no FLAMES:

```console
$ python -m monai.bundle run --config_file configs/inference.json \\
    --meta_file configs/metadata.json --bundle_root . \\
    --dataset_dir IMAGES --output_dir FOUND
```

A mask is written for each {images}, on its own grid. The network alone is `models/model.ts`;
`scripts/{script}.py` {work}
"""

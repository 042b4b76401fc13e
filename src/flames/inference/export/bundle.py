"""A MONAI bundle: network, settings and a script that carries what FLAMES does to an image.

The script is put together from the source of FLAMES' own functions, so that both do the same. The
bundle needs MONAI and PyTorch, and no FLAMES.
"""

from __future__ import annotations

import inspect
import json
import platform
from importlib.resources import files
from pathlib import Path
from typing import Any

import monai
import numpy as np
import torch

from flames.data import normalise as intensities
from flames.data import slices
from flames.inference.export.torchscript import write_torchscript
from flames.inference.score import THRESHOLD, TrainedModel
from flames.metrics import presence

PLACE = "scripts/flames_slices.py"


def write_bundle(model: TrainedModel, metadata: dict[str, str], folder: Path) -> Path:
    """Write the bundle into ``folder``; return its network's file."""
    for name in ("configs", "models", "scripts", "docs"):
        (folder / name).mkdir()
    network = write_torchscript(model, metadata, folder / "models")
    configs = {"metadata": _metadata(model, metadata), "inference": _inference(model)}
    for name, content in configs.items():
        text = json.dumps(content, indent=4) + "\n"
        (folder / "configs" / f"{name}.json").write_text(text, encoding="utf-8")
    (folder / "scripts" / "__init__.py").write_text('"""Of this bundle."""\n', encoding="utf-8")
    (folder / PLACE).write_text(bundle_script(), encoding="utf-8")
    (folder / "docs" / "README.md").write_text(_readme(model), encoding="utf-8")
    return network


def bundle_script() -> str:
    """Return a module that needs numpy, torch and MONAI only."""
    template = (
        files("flames.inference.export").joinpath("bundle_script.txt").read_text(encoding="utf-8")
    )
    constants = "\n".join(
        f"{name} = {getattr(module, name)!r}"
        for module, names in (
            (intensities, intensities.CONSTANTS),
            (presence, ("TOP_SHARE", "MINIMUM_PIXELS")),
        )
        for name in names
    )
    functions: list[Any] = [
        intensities.looks_like_hu,
        *intensities.WINDOW_PARTS,
        intensities.intensity_window,
        intensities.normalise,
        slices.fitted_size,
        slices.fit,
        slices.unfit,
        presence.presence_score,
    ]
    sources = "\n\n".join(inspect.getsource(function) for function in functions)
    return template.replace("# CONSTANTS\n", constants + "\n").replace("# FUNCTIONS\n", sources)


def _inference(model: TrainedModel) -> dict[str, Any]:
    flat = [site.dimensions == 2 for site in model.trained_on]
    pictures = all(flat) if flat else model.modality == "US"
    modality = "MR" if model.modality == "all" else model.modality
    load: dict[str, Any] = {"_target_": "LoadImaged", "keys": "image"}
    if pictures:
        load |= {"reader": "PILReader", "reverse_indexing": False}
    first = [load, {"_target_": "EnsureChannelFirstd", "keys": "image"}]
    last: list[dict[str, Any]] = []
    if not pictures:
        first.append(
            {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS", "labels": None}
        )
        last.append(
            {
                "_target_": "Invertd",
                "keys": "pred",
                "transform": "@preprocessing",
                "orig_keys": "image",
                "nearest_interp": True,
                "to_tensor": True,
            }
        )
    save: dict[str, Any] = {
        "_target_": "SaveImaged",
        "keys": "pred",
        "output_dir": "@output_dir",
        "output_postfix": "mask",
        "output_dtype": "$numpy.uint8",
        "separate_folder": False,
        "resample": False,
    }
    if pictures:
        save |= {"output_ext": ".png", "writer": "PILWriter", "scale": 255}
        last.append({"_target_": "scripts.flames_slices.Transposed", "keys": "pred"})
    return {
        "imports": ["$import glob", "$import numpy", "$import torch"],
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/images'",
        "output_dir": "$@bundle_root + '/found'",
        "pattern": "*.png" if pictures else "*.nii*",
        "modality": modality,
        "ct_window": list(_ct_window(model)),
        "image_size": model.image_size,
        "threshold": THRESHOLD,
        "presence_threshold": model.presence.threshold,
        "batch_size": 16,
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "datalist": "$sorted(glob.glob(@dataset_dir + '/' + @pattern))",
        "network_def": "$torch.jit.load(@bundle_root + '/models/model.ts', map_location=@device)",
        "network": "$@network_def.to(@device)",
        "preprocessing": {"_target_": "Compose", "transforms": first},
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': i} for i in @datalist]",
            "transform": "@preprocessing",
        },
        "inferer": {
            "_target_": "scripts.flames_slices.SliceInferer",
            "network": "@network",
            "modality": "@modality",
            "ct_window": "@ct_window",
            "image_size": "@image_size",
            "threshold": "@threshold",
            "presence_threshold": "@presence_threshold",
            "batch_size": "@batch_size",
            "device": "@device",
        },
        "postprocessing": {"_target_": "Compose", "transforms": [*last, save]},
        "run": ["$[@postprocessing(@inferer(one)) for one in @dataset]"],
    }


def _ct_window(model: TrainedModel) -> tuple[float, float]:
    from flames.inference.predict_files import ct_window

    return ct_window(model)


def _metadata(model: TrainedModel, metadata: dict[str, str]) -> dict[str, Any]:
    side = model.image_size

    def data(kind: str, low: float, high: float, meaning: str) -> dict[str, Any]:
        return {
            "type": "image",
            "format": kind,
            "modality": model.modality,
            "num_channels": 1,
            "spatial_shape": [side, side],
            "dtype": "float32",
            "value_range": [low, high],
            "is_patch_data": False,
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
        "required_packages_version": {"nibabel": "5.3", "pillow": "11"},
        "supported_apps": {},
        "name": model.name,
        "task": f"Tumour segmentation in {model.modality}",
        "description": "A federated model, slice by slice. Research only, not for diagnosis.",
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


def _readme(model: TrainedModel) -> str:
    return f"""# {model.name} as a MONAI bundle

Research only, not for diagnosis. `model-card.md` says what the model learned from and how it
scores.

From this folder, with MONAI, PyTorch, nibabel and Pillow installed, and no FLAMES:

```console
$ python -m monai.bundle run --config_file configs/inference.json \\
    --meta_file configs/metadata.json --bundle_root . \\
    --dataset_dir IMAGES --output_dir FOUND
```

A mask is written for each image, on the image's own grid. The network alone is `models/model.ts`;
`scripts/flames_slices.py` normalises an image, fits its slices into squares of {model.image_size}
pixels and brings the result back.
"""

"""Runs of one untrained network, images for it, and its bundle run where FLAMES is not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from PIL import ExifTags, Image

from flames.config import ModelConfig, PlanConfig
from flames.data.fingerprint import Fingerprint
from flames.data.inputs import find_inputs
from flames.inference.predict_files import PredictOptions, predict_files
from flames.inference.score import TrainedModel
from flames.models import make_model
from flames.models.precision import Precision
from flames.models.weights import model_arrays, save_arrays

CPU = Precision(torch.device("cpu"), torch.float32)
WITHOUT_FLAMES = """import sys
class Block:
    def find_spec(self, name, *_):
        if name.split('.')[0] == 'flames': raise ImportError(name)
sys.meta_path.insert(0, Block())
sys.path.insert(0, '.')
from monai.bundle import run
run(config_file='configs/inference.json', meta_file='configs/metadata.json',
    bundle_root='.', dataset_dir=sys.argv[1], output_dir=sys.argv[2])
"""
PRINT = {
    "organ": "limb", "cases": 5, "made_up": True, "spacing_unit": "mm",
    "in_plane": (0.8, 0.9, 1.0), "brightness": (-0.5, -0.3, -0.2), "contrast": (0.3, 0.5, 0.6),
}  # fmt: skip


def model_file(
    folder: Path,
    modality: str,
    *,
    summary: bool = True,
    threshold: float = 0.0,
    plan: PlanConfig | None = None,
) -> Path:
    """Write a run of one untrained network whose decisions depend on the image."""
    torch.manual_seed(3)
    network = make_model(ModelConfig(), plan)
    with torch.no_grad():
        network.network.output_block.conv.conv.bias.zero_()
        network.network.output_block.conv.conv.weight.mul_(20)
    flat = modality == "US"
    site = Fingerprint(
        modality=modality, dimensions=2 if flat else 3, between=None if flat else (3.0, 3.0, 5.0),
        ct_window=(-200.0, 300.0) if modality == "CT" else None, **PRINT,
    )  # fmt: skip
    metadata = {
        "name": f"server:{modality}",
        "kind": "server",
        "modality": modality,
        "network": ModelConfig().model_dump_json(),
        "image_size": 32,
        "strategy": "flames",
        "trained_on": [site.model_dump(mode="json")],
        "presence_threshold": threshold,
    }
    if plan is not None:
        metadata["plan"] = plan.model_dump_json()
    path = folder / "models" / f"{modality}.safetensors"
    save_arrays(path, model_arrays(network), metadata)
    (folder / "config.toml").touch()
    if summary:
        dice = {"mean": 0.5, "low": 0.25, "high": 0.75, "n": 4}
        score = {
            "model": f"server:{modality}", "site": "north", "modality": modality, "organ": "limb",
            "cases": 4, "dice": dice, "hd95": {"mean": None, "low": None, "high": None, "n": 0},
            "distance_unit": "mm", "presence": {"sensitivity": 1.0, "specificity": None},
            "missed": 1,
        }  # fmt: skip
        other = score | {"model": "server:XX", "site": "elsewhere"}
        (folder / "summary.json").write_text(json.dumps({"scores": [score, other]}))
    return path


def images(folder: Path, modality: str) -> Path:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    for number in range(2):
        if modality == "US":
            array = rng.integers(0, 255, (40, 56, 3), dtype=np.uint8)
            array[8:20, 10:30] //= 4
            Image.fromarray(array if number else array[..., 0]).save(folder / f"{number}.png")
            continue
        volume = rng.integers(-900, 600, (24, 30, 5), dtype=np.int16)
        volume[5:12, 8:15, 1:4] = 250
        if modality == "MR":
            volume = np.maximum(volume, 0)
        affine = np.diag([-0.9, 0.8, 4.0, 1.0])
        nib.save(nib.Nifti1Image(volume, affine), folder / f"{number}.nii.gz")
    return folder


def further_units(path: Path) -> None:
    """Write a volume beside itself in micrometres, in metres, and its middle slice alone."""
    volume = nib.load(path)
    array = np.asarray(volume.dataobj)
    for name, scale, part in (("micron", 1e3, array), ("meter", 1e-3, array), ("mm", 1, None)):
        affine = volume.affine.copy()
        affine[:3] *= scale
        image = nib.Nifti1Image(array[:, :, 2:3] if part is None else part, affine)
        image.header.set_xyzt_units(name)
        nib.save(image, path.with_name(f"{name}.nii.gz"))


def further_pictures(path: Path) -> None:
    """Write a picture beside itself by a palette, with transparency, in 16 bits, and turned."""
    picture, exif = Image.open(path), Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    picture.convert("P", palette=Image.Palette.ADAPTIVE).save(path.with_name("palette.png"))
    picture.convert("LA").save(path.with_name("alpha.png"))
    wide = np.asarray(picture.convert("L")).astype(np.uint16) * 200
    Image.fromarray(wide).save(path.with_name("wide.png"))
    picture.save(path.with_name("turned.png"), exif=exif)


def masks(model: TrainedModel, folder: Path, out: Path) -> list[np.ndarray]:
    list(predict_files(model, find_inputs([folder]), out, precision=CPU, options=PredictOptions()))
    return read_masks(out)


def read_masks(out: Path) -> list[np.ndarray]:
    found = [np.asarray(nib.load(p).dataobj) for p in sorted(out.glob("*.nii.gz"))]
    return found + [np.asarray(Image.open(p)) for p in sorted(out.glob("*.png"))]


def run_bundle(bundle: Path, images: Path, found: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", WITHOUT_FLAMES, str(images), str(found)],
        cwd=bundle,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr[-2000:]

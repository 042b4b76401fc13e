"""A model of volumes that left FLAMES finds what it found inside, voxel by voxel."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from exported import CPU, further_units, images, masks, model_file, run_bundle
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer
from PIL import Image

from flames.config import PlanConfig
from flames.errors import FlamesError
from flames.inference.choose import choose_model
from flames.inference.export.bundle_volumes import volume_script
from flames.inference.export.check import find_images
from flames.inference.export.targets import TARGETS, export_model
from flames.inference.load import load_any
from flames.inference.score import load_model

THICK = PlanConfig(
    spacing=(3.0, 1.1, 1.1),
    patch=(4, 16, 16),
    strides=((1, 2, 2), (2, 2, 2), (1, 1, 1)),
    kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
)
"""The network's first convolution strides: its logits are enlarged at the end."""
OWN = PlanConfig(
    spacing=(0.0, 0.0, 0.0),
    patch=(4, 16, 8),
    strides=((1, 1, 1), (2, 2, 2), (1, 2, 1)),
    kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
)


@pytest.fixture(autouse=True)
def _thin_network(monkeypatch):
    import flames.models  # noqa: F401

    monkeypatch.setattr(sys.modules["flames.models.unet3d"], "FILTERS", (4, 8, 16))


def more_images(folder: Path) -> Path:
    """Add volumes turned, kept in other types of number, or smaller than a patch."""
    rng = np.random.default_rng(2)
    turned = np.array([[0, 0, -0.8, 5], [0.1, 1.2, 0, -7], [4.5, 0, 0.1, 3], [0, 0, 0, 1.0]])
    small = np.maximum(rng.normal(200, 90, (7, 14, 20)), 0)
    small[2:5, 4:9, 5:12] += 300
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(np.dtype(">i2"))
    nib.save(nib.Nifti1Image(small.astype(">i2"), turned, header), folder / "big-endian.nii")
    nib.save(nib.Nifti1Image(small[:3].astype(np.float32), turned), folder / "float.nii.gz")
    return folder


@pytest.mark.parametrize("plan", [THICK, OWN], ids=["thick", "own"])
@pytest.mark.parametrize("target", TARGETS)
def test_an_export_is_checked_and_predicts_the_same(tmp_path: Path, target: str, plan):
    path = model_file(tmp_path / "run", "CT", plan=plan)
    model = load_model(path, CPU)
    folder = images(tmp_path / "in", "CT")
    checked = export_model(model, path, target, tmp_path / "out", images=find_images([folder]))
    assert (checked.images, checked.volumes, checked.squares) == (2, 2, 0)
    assert (checked.compared, checked.points) == ("2 volumes", "voxels")
    assert checked.largest_difference < 1e-4
    exported = load_any(choose_model(tmp_path / "out"), CPU)
    assert (exported.version, exported.plan) == (model.version, plan)
    one = masks(model, folder, tmp_path / "a")
    two = masks(exported, folder, tmp_path / "b")
    assert 0.05 < np.mean(one) < 0.95
    for a, b in zip(one, two, strict=True):
        assert (a != b).mean() < 1e-3
    for number in (1, 3):
        patches = torch.rand(number, 1, *plan.patch) * 2 - 1
        with torch.inference_mode():
            torch.testing.assert_close(
                exported.network(patches), model.network.eval()(patches), rtol=1e-3, atol=1e-3
            )


@pytest.mark.parametrize(("modality", "plan"), [("MR", THICK), ("CT", OWN)], ids=["thick", "own"])
def test_a_bundle_runs_without_flames_and_finds_the_same(tmp_path: Path, modality: str, plan):
    path = model_file(tmp_path / "run", modality, plan=plan)
    model = load_model(path, CPU)
    folder = more_images(images(tmp_path / "in", modality))
    further_units(folder / "0.nii.gz")
    export_model(model, path, "bundle", tmp_path / "bundle")
    found = tmp_path / "found"
    run_bundle(tmp_path / "bundle", folder, found)
    expected = masks(model, folder, tmp_path / "a")
    assert 0.05 < np.mean([m.mean() for m in expected]) < 0.95
    names = {p.name.split(".")[0]: p for p in found.iterdir()}
    assert len(names) == 7
    for source in folder.iterdir():
        name = source.name.split(".")[0]
        one = nib.load(next((tmp_path / "a").glob(f"{name}*.nii.gz")))
        two = nib.load(names[f"{name}_mask"])
        np.testing.assert_array_equal(np.asarray(one.dataobj), np.asarray(two.dataobj))
        np.testing.assert_allclose(two.affine, nib.load(source).affine, atol=1e-6)
        assert two.header["xyzt_units"] == nib.load(source).header["xyzt_units"]


@pytest.mark.parametrize("threshold", [0.0, 1.1])
def test_a_bundle_is_silent_where_flames_is(tmp_path: Path, threshold: float):
    path = model_file(tmp_path / "run", "MR", plan=OWN, threshold=threshold)
    export_model(load_model(path, CPU), path, "bundle", tmp_path / "out")
    settings = json.loads((tmp_path / "out" / "configs" / "inference.json").read_text())
    assert settings["presence_threshold"] == threshold
    scope: dict = {}
    exec(compile(volume_script(), "flames_volumes.py", "exec"), scope)
    finder = scope["VolumeFinder"](
        network=load_model(path, CPU).network,
        inferer=SlidingWindowInferer(OWN.patch, mode="gaussian", overlap=0.5),
        modality="MR",
        ct_window=(-200, 300),
        spacing=OWN.spacing,
        threshold=0.5,
        presence_threshold=settings["presence_threshold"],
        mirror=settings["mirror"],
    )
    assert finder.mirror == -2
    volume = MetaTensor(torch.rand(1, 24, 30, 5), affine=torch.eye(4))
    assert bool(finder({"image": volume})["pred"].any()) is (threshold == 0)
    with pytest.raises(ValueError, match="one channel"):
        finder({"image": MetaTensor(torch.rand(2, 24, 30, 5), affine=torch.eye(4))})


def test_the_configuration_of_a_bundle_is_the_plan(tmp_path: Path):
    path = model_file(tmp_path / "run", "CT", plan=THICK)
    export_model(load_model(path, CPU), path, "bundle", tmp_path / "out")
    settings = json.loads((tmp_path / "out" / "configs" / "inference.json").read_text())
    assert (settings["spacing"], settings["patch"]) == ([3.0, 1.1, 1.1], [4, 16, 16])
    assert (settings["overlap"], settings["inferer"]["mode"]) == (0.5, "gaussian")
    about = json.loads((tmp_path / "out" / "configs" / "metadata.json").read_text())
    assert about["network_data_format"]["inputs"]["image"]["spatial_shape"] == [4, 16, 16]
    text = volume_script()
    assert "import flames" not in text
    assert "from flames" not in text
    assert "# FUNCTIONS" not in text


@pytest.mark.parametrize(
    ("plan", "spacing"), [(THICK, "3 x 1.1 x 1.1 mm"), (OWN, "every volume's own")]
)
def test_the_card_says_three_dimensions_patch_and_spacing(tmp_path: Path, plan, spacing: str):
    path = model_file(tmp_path / "run", "MR", plan=plan)
    export_model(load_model(path, CPU), path, "torchscript", tmp_path / "out")
    card = (tmp_path / "out" / "model-card.md").read_text(encoding="utf-8")
    sides = " x ".join(map(str, plan.patch))
    for words in (
        "Tumour segmentation in volumes, in three dimensions",
        f"patches of {sides} voxels",
        f"| spacing | {spacing}",
        "1 made-up volume through both networks",
        "voxels are decided otherwise",
        "It works on volumes only",
    ):
        assert words in card
    assert "one slice at a time" not in card


def test_an_export_is_checked_on_the_test_cases_of_a_store(tmp_path: Path, write_store):
    store = write_store(
        tmp_path / "s", site="s", modality="MR", shape=(20, 26, 4), slice_axis=2, counts=(2, 2, 3)
    )
    path = model_file(tmp_path / "run", "MR", plan=THICK)
    model = load_model(path, CPU)
    given = find_images([store.path, images(tmp_path / "in", "MR")])
    checked = export_model(model, path, "torchscript", tmp_path / "out", images=given)
    assert checked.volumes == 5


def test_images_that_the_model_is_not_for_are_refused(tmp_path: Path, write_store):
    path = model_file(tmp_path / "run", "MR", plan=THICK)
    model = load_model(path, CPU)
    picture = tmp_path / "picture.png"
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(picture)
    flat = write_store(tmp_path / "flat", site="flat", modality="MR")
    other = write_store(tmp_path / "ct", site="ct", modality="CT", shape=(20, 26, 4), slice_axis=2)
    untested = write_store(
        tmp_path / "untested", site="untested", modality="MR", shape=(20, 26, 4), slice_axis=2,
        counts=(2, 2, 0),
    )  # fmt: skip
    for given, words in (
        (untested.path, "has no test cases to compare"),
        (picture, "is a single image"),
        (flat.path, "is a single image"),
        (other.path, "is CT, the model was trained on MR"),
    ):
        with pytest.raises(FlamesError, match=words):
            export_model(model, path, "torchscript", tmp_path / "o", images=find_images([given]))
    assert not (tmp_path / "o").exists()

"""A model that left FLAMES finds what it found inside, voxel by voxel, and says what it is."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from exported import (
    CPU,
    further_pictures,
    further_units,
    images,
    masks,
    model_file,
    read_masks,
    run_bundle,
)
from torch import nn

from flames.config import ModelConfig
from flames.errors import FlamesError
from flames.inference.choose import choose_model
from flames.inference.export import targets
from flames.inference.export.bundle import slice_script
from flames.inference.export.check import Shown, compare_squares, find_images
from flames.inference.export.targets import TARGETS, Target, export_model
from flames.inference.load import load_any
from flames.inference.score import TrainedModel, load_model
from flames.models import make_model
from flames.models.student import tell
from flames.models.weights import load_arrays, load_metadata, save_arrays


@pytest.fixture(autouse=True)
def _small_network(monkeypatch):
    import flames.models  # noqa: F401

    monkeypatch.setattr(sys.modules["flames.models.unet"], "FILTERS", (4, 8, 16))


@pytest.mark.parametrize("target", TARGETS)
def test_an_export_is_checked_and_predicts_the_same(tmp_path: Path, target: str):
    path = model_file(tmp_path / "run", "CT")
    model = load_model(path, CPU)
    folder = images(tmp_path / "in", "CT")
    checked = export_model(model, path, target, tmp_path / "out", images=find_images([folder]))
    assert (checked.images, checked.squares) == (2, 10)
    assert checked.largest_difference < 1e-4
    exported = load_any(choose_model(tmp_path / "out"), CPU)
    assert (exported.name, exported.version) == (model.name, model.version)
    assert exported.trained_on == model.trained_on
    one = masks(model, folder, tmp_path / "a")
    two = masks(exported, folder, tmp_path / "b")
    assert 0.05 < np.mean(one) < 0.95
    for a, b in zip(one, two, strict=True):
        assert (a != b).mean() < 1e-3


@pytest.mark.parametrize("modality", ["CT", "MR", "US"])
def test_a_bundle_runs_without_flames_and_finds_the_same(tmp_path: Path, modality: str):
    path = model_file(tmp_path / "run", modality)
    model = load_model(path, CPU)
    folder = images(tmp_path / "in", modality)
    if modality == "MR":
        further_units(folder / "0.nii.gz")
    if modality == "US":
        further_pictures(folder / "1.png")
    bundle = tmp_path / "bundle"
    export_model(model, path, "bundle", bundle)
    found = tmp_path / "found"
    run_bundle(bundle, folder, found)
    expected, there = masks(model, folder, tmp_path / "a"), read_masks(found)
    assert 0.05 < np.mean([(m > 0).mean() for m in expected]) < 0.95
    for a, b in zip(expected, there, strict=True):
        np.testing.assert_array_equal(a > 0, b > 0)
    for path in found.glob("*.nii.gz"):
        source = nib.load(folder / path.name.replace("_mask", ""))
        np.testing.assert_allclose(nib.load(path).affine, source.affine)
        assert nib.load(path).header["xyzt_units"] == source.header["xyzt_units"]


def test_a_bundle_is_silent_where_flames_is(tmp_path: Path):
    path = model_file(tmp_path / "run", "CT", threshold=0.999)
    model = load_model(path, CPU)
    export_model(model, path, "bundle", tmp_path / "out")
    settings = json.loads((tmp_path / "out" / "configs" / "inference.json").read_text())
    assert settings["presence_threshold"] == 0.999
    scope: dict = {}
    exec(compile(slice_script(), "flames_slices.py", "exec"), scope)
    from monai.data import MetaTensor

    for threshold, silent in ((1.1, True), (0.0, False)):
        inferer = scope["SliceInferer"](
            model.network, "CT", (-200, 300), 32, 0.5, threshold, -2, 4, torch.device("cpu")
        )
        volume = torch.randint(-900, 600, (1, 24, 30, 5)).float()
        found = inferer({"image": MetaTensor(volume, affine=torch.eye(4))})["pred"]
        assert bool(found.any()) is not silent
    with pytest.raises(ValueError, match="one channel"):
        inferer({"image": MetaTensor(torch.rand(3, 24, 30, 5), affine=torch.eye(4))})
    folder = images(tmp_path / "in", "CT")
    exported = load_any(choose_model(tmp_path / "out"), CPU)
    assert exported.presence.threshold == 0.999
    for one, two in zip(
        masks(model, folder, tmp_path / "a"), masks(exported, folder, tmp_path / "b"), strict=True
    ):
        np.testing.assert_array_equal(one, two)


def test_the_script_of_a_bundle_names_flames_in_words_only():
    text = slice_script()
    compile(text, "flames_slices.py", "exec")
    assert "import flames" not in text
    assert "from flames" not in text
    assert "# FUNCTIONS" not in text


def test_the_card_is_filled_from_the_run(tmp_path: Path):
    path = model_file(tmp_path / "run", "CT")
    export_model(load_model(path, CPU), path, "torchscript", tmp_path / "out", licence="CC BY 4.0")
    card = (tmp_path / "out" / "model-card.md").read_text(encoding="utf-8")
    for words in (
        "| CT limb (made up) | 5 | volumes | 0.9 (0.8 to 1) mm | 3 (3 to 5) |",
        "| north (CT limb) | 4 | 0.500 (0.250 to 0.750) | undefined mm | 1.000 | - | 1 |",
        "It learned from 5 cases only.",
        "it knows no real patient",
        "CC BY 4.0",
        "10.1111/exsy.70090",
        "not for diagnosis",
        "made-up images through both networks",
    ):
        assert words in card
    assert "elsewhere (CT" not in card


@pytest.mark.parametrize("threshold", [0.0, 0.7])
def test_the_card_says_below_which_presence_score_a_mask_is_empty(tmp_path: Path, threshold: float):
    path = model_file(tmp_path / "run", "CT", threshold=threshold)
    export_model(load_model(path, CPU), path, "torchscript", tmp_path / "out")
    card = (tmp_path / "out" / "model-card.md").read_text(encoding="utf-8")
    said = "presence score is below 0.7 gets an empty mask" in card
    assert said == (threshold > 0)
    assert ("0.5% of its pixels and at least 16" in card) == (threshold > 0)


def test_a_card_without_a_run_says_so(tmp_path: Path):
    path = model_file(tmp_path / "run", "CT", summary=False)
    export_model(load_model(path, CPU), path, "torchscript", tmp_path / "out")
    card = (tmp_path / "out" / "model-card.md").read_text(encoding="utf-8")
    assert "no score is at hand" in card
    assert "ask before use" in card


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            {"name": "student:told-labels", "teachers": ["CT", "US"], "made_up_images": False},
            ("by `flames distill`. ", "models of CT, US, on images that the server owned."),
        ),
        (
            {"name": "student:told-alone", "teachers": [], "made_up_images": True},
            ("by `flames distill`. ", "Labels of images that the server drew."),
        ),
        (
            {"name": "adapted:north", "strategy": "modality", "labelled_cases": "20"},
            (
                "by strategy `modality`, and further by `flames adapt`. ",
                "| CT limb (made up) | 5 |",
                "Then 20 labelled cases of the site that `adapted:north` names.",
            ),
        ),
    ],
)
def test_the_card_of_a_student_or_an_adapted_model_says_what_it_learned_from(
    tmp_path: Path, more: dict[str, object], words: tuple[str, ...]
):
    path = model_file(tmp_path / "run", "CT", summary=False)
    known = load_metadata(path)
    if "teachers" in more:
        known = {k: v for k, v in known.items() if k not in ("strategy", "trained_on")}
    save_arrays(path, load_arrays(path), known | more)
    export_model(load_model(path, CPU), path, "torchscript", tmp_path / "out")
    card = (tmp_path / "out" / "model-card.md").read_text(encoding="utf-8")
    for said in words:
        assert said in card
    assert "unknown" not in card.split("## What it learned from")[0].split("|")[0]
    assert "from before models carried that" not in card


def test_an_export_that_differs_is_refused_and_leaves_nothing(tmp_path: Path, monkeypatch):
    class Other(nn.Module):
        def forward(self, image):
            return image * 0

    real = TARGETS["torchscript"]
    monkeypatch.setitem(targets.TARGETS, "torchscript", Target(real.write, lambda _path: Other()))
    path = model_file(tmp_path / "run", "CT")
    with pytest.raises(FlamesError, match="differ by up to"):
        export_model(load_model(path, CPU), path, "torchscript", tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_differences_are_counted():
    class Half(nn.Module):
        def forward(self, image):
            return image * 0 + 0.01

    class Zero(nn.Module):
        def forward(self, image):
            return image * 0 - 0.01

    model = TrainedModel("m", "server", "CT", 4, Half())
    shown = [Shown(np.zeros((3, 4, 4), np.float32), None)]
    checked = compare_squares(model, Zero(), shown, made_up=True)
    assert checked.compared == "3 squares of made-up images"
    assert (checked.squares, checked.other_decisions) == (3, 48)
    assert checked.largest_difference == pytest.approx(0.005, rel=1e-3)


def test_what_is_no_number_is_no_agreement(tmp_path: Path):
    class Broken(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return torch.full_like(image, math.nan)

    model = load_model(model_file(tmp_path / "run", "US"), CPU)
    case = Shown(np.zeros((2, 32, 32), np.float32), None)
    assert compare_squares(model, Broken(), [case], made_up=False).largest_difference == math.inf


def test_a_bundle_of_a_model_for_all_is_for_one_modality(tmp_path: Path):
    path = model_file(tmp_path / "run", "US")
    us = load_model(path, CPU)
    ct = us.trained_on[0].model_copy(update={"modality": "CT", "dimensions": 3})
    model = replace(us, modality="all", trained_on=(*us.trained_on, ct))
    with pytest.raises(FlamesError, match="serves every modality"):
        export_model(model, path, "bundle", tmp_path / "a")
    with pytest.raises(FlamesError, match="was trained on US, not CT"):
        export_model(us, path, "torchscript", tmp_path / "a", modality="CT")
    for modality, pattern in (("US", "*.png"), ("CT", "*.nii*")):
        out = tmp_path / modality
        export_model(model, path, "bundle", out, modality=modality)
        settings = json.loads((out / "configs" / "inference.json").read_text())
        assert (settings["modality"], settings["pattern"]) == (modality, pattern)


def test_an_export_of_a_model_for_all_is_compared_on_pictures_of_a_modality_that_is_said(
    tmp_path: Path,
):
    path = model_file(tmp_path / "run", "US")
    model = replace(load_model(path, CPU), modality="all")
    given = find_images([images(tmp_path / "in", "US")])
    with pytest.raises(FlamesError, match="does not say its own") as caught:
        export_model(model, path, "torchscript", tmp_path / "a", images=given)
    assert "--modality" in caught.value.remedy
    for target in ("torchscript", "bundle"):
        out = tmp_path / target
        checked = export_model(model, path, target, out, images=given, modality="US")
        assert (checked.images, checked.squares) == (2, 2)


def test_an_image_of_several_channels_is_not_answered_with_an_option_of_other_commands(
    tmp_path: Path,
):
    path = model_file(tmp_path / "run", "MR")
    (tmp_path / "in").mkdir()
    several = nib.Nifti1Image(np.zeros((9, 8, 4, 3), np.int16), np.eye(4))
    nib.save(several, tmp_path / "in" / "a.nii.gz")
    given = find_images([tmp_path / "in"])
    with pytest.raises(FlamesError, match="has 3 channels") as caught:
        export_model(load_model(path, CPU), path, "torchscript", tmp_path / "a", images=given)
    assert "--channel" not in caught.value.remedy
    assert "one channel" in caught.value.remedy


def test_a_student_that_is_told_is_exported_for_one_modality(tmp_path: Path):
    path = model_file(tmp_path / "run", "US")
    us = load_model(path, CPU)
    torch.manual_seed(0)
    network = make_model(ModelConfig(name="told-student", pretrained=False)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model = replace(us, modality="all", network=network)
    with pytest.raises(FlamesError, match="is told the modality") as caught:
        export_model(model, path, "torchscript", tmp_path / "a")
    assert "--modality" in caught.value.remedy
    image, found = torch.randn(2, 1, 32, 32), {}
    for modality in ("US", "MR"):
        out = tmp_path / modality
        checked = export_model(model, path, "torchscript", out, modality=modality)
        assert checked.largest_difference < 1e-5
        exported = TARGETS["torchscript"].load(out / "model.ts")
        tell(network, modality)
        with torch.inference_mode():
            found[modality] = exported(image)
            torch.testing.assert_close(found[modality], network(image), rtol=1e-4, atol=1e-4)
    assert (found["US"] - found["MR"]).abs().max() > 0.01
    given = find_images([images(tmp_path / "in", "CT")])
    with pytest.raises(FlamesError, match="is CT, the model was trained on MR"):
        export_model(model, path, "torchscript", tmp_path / "a", modality="MR", images=given)


def test_what_cannot_be_exported_is_said(tmp_path: Path):
    path = model_file(tmp_path / "run", "MR")
    model = load_model(path, CPU)
    ct = images(tmp_path / "in", "CT")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    for target, out, given, words in (
        ("onx", tmp_path / "o", (), "no export to 'onx'"),
        ("onnx", tmp_path / "full", (), "not an empty folder"),
        ("torchscript", tmp_path / "o", find_images([ct]), "is CT, the model was trained on MR"),
    ):
        with pytest.raises(FlamesError, match=words) as caught:
            export_model(model, path, target, out, images=given)
        assert caught.value.remedy
    assert not (tmp_path / "o").exists()


@pytest.mark.filterwarnings("ignore")  # the exporters' own
@pytest.mark.parametrize("target", TARGETS)
def test_an_exported_file_with_weights_that_are_not_finite_is_refused(tmp_path: Path, target: str):
    path = model_file(tmp_path / "run", "CT")
    model = load_model(path, CPU)
    with torch.no_grad():
        next(model.network.parameters()).fill_(torch.nan)
    (tmp_path / "out").mkdir()
    written = TARGETS[target].write(model, load_metadata(path), tmp_path / "out")
    with pytest.raises(FlamesError, match=r"not finite: array '.*conv.*' ") as caught:
        load_any(written, CPU)
    assert str(written) in caught.value.found


@pytest.mark.parametrize("name", ["model.onnx", "model.ts", "model.safetensors", "model.bin"])
def test_a_damaged_model_file_is_named(tmp_path: Path, name: str):
    path = tmp_path / name
    path.write_bytes(b"\x08\x07 no model")
    with pytest.raises(FlamesError, match=name) as caught:
        load_any(path, CPU)
    assert caught.value.remedy

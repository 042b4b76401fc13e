"""Files in, masks out: in the file's own grid, whatever its axes; tables; and what is refused."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from torch import nn

from flames.config import PlanConfig
from flames.data.fingerprint import Fingerprint
from flames.data.inputs import Input, find_inputs
from flames.errors import FlamesError
from flames.inference.choose import choose_model
from flames.inference.predict_files import PredictOptions, predict_file, predict_files
from flames.inference.score import TrainedModel
from flames.models.precision import choose_precision

FLOAT32 = choose_precision("float32")


class Bright(nn.Module):
    """Finds what is bright."""

    def forward(self, image):
        return image * 20


def model(modality: str = "MR", **given) -> TrainedModel:
    return TrainedModel(f"server:{modality}", "server", modality, 64, Bright(), **given)


def look(inputs, out: Path, trained: TrainedModel | None = None, **options):
    return list(
        predict_files(
            trained or model(),
            find_inputs(inputs),
            out,
            precision=FLOAT32,
            options=PredictOptions(**options),
        )
    )


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def volume(path: Path, affine: np.ndarray | None = None, *, turn=(0, 1, 2), low: int = 0) -> Path:
    """Write a dark volume with a bright block, its axes in the order ``turn``."""
    rng = np.random.default_rng(0)
    array = rng.integers(low, low + 200, (64, 64, 10), dtype=np.int16)
    array[16:32, 8:24, 4:7] = 900
    array = array.transpose(turn)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(
        nib.Nifti1Image(array, np.diag([0.8, 0.8, 4.0, 1]) if affine is None else affine), path
    )
    return path


OBLIQUE = np.array(
    [[0.76, -0.24, 0.2, -50], [0.2, 0.76, 0.9, 20], [-0.1, -0.1, 3.9, 5], [0, 0, 0, 1]]
)
LEFT_HANDED = np.diag([-0.8, 0.8, 4.0, 1.0])
SLICES_FIRST = np.array([[0, 0, 0.8, 0], [0, -0.8, 0, 9], [4.0, 0, 0, 3], [0, 0, 0, 1]])


PLAN = PlanConfig(
    spacing=(2.0, 1.2, 1.2),
    patch=(8, 32, 32),
    strides=((1, 2, 2), (2, 2, 2), (1, 1, 1)),
    kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
)


@pytest.mark.parametrize(
    ("affine", "turn"), [(None, (0, 1, 2)), (LEFT_HANDED, (0, 1, 2)), (SLICES_FIRST, (2, 1, 0))]
)
def test_a_model_of_volumes_finds_the_same_place(tmp_path: Path, affine, turn):
    path = volume(tmp_path / "in" / "a.nii.gz", affine, turn=turn)
    look([path], tmp_path / "out", model(plan=PLAN))
    source, mask = nib.load(path), nib.load(tmp_path / "out" / "a_mask.nii.gz")
    np.testing.assert_array_equal(mask.affine, source.affine)
    found, truth = np.asarray(mask.dataobj) > 0, source.get_fdata() > 500
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.85  # other voxels
    centres = [np.argwhere(array).mean(0) for array in (found, truth)]
    assert np.abs(centres[0] - centres[1]).max() < 0.6


def test_a_model_of_volumes_refuses_a_picture(tmp_path: Path):
    (tmp_path / "in").mkdir()
    Image.fromarray(np.zeros((40, 40), np.uint8)).save(tmp_path / "in" / "a.png")
    (looked,) = look([tmp_path / "in"], tmp_path / "out", model("US", plan=PLAN))
    assert looked.error is not None
    assert "works on volumes" in looked.error.found


@pytest.mark.parametrize(
    ("affine", "turn"),
    [(None, (0, 1, 2)), (OBLIQUE, (0, 1, 2)), (LEFT_HANDED, (0, 1, 2)), (SLICES_FIRST, (2, 1, 0))],
    ids=["straight", "oblique", "left-handed", "slices first"],
)
def test_a_mask_lies_where_its_image_lies(tmp_path: Path, affine, turn):
    path = volume(tmp_path / "in" / "a.nii.gz", affine, turn=turn)
    look([path], tmp_path / "out", probabilities=True)
    source, mask = nib.load(path), nib.load(tmp_path / "out" / "a_mask.nii.gz")
    np.testing.assert_array_equal(mask.affine, source.affine)
    for name in ("pixdim", "sform_code", "qform_code", "srow_x", "quatern_b", "xyzt_units"):
        np.testing.assert_array_equal(mask.header[name], source.header[name])
    assert mask.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(mask.dataobj) > 0, source.get_fdata() > 500)
    probability = nib.load(tmp_path / "out" / "a_probability.nii.gz")
    assert probability.get_data_dtype() == np.float32
    assert ((probability.get_fdata() > 0.5) == (source.get_fdata() > 500)).all()
    (lesion,) = table(tmp_path / "out" / "lesions.csv")
    centre = nib.affines.apply_affine(source.affine, np.argwhere(source.get_fdata() > 500).mean(0))
    assert [float(lesion[k]) for k in "xyz"] == pytest.approx(list(centre), abs=0.006)
    spacing = np.linalg.norm(source.affine[:3, :3], axis=0)
    assert float(lesion["size"]) == pytest.approx(16 * 16 * 3 * spacing.prod() / 1000, rel=1e-5)
    axis = int(np.argmax(spacing))
    cut = (source.get_fdata() > 500).sum(axis=tuple(a for a in range(3) if a != axis))
    assert cut[int(lesion["slice"])] == cut.max()


def test_a_mask_counts_in_the_unit_of_its_image(tmp_path: Path):
    path = volume(tmp_path / "in" / "a.nii.gz", np.diag([800.0, 800, 4000, 1]))
    image = nib.load(path)
    image.header.set_xyzt_units("micron")
    image = nib.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header)
    nib.save(image, path)
    look([path], tmp_path / "out")
    mask = nib.load(tmp_path / "out" / "a_mask.nii.gz")
    np.testing.assert_array_equal(mask.affine, image.affine)
    assert mask.header.get_xyzt_units()[0] == "micron"
    (lesion,) = table(tmp_path / "out" / "lesions.csv")
    assert float(lesion["size"]) == pytest.approx(16 * 16 * 3 * 0.8 * 0.8 * 4 / 1000, rel=1e-5)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_stack_of_pictures_is_like_single_images_and_like_stacks(tmp_path: Path, dimensions):
    site = Fingerprint(
        modality="US", organ="breast", cases=5, made_up=False, dimensions=dimensions,
        spacing_unit="px", in_plane=(1, 1, 1), between=(1, 1, 1) if dimensions == 3 else None,
        brightness=(0.9, 0.9, 0.9), contrast=(0.5, 0.5, 0.5), ct_window=None,
    )  # fmt: skip
    pages = np.random.default_rng(0).integers(0, 200, (3, 20, 30), dtype=np.uint8)
    first, *others = (Image.fromarray(page) for page in pages)
    (tmp_path / "in").mkdir()
    first.save(tmp_path / "in" / "a.tif", save_all=True, append_images=others)
    (looked,) = look([tmp_path / "in"], tmp_path / "out", model("US", trained_on=(site,)))
    assert looked.row["departures"].startswith("its brightness after normalisation is ")


def test_a_picture_gets_a_picture(tmp_path: Path):
    array = np.full((40, 70, 3), 10, np.uint8)
    array[10:20, 30:50] = 200
    (tmp_path / "in").mkdir()
    Image.fromarray(array).save(tmp_path / "in" / "a.png")
    look([tmp_path / "in"], tmp_path / "out", model("US"), probabilities=True)
    mask = np.asarray(Image.open(tmp_path / "out" / "a_mask.png"))
    assert mask.shape == (40, 70)
    assert set(np.unique(mask)) == {0, 255}
    inside = np.zeros((40, 70), bool)
    inside[10:20, 30:50] = True
    assert ((mask > 0) != inside).sum() <= 8  # at the corners, where the picture was fitted
    assert np.asarray(Image.open(tmp_path / "out" / "a_probability.png")).dtype == np.uint16
    (row,) = table(tmp_path / "out" / "predictions.csv")
    assert (row["tumour_found"], row["lesions"], row["size_unit"]) == ("1", "1", "px")


def test_a_volume_as_pictures_in_the_order_of_its_slices(tmp_path: Path):
    path = volume(tmp_path / "a.nii.gz", np.diag([0.8, 0.8, -4.0, 1]))
    look([path], tmp_path / "out", formats=("png",))
    files = sorted((tmp_path / "out" / "a_mask").iterdir())
    shown = [bool(np.asarray(Image.open(f)).any()) for f in files]
    assert shown == [False] * 4 + [True] * 3 + [False] * 3


def test_a_damaged_file_does_not_stop_the_others(tmp_path: Path):
    folder = tmp_path / "in"
    volume(folder / "a.nii.gz")
    content = volume(folder / "b.nii.gz").read_bytes()
    (folder / "b.nii.gz").write_bytes(content[: len(content) // 2])
    volume(folder / "c.nii.gz")
    looked = look([folder], tmp_path / "out")
    assert [one.error is None for one in looked] == [True, False, True]
    rows = table(tmp_path / "out" / "predictions.csv")
    assert [row["name"] for row in rows] == ["a", "b", "c"]
    assert "b.nii.gz" in rows[1]["error"]
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["a_mask.nii.gz", "c_mask.nii.gz", "lesions.csv", "predictions.csv"]


def test_another_modality_is_refused_unless_forced(tmp_path: Path):
    path = volume(tmp_path / "ct.nii.gz", low=-1000)
    (refused,) = look([path], tmp_path / "a", model("MR"))
    assert "is CT, model server:MR was trained on MR" in refused.error.found
    (done,) = look([path], tmp_path / "b", model("MR"), force=True)
    assert done.error is None
    (done,) = look([path], tmp_path / "c", model("CT"))
    assert done.error is None


def test_a_model_for_all_needs_to_know(tmp_path: Path):
    path = volume(tmp_path / "a.nii.gz")
    (refused,) = look([path], tmp_path / "a", model("all"))
    assert "--modality" in refused.error.remedy
    (done,) = look([path], tmp_path / "b", model("all"), modality="MR")
    assert done.error is None
    path = volume(tmp_path / "ct.nii.gz", low=-1000)
    (refused,) = look([path], tmp_path / "c", model("all"), modality="MR")
    assert "is CT, --modality says MR" in refused.error.found
    (done,) = look([path], tmp_path / "d", model("all"), modality="MR", force=True)
    assert done.error is None


def test_what_is_refused_before_anything_is_written(tmp_path: Path):
    path = volume(tmp_path / "a.nii.gz")
    full = tmp_path / "full"
    full.mkdir()
    (full / "x").touch()
    for out, options, words in (
        (tmp_path / "o", {"formats": ("nifit",)}, "no output format 'nifit'"),
        (full, {}, "not an empty folder"),
        (path, {}, "not an empty folder"),
        (tmp_path / "o", {"modality": "CT"}, "was trained on MR, not CT"),
    ):
        with pytest.raises(FlamesError, match=words) as caught:
            look([path], out, **options)
        assert caught.value.remedy
    assert not (tmp_path / "o").exists()


def test_what_a_format_has_no_place_for_does_not_stop_the_others(tmp_path: Path):
    volume(tmp_path / "in" / "b.nii.gz")
    for name in "ac":
        Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / "in" / f"{name}.png")
    looked = look([tmp_path / "in"], tmp_path / "out", formats=("png", "nifti"))
    assert [one.error is None for one in looked] == [False, True, False]
    assert "without a place" in looked[0].error.found
    rows = table(tmp_path / "out" / "predictions.csv")
    assert [(row["name"], row["files"][:12]) for row in rows] == [
        ("a", "a_mask.png"), ("b", "b_mask/0000."), ("c", "c_mask.png")
    ]  # fmt: skip


@pytest.mark.parametrize("formats", [("png", "seg"), ("seg", "png")])
def test_what_one_format_refuses_is_written_in_the_others_and_told(tmp_path: Path, formats):
    array = np.full((40, 70), 10, np.uint8)
    array[10:20, 30:50] = 200
    (tmp_path / "in").mkdir()
    Image.fromarray(array).save(tmp_path / "in" / "a.png")
    (looked,) = look([tmp_path / "in"], tmp_path / "out", model("US"), formats=formats)
    assert looked.error is not None
    (row,) = table(tmp_path / "out" / "predictions.csv")
    assert (row["tumour_found"], row["lesions"], row["files"]) == ("1", "1", "a_mask.png")
    assert "is not DICOM" in row["error"]
    assert len(table(tmp_path / "out" / "lesions.csv")) == 1


def test_what_no_format_has_a_place_for_is_refused_before_it_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    volume(tmp_path / "in" / "b.nii.gz")
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / "in" / "a.png")
    seen = []
    compute = sys.modules["flames.inference.predict_files"].predict_slices
    monkeypatch.setattr(
        "flames.inference.predict_files.predict_slices",
        lambda *given, **named: seen.append(1) or compute(*given, **named),
    )
    looked = look([tmp_path / "in"], tmp_path / "out", formats=("nifti", "seg"))
    assert "without a place" in looked[0].error.found
    assert "not DICOM" in looked[1].error.found
    assert len(seen) == 1, "the volume has a place in one of both"
    assert (tmp_path / "out" / "b_mask.nii.gz").exists()


def test_a_disk_that_takes_nothing_stops_all(tmp_path: Path):
    for name in "ab":
        volume(tmp_path / "in" / f"{name}.nii.gz")
    found = predict_files(
        model(), find_inputs([tmp_path / "in"]), tmp_path / "out",
        precision=FLOAT32, options=PredictOptions(),
    )  # fmt: skip
    next(found)
    (tmp_path / "out" / ".partial.b_mask.nii.gz").mkdir()
    with pytest.raises(FlamesError, match="cannot write"):
        next(found)
    assert [row["name"] for row in table(tmp_path / "out" / "predictions.csv")] == ["a"]


def test_mirroring_uses_both_images(tmp_path: Path):
    class FirstRows(nn.Module):
        def forward(self, image):
            logits = image * 0 - 9
            logits[..., : image.shape[-2] // 2, :] = 9
            return logits

    trained = TrainedModel("m", "server", "MR", 64, FirstRows())
    one = Input("a", (volume(tmp_path / "a.nii.gz"),))
    plain, both = (
        predict_file(trained, one, precision=FLOAT32, options=PredictOptions(flip=flip))
        for flip in (False, True)
    )
    assert 0.45 < plain.mask.mean() < 0.55
    np.testing.assert_allclose(both.probabilities, 0.5, atol=0.01)


def test_a_model_is_chosen_from_a_run(tmp_path: Path):
    run = tmp_path / "run"
    for name in ("models/CT", "models/US", "personal/north"):
        (run / f"{name}.safetensors").parent.mkdir(parents=True, exist_ok=True)
        (run / f"{name}.safetensors").touch()
    (run / "config.toml").touch()
    assert choose_model(run, modality="CT") == run / "models/CT.safetensors"
    assert choose_model(run, site="north") == run / "personal/north.safetensors"
    file = run / "models/US.safetensors"
    assert choose_model(file) == file
    for path, given, words in (
        (run, {}, "models of CT, US"),
        (run, {"modality": "MR"}, "no model of modality"),
        (run, {"site": "nroth"}, "no model of site"),
        (tmp_path, {}, "neither a run folder nor a model file"),
        (file, {"site": "north"}, "one model"),
    ):
        with pytest.raises(FlamesError, match=words) as caught:
            choose_model(path, **given)
        assert caught.value.remedy
    (run / "models/CT.safetensors").unlink()
    assert choose_model(run) == file

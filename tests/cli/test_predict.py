"""The command that a hospital uses: a model file or a run, images, a folder of results."""

from __future__ import annotations

import csv
import json
import sys
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dicom_files import series

from flames.cli.predict import _line
from flames.config import ModelConfig
from flames.data.fingerprint import fingerprint


@pytest.fixture
def model_file(monkeypatch, tmp_path: Path, write_store) -> Path:
    from flames.models import make_model
    from flames.models.weights import model_arrays, save_arrays

    monkeypatch.setattr(sys.modules["flames.models.unet"], "FILTERS", (4, 8, 16))
    store = write_store(
        tmp_path / "s", site="s", modality="MR", shape=(20, 26, 4), slice_axis=2, seed=3
    )
    metadata = {
        "name": "server:MR",
        "kind": "server",
        "modality": "MR",
        "network": ModelConfig().model_dump_json(),
        "image_size": 32,
        "trained_on": [fingerprint(store).model_dump(mode="json")],
    }
    path = tmp_path / "run" / "models" / "MR.safetensors"
    save_arrays(path, model_arrays(make_model(ModelConfig())), metadata)
    (tmp_path / "run" / "config.toml").touch()
    return path


@pytest.fixture
def image(tmp_path: Path) -> Path:
    array = np.random.default_rng(1).integers(0, 90, (20, 26, 4), dtype=np.int16)
    path = tmp_path / "in" / "a.nii.gz"
    path.parent.mkdir()
    nib.save(nib.Nifti1Image(array, np.diag([1.5, 1.0, 9.0, 1])), path)
    return path


def flames(monkeypatch, capsys, *arguments: object) -> tuple[int, str, str]:
    from flames.cli.main import main

    monkeypatch.setattr(sys, "argv", ["flames", "predict", *map(str, arguments)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main()
    out, err = capsys.readouterr()
    return int(stopped.value.code or 0), out, err


def test_a_run_and_a_model_file_give_the_same(monkeypatch, capsys, tmp_path, model_file, image):
    one = flames(monkeypatch, capsys, tmp_path / "run", image.parent, "-o", tmp_path / "a")
    two = flames(monkeypatch, capsys, model_file, image, "-o", tmp_path / "b", "--no-tta")
    assert one[0] == two[0] == 0, one[2] + two[2]
    assert "it has slices 9 mm apart, in training 2" in one[1]
    assert "in 0 of 1 images" in one[1] or "in 1 of 1 images" in one[1]
    assert (tmp_path / "a" / "a_mask.nii.gz").exists()
    names = {p.name for p in (tmp_path / "b").iterdir()}
    assert names == {"a_mask.nii.gz", "lesions.csv", "predictions.csv"}


def test_several_formats_and_probabilities(monkeypatch, capsys, tmp_path, model_file, image):
    code, _, _ = flames(
        monkeypatch, capsys, model_file, image, "-o", tmp_path / "a", "--format", "nifti, png",
        "--probabilities", "--quiet",
    )  # fmt: skip
    assert code == 0
    assert (tmp_path / "a" / "a_probability.nii.gz").exists()
    assert len(list((tmp_path / "a" / "a_mask").glob("*.png"))) == 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--modality", "XR"], "no modality 'XR'"),
        (["--modality", "CT"], "no model of modality 'CT'"),
        (["--format", "nrrd"], "no output format 'nrrd'"),
        (["--channel", "3"], "has one channel"),
    ],
)
def test_what_cannot_be_done_ends_with_2(
    monkeypatch, capsys, tmp_path, model_file, image, options, words
):
    code, _, err = flames(
        monkeypatch, capsys, tmp_path / "run", image, "-o", tmp_path / "a", *options
    )
    assert code == 2
    assert words in err
    assert "what to do:" in err
    assert "Traceback" not in err


def test_a_model_before_fingerprints_says_so(monkeypatch, capsys, tmp_path, model_file, image):
    from flames.models.weights import load_arrays, load_metadata, save_arrays

    metadata = load_metadata(model_file)
    assert json.loads(metadata.pop("trained_on"))
    save_arrays(model_file, load_arrays(model_file), metadata)
    code, out, _ = flames(monkeypatch, capsys, model_file, image, "-o", tmp_path / "a")
    assert code == 0
    assert "does not say what it was trained on" in out


def test_a_zip_is_looked_at_and_leaves_nothing_behind(
    monkeypatch, capsys, tmp_path, model_file, image
):
    archive = tmp_path / "scans.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(image, "deep/a.nii.gz")
    code, _, err = flames(monkeypatch, capsys, model_file, archive, "-o", tmp_path / "out")
    assert code == 0, err
    with (tmp_path / "out" / "predictions.csv").open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert (row["name"], row["source"]) == ("deep/a", f"{archive}/deep/a.nii.gz")
    assert (tmp_path / "out" / "deep" / "a_mask.nii.gz").exists()
    assert not list(tmp_path.glob(".unpacked-*"))


def test_what_is_wrong_in_a_zip_is_said_of_the_zip(monkeypatch, capsys, tmp_path, model_file):
    several = np.zeros((9, 8, 4, 3), np.int16)
    nib.save(nib.Nifti1Image(several, np.eye(4)), tmp_path / "four.nii.gz")
    archive, empty = tmp_path / "scans.zip", tmp_path / "empty.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(tmp_path / "four.nii.gz", "deep/a.nii.gz")
    with zipfile.ZipFile(empty, "w") as file:
        file.writestr("notes.txt", "notes")
    said = f"{archive}/deep/a.nii.gz has 3 channels"
    code, out, err = flames(monkeypatch, capsys, model_file, archive, "-o", tmp_path / "out")
    assert (code, said in out, said in err) == (2, True, True), err
    with (tmp_path / "out" / "predictions.csv").open(newline="", encoding="utf-8") as file:
        assert [row["error"] for row in csv.DictReader(file)] == [said]
    code, _, err = flames(monkeypatch, capsys, model_file, empty, "-o", tmp_path / "other")
    assert (code, f"{empty} holds no image" in err) == (2, True), err


def test_a_damaged_zip_is_named(monkeypatch, capsys, tmp_path, model_file):
    archive = tmp_path / "scans.zip"
    archive.write_bytes(b"PK\x03\x04 not really")
    code, _, err = flames(monkeypatch, capsys, model_file, archive, "-o", tmp_path / "out")
    assert (code, "scans.zip" in err) == (2, True)
    assert not list(tmp_path.glob(".unpacked-*"))
    assert not (tmp_path / "out").exists()


def test_a_series_whose_slices_may_be_missing_is_done_and_said(
    monkeypatch, capsys, tmp_path, model_file
):
    for name, heights in (("gaps", [0.0, 6.0, 12.0]), ("whole", None)):
        planes = np.random.default_rng(1).integers(0, 90, (3, 20, 26), dtype=np.int16)
        series(tmp_path / "in" / name, planes, modality="MR", series=name, heights=heights)
    code, out, err = flames(monkeypatch, capsys, model_file, tmp_path / "in", "-o", tmp_path / "a")
    assert code == 0, err
    said = "slices may be missing, or were never made: slices lie 6 mm apart, and SliceThickness"
    assert [said in line for line in out.splitlines()[:2]] == [True, False]
    with (tmp_path / "a" / "predictions.csv").open(newline="", encoding="utf-8") as file:
        doubts = {row["name"]: row["doubt"] for row in csv.DictReader(file)}
    assert doubts == {
        "gaps": "slices lie 6 mm apart, and SliceThickness says 3 mm",
        "whole": "",
    }
    assert (tmp_path / "a" / "gaps_seg.dcm").exists()


def test_an_image_that_is_not_written_in_one_format_counts_as_done(
    monkeypatch, capsys, tmp_path, model_file, image
):
    code, out, err = flames(
        monkeypatch, capsys, model_file, image, "-o", tmp_path / "a", "--format", "seg,nifti"
    )
    assert code == 2
    assert "not all written: " in out.splitlines()[0]
    assert " of 1 images; " in out.splitlines()[-1]
    assert "is not DICOM" in err
    assert (tmp_path / "a" / "a_mask.nii.gz").exists()


def test_a_large_finding_is_shown_without_powers_of_ten():
    row = {"name": "a", "tumour_found": 1, "presence_score": 0.9, "lesions": 2, "size": 32220.0}
    row |= {"size_unit": "px", "departures": "", "doubt": "", "error": ""}
    assert _line(row) == "a: score 0.90, 2 lesions, 32,220 px"

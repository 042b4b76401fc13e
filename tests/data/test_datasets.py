"""Every public dataset by name, on a made tree in exactly its layout."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from source_folders import save, save_nifti, speckle, square

from flames.data.datasets import DATASETS, dataset_options
from flames.data.formats import FORMATS, find_sources
from flames.data.prepare import StoreRequest, add_store
from flames.data.sources import SourceOptions
from flames.data.store import Modality, SiteStore
from flames.errors import FlamesError

SHAPE = (12, 10, 6)


def label_of(*values: int) -> np.ndarray:
    """Return a label map with a block of 8 voxels for each value, side by side."""
    label = np.zeros(SHAPE, np.uint8)
    for number, value in enumerate(values):
        label[2 * number + 1 : 2 * number + 3, 2:4, 2:4] = value
    return label


def volume(seed: int, *, low: int = -900, channels: int = 0) -> np.ndarray:
    shape = (*SHAPE, channels) if channels else SHAPE
    return np.random.default_rng(seed).integers(low, 400, shape, dtype=np.int16)


def decathlon(task: str, name: str, *values: int, channels: int = 0) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        for number in range(1, 4):
            low = 0 if channels else -900
            array = volume(number, low=low, channels=channels)
            save_nifti(root / task / "imagesTr" / f"{name}_{number:03d}.nii.gz", array)
            save_nifti(root / task / "labelsTr" / f"{name}_{number:03d}.nii.gz", label_of(*values))
            hidden = root / task / "imagesTr" / f"._{name}_{number:03d}.nii.gz"
            hidden.write_bytes(b"left by an archiver")

    return make


def kits(root: Path) -> None:
    for number in range(3):
        case = root / "dataset" / f"case_{number:05d}"
        # The first axis runs from head to foot, as in the original.
        affine = np.array([[0, 0, -0.8, 0], [0, -0.8, 0, 0], [-3.0, 0, 0, 0], [0, 0, 0, 1]])
        save_nifti(case / "imaging.nii.gz", volume(number), affine)
        save_nifti(case / "segmentation.nii.gz", label_of(1, 2, 3), affine)
        (case / "instances").mkdir()
    (root / "dataset" / "kits23.json").write_text("[]")


def brats(prefix: str, inner: str, suffix: str) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        for number in range(1, 4):
            name = f"{prefix}_{number:03d}"
            for seed, sequence in enumerate(("flair", "t1", "t1ce", "t2")):
                array = volume(10 * number + seed, low=0)
                save_nifti(root / inner / name / f"{name}_{sequence}{suffix}", array)
            save_nifti(root / inner / name / f"{name}_seg{suffix}", label_of(1, 2, 4))
        (root / inner / "name_mapping.csv").write_text("Grade\n")

    return make


def nifti_pairs(root: Path) -> None:
    for number in range(3):
        save_nifti(root / "imagesTr" / f"CASE_{number}.nii.gz", volume(number))
        save_nifti(root / "labelsTr" / f"CASE_{number}.nii.gz", label_of(1))


def dicom(root: Path) -> None:
    from dicom_files import contours, rectangle, series

    for patient in ("STS_001", "STS_002", "STS_003"):
        files = series(root / patient / "CT" / "image", patient=patient)
        rings = {
            "GTV_Mass_CT": [(2, rectangle(2.5, 3.5, 4.5, 7.5))],
            "Body": [(2, rectangle(0, 0, 9, 9))],
        }
        contours(root / patient / "CT" / "mask" / "RS.dcm", files, rings, patient=patient)


def busi(root: Path) -> None:
    for number in range(1, 4):
        stem = root / "Dataset_BUSI_with_GT" / "benign" / f"benign ({number})"
        save(stem.with_name(f"{stem.name}.png"), speckle(number))
        save(stem.with_name(f"{stem.name}_mask.png"), square(side=2))


def otu(root: Path) -> None:
    for number in range(1, 4):
        save(root / "OTU_2d" / "images" / f"{number}.JPG", speckle(number))
        save(root / "OTU_2d" / "annotations" / f"{number}.PNG", square(side=2))


def kaggle(root: Path) -> None:
    for number in range(3):
        name = f"TCGA_CS_{number}_1996"
        for level in (1, 2):
            place = root / "kaggle_3m" / name / f"{name}_{level}"
            save(place.with_name(f"{place.name}.tif"), np.stack([speckle(number)] * 3, axis=-1))
            save(place.with_name(f"{place.name}_mask.tif"), square(side=2 * (level == 1)))


TREES: dict[str, tuple[Callable[[Path], None], int]] = {
    "busi": (busi, 4),
    "otu2d": (otu, 4),
    "kaggle3m": (kaggle, 4),
    "lgg": (nifti_pairs, 8),
    "msd01-brain": (decathlon("Task01_BrainTumour", "BRATS", 1, 2, 3, channels=4), 24),
    "msd03-liver": (decathlon("Task03_Liver", "liver", 1, 2), 8),
    "msd06-lung": (decathlon("Task06_Lung", "lung", 1), 8),
    "msd07-pancreas": (decathlon("Task07_Pancreas", "pancreas", 1, 2), 8),
    "msd08-hepatic-vessel": (decathlon("Task08_HepaticVessel", "hepaticvessel", 1, 2), 8),
    "msd10-colon": (decathlon("Task10_Colon", "colon", 1), 8),
    "kits23": (kits, 8),
    "brats2020": (brats("BraTS20_Training", "MICCAI_BraTS2020_TrainingData", ".nii"), 24),
    "brats2021": (brats("BraTS2021", ".", ".nii.gz"), 24),
    "lidc": (nifti_pairs, 8),
    "sts": (dicom, 8),
}
"""A writer of each tree, and the tumour pixels or voxels of each of its cases."""


def add(tmp_path: Path, name: str, modality: Modality | None = None, **options) -> SiteStore:
    known = DATASETS[name]
    said = SourceOptions(key=b"k" * 32, **options)
    request = StoreRequest(name, "s", modality or known.modalities[0], known.organ, options=said)
    return add_store(tmp_path / "source", tmp_path / "store", request).store


@pytest.mark.parametrize("name", DATASETS)
def test_a_dataset_needs_no_option_but_its_name(tmp_path: Path, name: str) -> None:
    make, tumour = TREES[name]
    make(tmp_path / "source")
    store = add(tmp_path, name, "CT" if name == "sts" else None)
    assert store.info.source_format == name
    assert [case.tumour_voxels for case in store.info.cases] == [tumour] * 3


def test_the_right_channel_and_sequence_are_taken(tmp_path: Path) -> None:
    TREES["msd01-brain"][0](tmp_path / "source")
    store = add(tmp_path, "msd01-brain")
    np.testing.assert_array_equal(store.image("BRATS_001"), volume(1, low=0, channels=4)[..., 0])
    assert store.info.settings["channel"] == 0
    other = tmp_path / "other"
    TREES["brats2021"][0](other / "source")
    store = add(other, "brats2021", channel=2)
    np.testing.assert_array_equal(store.image("BraTS2021_001"), volume(12, low=0))


def test_kidneys_stand_upright_whatever_the_axes(tmp_path: Path) -> None:
    kits(tmp_path / "source")
    store = add(tmp_path, "kits23")
    case = store.info.cases[0]
    assert case.spacing == (0.8, 0.8, 3.0)
    assert case.slice_axis == 2
    assert case.patient_id == "case_00000"


def test_what_is_said_wins_over_what_is_known() -> None:
    said = SourceOptions(tumour_labels=(1, 2), channel=3)
    found = dataset_options("msd01-brain", said)
    assert (found.tumour_labels, found.other_labels, found.channel) == ((1, 2), (), 3)
    assert dataset_options("pairs", said) == said
    said = SourceOptions(other_labels=(3, 1))
    found = dataset_options("msd03-liver", said)
    assert (found.tumour_labels, found.other_labels) == ((2,), (1, 3))
    assert dataset_options("msd03-liver", found) == found
    assert dataset_options("busi", said).other_labels == (3, 1)


@pytest.mark.parametrize(
    ("name", "said", "words"),
    [
        ("dicom", {"tumour_labels": (1,)}, "--tumour-labels says nothing to the format dicom"),
        ("dicom", {"other_labels": (1,)}, "--other-labels says nothing to the format dicom"),
        ("sts", {"other_labels": (1,)}, "--other-labels says nothing to the format sts"),
        ("lidc", {"roi": "nodule"}, "--roi says nothing to the format lidc"),
        ("dicom", {"channel": 0}, "--channel says nothing to the format dicom"),
        ("kits23", {"channel": 0}, "--channel says nothing to the format kits23"),
        ("msd", {"roi": "GTV"}, "--roi says nothing to the format msd"),
        ("msd", {"patient": "sub"}, "--patient says nothing to the format msd"),
        ("busi", {"masks": "*.png"}, "--masks says nothing to the format busi"),
        ("msd", {"tumour_labels": (1, 2), "other_labels": (2,)}, "label 2 is said to be tumour"),
        ("msd03-liver", {"other_labels": (2,)}, "label 2 is said to be tumour and not to be"),
    ],
)
def test_what_would_be_ignored_or_contradicts_is_refused(
    tmp_path: Path, name: str, said: dict[str, Any], words: str
) -> None:
    with pytest.raises(FlamesError, match=words) as caught:
        find_sources(tmp_path, name, SourceOptions(**said))
    assert caught.value.remedy


def test_a_conversion_to_nifti_takes_label_values_and_no_names(tmp_path: Path) -> None:
    (tmp_path / "imagesTr").mkdir()
    for name in ("sts", "lidc"):
        said = SourceOptions(tumour_labels=(1,))
        assert dataset_options(name, said, tmp_path).tumour_labels == (1,)
        known = dataset_options(name, SourceOptions(), tmp_path)
        assert dataset_options(name, known, tmp_path) == known
        with pytest.raises(FlamesError, match=f"--roi says nothing to the format {name}"):
            find_sources(tmp_path, name, SourceOptions(roi="mass"))


def test_another_modality_and_other_names_are_refused(tmp_path: Path) -> None:
    TREES["msd03-liver"][0](tmp_path / "source")
    with pytest.raises(FlamesError, match="msd03-liver is CT, not MR"):
        add(tmp_path, "msd03-liver", "MR")
    with pytest.raises(FlamesError, match="no dataset") as caught:
        add_store(tmp_path / "source", tmp_path / "x", StoreRequest("msd3-liver", "s", "CT", "l"))
    assert "msd03-liver" in caught.value.remedy


def test_a_label_that_the_dataset_does_not_know_stops_it(tmp_path: Path) -> None:
    decathlon("Task03_Liver", "liver", 1, 2, 5)(tmp_path / "source")
    with pytest.raises(FlamesError, match="holds label 5"):
        add(tmp_path, "msd03-liver")


@pytest.mark.parametrize(
    ("name", "lost", "words"),
    [
        ("kits23", "dataset/case_00001/imaging.nii.gz", "has no imaging"),
        ("kits23", "dataset/case_00001/segmentation.nii.gz", "has no mask"),
        ("brats2021", "BraTS2021_002/BraTS2021_002_flair.nii.gz", "has no flair"),
        ("brats2021", "BraTS2021_002/BraTS2021_002_seg.nii.gz", "has no mask"),
    ],
)
def test_a_missing_file_is_named(tmp_path: Path, name: str, lost: str, words: str) -> None:
    TREES[name][0](tmp_path / "source")
    (tmp_path / "source" / lost).unlink()
    with pytest.raises(FlamesError, match=words):
        add(tmp_path, name)


def test_every_dataset_says_whose_it_is() -> None:
    for known in DATASETS.values():
        assert known.layout in FORMATS
        assert all((known.title, known.licence, known.citation, known.where, known.folder))

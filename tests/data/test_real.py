"""The public datasets themselves: what their papers and readme say must come out."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from flames.data.cases import read_case
from flames.data.dicom.find import find_dicom
from flames.data.duplicates import duplicate_groups, signature
from flames.data.formats import find_sources
from flames.data.pictures import read_picture
from flames.data.prepare import StoreRequest, add_store
from flames.data.sources import SourceOptions

pytestmark = pytest.mark.real
NONE = SourceOptions()


def test_busi_has_its_images_masks_and_duplicates(real_data: Path) -> None:
    sources = find_sources(real_data / "busi", "busi", NONE)
    assert len(sources) == 551
    signatures = {s.case_id: signature(read_picture(s.images[0])) for s in sources}
    groups = duplicate_groups(signatures)
    sizes = np.unique(list(groups.values()), return_counts=True)[1]
    assert 0.1 < sizes[sizes > 1].sum() / 551 < 0.45
    assert sizes.max() <= 8


def test_busi_originals_of_every_mode(real_data: Path) -> None:
    sources = find_sources(real_data / "busi_originals", "busi", NONE)
    cases = {s.case_id: read_case(s, NONE) for s in sources}
    assert len(cases) == 12
    assert all(c.image.ndim == 2 for c in cases.values())
    for name, case in cases.items():
        assert case.label.any() == name.startswith("benign")
        assert case.label.mean() < 0.5
    assert len(next(s for s in sources if s.case_id == "benign-195").masks) == 3


def test_otu_normal_ovaries_have_no_tumour(real_data: Path) -> None:
    sources = find_sources(real_data / "otu_2d", "otu2d", NONE)
    assert len(sources) == 1027
    assert sum(s.no_tumour for s in sources) == 186
    for source in sources[::100]:
        assert read_case(source, NONE).label.any() != source.no_tumour


def test_tif_slices_and_nifti_of_one_patient_agree(real_data: Path) -> None:
    slices = find_sources(real_data / "lgg_originals", "kaggle3m", NONE)
    one = read_case(slices[0], NONE)
    volumes = find_sources(real_data / "lgg_flair", "msd", NONE)
    source = next(s for s in volumes if s.case_id == "TCGA_CS_4942")
    other = read_case(source, SourceOptions(unknown_spacing=True))
    np.testing.assert_array_equal(one.image, other.image)
    np.testing.assert_array_equal(one.label, other.label)


def test_a_hospital_becomes_a_store(real_data: Path, tmp_path: Path) -> None:
    request = StoreRequest(
        "msd",
        "mr-brain-fg",
        "MR",
        "brain",
        where={"hospital": ("FG",)},
        options=SourceOptions(unknown_spacing=True),
    )
    store = add_store(real_data / "lgg_flair", tmp_path / "store", request).store
    assert [len(store.split(s)) for s in ("train", "val", "test")] == [2, 1, 1]
    assert all(c.spacing_unit == "px" and c.has_tumour for c in store.info.cases)


def test_dicom_with_contours_equals_the_nifti_of_the_same_patient(real_data: Path) -> None:
    options = SourceOptions(roi="GTV.*", key=b"k" * 32)
    sources = find_dicom(real_data / "sts_dicom", options)
    assert sorted(str(s.modality) for s in sources) == ["CT", "CT", "MR", "MR"]
    for source in sources:
        case = read_case(source, options)
        folder = real_data / f"sts_{str(source.modality).lower()}"
        patient = source.images[0].relative_to(real_data / "sts_dicom").parts[0]
        (same,) = [s for s in find_sources(folder, "msd", NONE) if s.case_id == patient]
        nifti = read_case(same, NONE)
        np.testing.assert_array_equal(case.image, nifti.image)
        np.testing.assert_array_equal(case.label, nifti.label)
        assert case.affine is not None
        assert nifti.affine is not None
        np.testing.assert_allclose(case.affine, nifti.affine, atol=1e-4)
        assert case.spacing == pytest.approx(nifti.spacing, abs=1e-4)


@pytest.mark.parametrize(
    ("folder", "name", "modality", "organ", "cases"),
    [
        ("busi_originals", "busi", "US", "breast", 12),
        ("lgg_originals", "kaggle3m", "MR", "brain", 1),
        ("lidc_ct", "lidc", "CT", "lung", 5),
        ("sts_ct", "sts", "CT", "limb", 8),
        ("sts_dicom", "sts", "MR", "limb", 2),
    ],
)
def test_each_folder_is_converted_by_name(
    real_data: Path,
    tmp_path: Path,
    folder: str,
    name: str,
    modality: Literal["US", "MR", "CT"],
    organ: str,
    cases: int,
) -> None:
    options = SourceOptions(key=b"k" * 32)
    request = StoreRequest(name, "s", modality, organ, options=options)
    store = add_store(real_data / folder, tmp_path / "store", request).store
    assert len(store.info.cases) == cases
    assert any(case.has_tumour for case in store.info.cases)
    known = {c.spacing_unit for c in store.info.cases}
    assert known == ({"mm"} if name == "sts" else {"px"})

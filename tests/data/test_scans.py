"""One image without a label: read nearest RAS, and what is found goes back where it was."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from dicom_files import series
from hypothesis import given
from hypothesis import strategies as st
from source_folders import save, save_nifti, speckle

from flames.data.cases import read_case
from flames.data.inputs import find_inputs
from flames.data.msd import find_msd
from flames.data.scans import read_scan, volume_scan
from flames.data.sources import SourceOptions
from flames.errors import FlamesError

AXES = st.permutations([0, 1, 2])
SIGNS = st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3)
SPACING = st.tuples(*[st.floats(0.3, 6)] * 3)
ANGLES = st.tuples(*[st.floats(-0.6, 0.6)] * 3)


def affine_of(axes, signs, spacing, angles) -> np.ndarray:
    """Return a rotated, flipped, permuted and scaled affine; left-handed in half of the cases."""
    turn = np.eye(3)
    for axis, angle in enumerate(angles):
        one = np.eye(3)
        i, j = [a for a in range(3) if a != axis]
        one[i, i] = one[j, j] = np.cos(angle)
        one[i, j], one[j, i] = -np.sin(angle), np.sin(angle)
        turn = turn @ one
    affine = np.eye(4)
    affine[:3, :3] = turn @ (np.eye(3)[:, axes] * signs * spacing)
    affine[:3, 3] = (-20, 35, 7)
    return affine


@given(AXES, SIGNS, SPACING, ANGLES)
def test_any_affine_comes_back_voxel_by_voxel(axes, signs, spacing, angles):
    volume = np.arange(4 * 5 * 6).reshape(4, 5, 6).astype(np.int16)
    affine = affine_of(axes, signs, spacing, angles)
    scan = volume_scan(volume, affine)
    np.testing.assert_array_equal(scan.grid.place(scan.image), volume)
    # A voxel's place in the patient is the same in both grids.
    for value in (0, 17, 119):
        source = affine @ [*np.argwhere(volume == value)[0], 1]
        turned = scan.affine @ [*np.argwhere(scan.image == value)[0], 1]
        np.testing.assert_allclose(source, turned, atol=1e-9)
    # Each axis of the image runs more along its own patient axis than against it.
    assert (np.diag(scan.affine)[:3] > 0).all()
    assert sorted(scan.spacing) == pytest.approx(sorted(spacing), abs=1e-5)


def test_slices_are_counted_as_the_source_counts_them():
    volume = np.zeros((6, 5, 4), np.uint8)
    up, down = np.diag([1.0, 1, 3, 1]), np.diag([1.0, 1, -3, 1])
    assert not volume_scan(volume, up).slices_reversed
    assert volume_scan(volume, down).slices_reversed
    # stored with slices first, head first
    sideways = np.array([[0, 1.0, 0, 0], [0, 0, 1, 0], [-3, 0, 0, 0], [0, 0, 0, 1]])
    assert volume_scan(volume, sideways).slices_reversed


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("thick", [0.9, 1.0, 5.0])
def test_a_single_slice_is_not_cut_across(tmp_path: Path, axis: int, thick: float):
    """A slice that is as thin as its pixels, such as of a reformatted CT, in any direction."""
    shape, spacing = [24, 24, 24], [0.9, 0.9, 0.9]
    shape[axis], spacing[axis] = 1, thick
    volume, affine = np.zeros(shape, np.int16), np.diag([*spacing, 1.0])
    scan = volume_scan(volume, affine)
    assert (scan.slice_axis, scan.slices(scan.image).shape) == (axis, (1, 24, 24))
    save_nifti(tmp_path / "imagesTr" / "a.nii.gz", volume, affine)
    save_nifti(tmp_path / "labelsTr" / "a.nii.gz", volume.astype(np.uint8), affine)
    for options in (SourceOptions(), SourceOptions(unknown_spacing=True)):
        (source,) = find_msd(tmp_path, options)
        assert read_case(source, options).slice_axis == axis


def test_hounsfield_units_are_known_by_air(tmp_path: Path):
    air = np.full((4, 4, 3), -1000, np.int16)
    assert read_scan(save_nifti(tmp_path / "a.nii.gz", air)).modality == "CT"
    assert read_scan(save_nifti(tmp_path / "b.nii.gz", air + 1000)).modality is None


def test_a_picture_is_its_own_grid(tmp_path: Path):
    scan = read_scan(save(tmp_path / "a.png", speckle(1, (20, 30))))
    assert (scan.image.shape, scan.spacing_known, scan.slice_axis) == ((20, 30), False, None)
    assert scan.grid.place(scan.image) is scan.image


@pytest.mark.parametrize(
    ("name", "words"), [("a.txt", "not an image"), ("nan.nii", "not finite"), ("b.png", "read")]
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, words: str):
    path = tmp_path / name
    path.write_bytes(b"no image")
    if name == "nan.nii":
        nib.save(nib.Nifti1Image(np.full((3, 3, 3), np.nan, np.float32), np.eye(4)), path)
    with pytest.raises(FlamesError, match=words) as caught:
        read_scan(path)
    assert name in caught.value.found
    assert caught.value.remedy


def test_inputs_are_named_by_their_place_in_the_folder(tmp_path: Path):
    for name in ("b/10.png", "b/2.png", "a.nii.gz", ".hidden/x.png", "notes.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert [one.name for one in find_inputs([tmp_path])] == ["a", "b/2", "b/10"]
    assert [one.name for one in find_inputs([tmp_path / "b", tmp_path / "a.nii.gz"])] == [
        "2",
        "10",
        "a",
    ]


def test_files_of_a_series_that_are_named_one_by_one_are_that_series(tmp_path: Path):
    files = series(tmp_path / "ct") + series(tmp_path / "b", patient="P2")
    save(tmp_path / "ct" / "x.png", speckle(0))
    named = find_inputs([*files, tmp_path / "ct" / "x.png", files[0]])
    assert [(one.name, len(one.paths)) for one in named] == [("x", 1), ("ct", 6), ("b", 6)]
    assert [len(one.paths) for one in find_inputs(files[:1])] == [1]
    (tmp_path / "ct" / "n.txt").write_text("notes")
    with pytest.raises(FlamesError, match=r"n\.txt is not an image"):
        find_inputs([*files, tmp_path / "ct" / "n.txt"])


def test_inputs_that_do_not_fit_are_named(tmp_path: Path):
    (tmp_path / "a.png").touch()
    (tmp_path / "a.jpg").touch()
    (tmp_path / "n.txt").touch()
    (tmp_path / "empty").mkdir()
    for paths, words in (
        ([tmp_path], "would both be 'a'"),
        ([tmp_path / "n.txt"], "not an image"),
        ([tmp_path / "empty"], "holds no image"),
        ([tmp_path / "gone"], "no file or folder"),
        ([], "no image to look at"),
    ):
        with pytest.raises(FlamesError, match=words) as caught:
            find_inputs(paths)
        assert caught.value.remedy

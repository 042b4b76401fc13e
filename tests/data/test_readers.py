"""NRRD, MetaImage, Analyze, stacks and 16 bits: the same patient, whatever the file."""

from __future__ import annotations

import gzip
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from source_folders import save, save_nifti, speckle

from flames.data.cases import read_case
from flames.data.pairs import find_pairs
from flames.data.pictures import read_mask, read_picture, read_values
from flames.data.scans import read_scan
from flames.data.sources import SourceOptions
from flames.data.volumes import load_native, load_volume
from flames.errors import FlamesError

OBLIQUE = np.array(
    [[0.76, -0.24, 0.2, -50], [0.2, 0.76, 0.9, 20], [-0.1, -0.1, 3.9, 5], [0, 0, 0, 1]]
)
AFFINES = {
    "straight": np.diag([0.8, 0.9, 3.0, 1.0]),
    "left-handed": np.diag([-0.8, 0.9, 3.0, 1.0]),
    "upside down": np.diag([-0.8, -0.9, -3.0, 1.0]),
    "permuted": np.array([[0, 0, 3.0, 4], [0.8, 0, 0, 5], [0, -0.9, 0, 6], [0, 0, 0, 1]]),
    "oblique": None,
}


def rotated() -> np.ndarray:
    turn, _ = np.linalg.qr(OBLIQUE[:3, :3])
    affine = np.eye(4)
    affine[:3, :3] = turn * (0.8, 0.9, 3.0)
    affine[:3, 3] = (-50, 20, 5)
    return affine


def array() -> np.ndarray:
    return np.random.default_rng(0).integers(-900, 900, (5, 6, 7), dtype=np.int16)


def write_itk(path: Path, volume: np.ndarray, affine: np.ndarray) -> Path:
    """Write through SimpleITK itself: its own convention, not ours."""
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.GetImageFromArray(volume.transpose(2, 1, 0))
    lps = np.diag([-1.0, -1, 1, 1]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    sitk.WriteImage(image, str(path))
    return path


def test_a_missing_extra_is_told_with_a_command_that_works_from_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    with pytest.raises(FlamesError, match="not installed") as caught:
        load_volume(tmp_path / "x.nrrd")
    assert "scripts/setup formats" in caught.value.remedy


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".mhd"])
@pytest.mark.parametrize("name", AFFINES)
def test_itk_files_give_the_patient_of_the_nifti(tmp_path: Path, suffix: str, name: str) -> None:
    affine = rotated() if AFFINES[name] is None else AFFINES[name]
    path = write_itk(tmp_path / f"a{suffix}", array(), affine)
    nib.save(nib.Nifti1Image(array(), affine), tmp_path / "a.nii.gz")
    volume, place = load_volume(path)
    expected, at = load_volume(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(volume, expected)
    np.testing.assert_allclose(place, at, atol=1e-5)
    native, _ = load_native(path)
    np.testing.assert_array_equal(native, array())


def test_analyze_is_read_with_its_header(tmp_path: Path) -> None:
    image = nib.Spm99AnalyzeImage(array(), np.diag([0.8, 0.9, 3.0, 1.0]))
    nib.save(image, tmp_path / "a.img")
    volume, affine = load_volume(tmp_path / "a.img")
    assert volume.shape == (5, 6, 7)
    np.testing.assert_allclose(np.diag(affine)[:3], (0.8, 0.9, 3.0), rtol=1e-5)
    assert read_scan(tmp_path / "a.img").spacing == pytest.approx((0.8, 0.9, 3.0))
    (tmp_path / "a.hdr").unlink()
    with pytest.raises(FlamesError, match=r"a\.img"):
        load_volume(tmp_path / "a.img")


@pytest.mark.parametrize(
    ("unit", "size"), [("micron", 500.0), ("meter", 0.0005), ("mm", 0.5), ("unknown", 0.5)]
)
def test_a_nifti_may_count_in_another_unit(tmp_path: Path, unit: str, size: float) -> None:
    image = nib.Nifti1Image(array(), np.diag([size, size, 4 * size, 1]))
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "a.nii.gz")
    np.testing.assert_allclose(
        np.diag(load_volume(tmp_path / "a.nii.gz")[1]), (0.5, 0.5, 2.0, 1), rtol=1e-5
    )
    assert read_scan(tmp_path / "a.nii.gz").spacing == pytest.approx((0.5, 0.5, 2.0))


def test_a_wrong_ending_is_named(tmp_path: Path) -> None:
    whole = save_nifti(tmp_path / "a.nii", np.ones((4, 5, 6), np.int16)).read_bytes()
    (tmp_path / "b.nii").write_bytes(gzip.compress(whole))
    (tmp_path / "c.nii.gz").write_bytes(whole)
    for name, said, better in (
        ("b.nii", "is zipped", "b.nii.gz"),
        ("c.nii.gz", "not zipped", "c.nii"),
    ):
        with pytest.raises(FlamesError, match=said) as caught:
            load_volume(tmp_path / name)
        assert caught.value.remedy == f"rename it to {better}"
        (tmp_path / name).rename(tmp_path / better)
        assert load_volume(tmp_path / better)[0].sum() == 120


def test_a_unit_that_there_is_not_is_no_unit(tmp_path: Path) -> None:
    image = nib.Nifti1Image(array(), np.eye(4))
    image.header["xyzt_units"] = 5
    nib.save(image, tmp_path / "a.nii")
    np.testing.assert_array_equal(load_volume(tmp_path / "a.nii")[1], np.eye(4))


def test_a_resampled_rotated_patient_stays_where_he_is(tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    grid = np.indices((24, 24, 24)).astype(float)
    ball = ((grid - 11.5) ** 2).sum(axis=0) < 36
    path = write_itk(tmp_path / "a.nrrd", ball.astype(np.int16) * 100, np.diag([1.0, 1, 1, 1]))
    source = sitk.ReadImage(str(path))
    turned = sitk.Image([40, 40, 40], sitk.sitkInt16)
    angle = 0.5
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    turned.SetDirection(turn.ravel().tolist())
    turned.SetSpacing([0.8, 0.9, 0.7])
    centre = np.array([-11.5, -11.5, 11.5])
    turned.SetOrigin((centre - turn @ (np.array([0.8, 0.9, 0.7]) * 19.5)).tolist())
    other = sitk.Resample(source, turned, sitk.Transform(), sitk.sitkLinear)
    sitk.WriteImage(other, str(tmp_path / "b.mha"))
    found = []
    for file in (tmp_path / "a.nrrd", tmp_path / "b.mha"):
        volume, affine = load_volume(file)
        inside = np.argwhere(volume > 50)
        place = nib.affines.apply_affine(affine, inside.mean(axis=0))
        size = len(inside) * abs(np.linalg.det(affine[:3, :3]))
        found.append([*place, size])
    np.testing.assert_allclose(found[0][:3], found[1][:3], atol=0.2)
    assert found[0][3] == pytest.approx(found[1][3], rel=0.05)


def test_pairs_of_every_kind_become_cases(tmp_path: Path) -> None:
    label = np.zeros((5, 6, 7), np.uint8)
    label[1:3, 2:4, 3:5] = 1
    for suffix in (".nrrd", ".mha"):
        write_itk(tmp_path / f"1_i{suffix}", array(), rotated())
        write_itk(tmp_path / f"1_m{suffix}", label, rotated())
        options = SourceOptions(images=f"*_i{suffix}", masks=f"*_m{suffix}")
        (source,) = find_pairs(tmp_path, options)
        case = read_case(source, options)
        assert case.label.sum() == 8
        assert sorted(case.spacing) == pytest.approx([0.8, 0.9, 3.0], abs=1e-4)


@pytest.mark.parametrize(
    ("images", "masks", "cases"),
    [
        ("visit [2]/i/*.png", "visit [2]/m/*_seg.png", ["a1", "b2"]),
        ("visit [[]2]/i/*.png", "visit [[]2]/m/*_seg.png", ["a1", "b2"]),
        ("visit [2]/i/[ac]*.png", "visit [2]/m/[ac]*_seg.png", ["a1"]),
        ("visit [2]/i/[!b]*.png", "visit [2]/n/*_seg.png", ["a1"]),
        ("visit [2]/scan[*].png", "visit [2]/mask[*].png", ["7"]),
        ("visit 2/i/a[0-9].png", "visit 2/n/a[0-9].png", ["a1"]),
        ("visit 2/i/a[0-9].png", "visit 2/n/*.png", ["a1"]),
    ],
)
def test_brackets_are_a_names_own_or_a_set_of_characters(
    tmp_path: Path, images: str, masks: str, cases: list[str]
) -> None:
    written = ["i/a1", "i/b2", "m/a1_seg", "m/b2_seg", "n/a1_seg", "scan[7]", "mask[7]"]
    for name in written:
        save(tmp_path / "visit [2]" / f"{name}.png", speckle(1))
    for name in ("i/a1", "n/a1"):
        save(tmp_path / "visit 2" / f"{name}.png", speckle(1))
    found = find_pairs(tmp_path, SourceOptions(images=images, masks=masks))
    assert [source.case_id for source in found] == cases
    place = "visit 2" if "visit 2" in images else "visit [2]"
    assert all(place in str(source.images[0]) for source in found)


def stack(path: Path, pages: np.ndarray) -> Path:
    first, *rest = [Image.fromarray(page) for page in pages]
    first.save(path, save_all=True, append_images=rest)
    return path


def test_a_tiff_stack_is_a_run_of_slices(tmp_path: Path) -> None:
    pages = np.random.default_rng(1).integers(0, 60000, (4, 20, 30), dtype=np.uint16)
    mask = np.zeros((4, 20, 30), np.uint8)
    mask[1, 5:9, 6:9] = 255
    stack(tmp_path / "1_i.tif", pages)
    stack(tmp_path / "1_m.tif", mask)
    options = SourceOptions(images="*_i.tif", masks="*_m.tif")
    (source,) = find_pairs(tmp_path, options)
    case = read_case(source, options)
    assert (case.slice_axis, case.spacing_known) == (0, False)
    np.testing.assert_array_equal(case.image, pages)
    assert case.label.sum() == 12
    scan = read_scan(tmp_path / "1_i.tif")
    assert (scan.image.shape, scan.slice_axis) == ((4, 20, 30), 0)
    np.testing.assert_array_equal(scan.grid.place(scan.image), pages)
    stack(tmp_path / "1_m.tif", mask[:3])
    with pytest.raises(FlamesError, match="3 x 20 x 30, its image 4 x 20 x 30"):
        read_case(source, options)


def test_sixteen_bits_stay_sixteen_bits(tmp_path: Path) -> None:
    pixels = np.arange(600, dtype=np.uint16).reshape(20, 30) * 100
    scan = read_scan(save(tmp_path / "a.png", pixels))
    assert scan.image.dtype == np.uint16
    np.testing.assert_array_equal(scan.image, pixels)


def save_png_of_16_bits(path: Path, pixels: np.ndarray) -> Path:
    """Write ``(H, W, C)`` of two channels, grey with transparency, or of three."""
    height, width, channels = pixels.shape
    kind = {2: 4, 3: 2}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    ]
    ends = [struct.pack(">I", zlib.crc32(name + content)) for name, content in parts]
    chunks = [
        struct.pack(">I", len(content)) + name + content + end
        for (name, content), end in zip(parts, ends, strict=True)
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    return path


@pytest.mark.parametrize("channels", [2, 3])
@pytest.mark.parametrize("read", [read_mask, read_values, read_picture])
def test_channels_of_sixteen_bits_are_refused_before_they_lose_half_of_them(
    tmp_path: Path, channels: int, read: Callable[[Path], object]
) -> None:
    label = np.zeros((8, 9, channels), np.uint16)
    label[2:5, 3:6] = 1  # of the upper eight bits nothing
    with pytest.raises(FlamesError, match=r"a\.png has channels of 16 bits"):
        read(save_png_of_16_bits(tmp_path / "a.png", label))


@pytest.mark.parametrize("name", ["a.nrrd", "a.mha", "a.mhd", "a.img", "a.tif"])
def test_damaged_files_are_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"NRRD0004\nnothing")
    with pytest.raises(FlamesError) as caught:
        read_scan(tmp_path / name)
    assert name in caught.value.found
    assert caught.value.remedy


def test_a_flipped_bit_of_a_zipped_volume_is_seen_by_its_checksum(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).integers(-900, 900, (20, 21, 9), dtype=np.int16)
    path = tmp_path / "a.nii.gz"
    save_nifti(path, volume)
    content = bytearray(path.read_bytes())
    np.testing.assert_array_equal(load_native(path)[0], volume)
    content[-6] ^= 1  # in the checksum, so that all voxels still unzip
    path.write_bytes(bytes(content))
    with pytest.raises(FlamesError, match="cannot be read"):
        load_native(path)


def test_damage_that_leaves_too_many_bytes_is_seen_by_its_checksum(tmp_path: Path) -> None:
    """A flipped bit in the middle of a file changes how many bytes come of it."""
    volume = np.random.default_rng(0).integers(-900, 900, (20, 21, 9), dtype=np.int16)
    save_nifti(tmp_path / "a.nii", volume)
    content = bytearray(gzip.compress((tmp_path / "a.nii").read_bytes() + b"abc"))
    path = tmp_path / "b.nii.gz"
    path.write_bytes(content)
    np.testing.assert_array_equal(load_native(path)[0], volume)
    content[-6] ^= 1  # in the checksum
    path.write_bytes(content)
    with pytest.raises(FlamesError, match="cannot be read"):
        load_native(path)


def test_a_volume_zipped_in_two_parts_is_whole(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).integers(-900, 900, (20, 21, 9), dtype=np.int16)
    save_nifti(tmp_path / "a.nii", volume)
    content = (tmp_path / "a.nii").read_bytes()
    path = tmp_path / "b.nii.gz"
    path.write_bytes(gzip.compress(content[:3000]) + gzip.compress(content[3000:]))
    np.testing.assert_array_equal(load_native(path)[0], volume)

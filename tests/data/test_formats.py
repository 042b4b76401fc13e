from __future__ import annotations

import re
import unicodedata
from dataclasses import replace
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
import pytest
from source_folders import save, save_nifti, speckle, square

from flames.data.cases import read_case
from flames.data.folders import matches
from flames.data.formats import FORMATS, find_sources
from flames.data.sources import Source, SourceOptions, parse_where, safe_case_id, select
from flames.errors import FlamesError

NONE = SourceOptions()


def found(folder: Path, source_format: str, options: SourceOptions = NONE) -> dict[str, Source]:
    return {s.case_id: s for s in find_sources(folder, source_format, options)}


def test_busi_unions_masks_and_keeps_normal_images(busi: Path) -> None:
    sources = found(busi, "busi")
    assert len(sources) == 12
    case = read_case(sources["benign-1"], NONE)
    assert case.label.sum() == 10 * 10 + 4 * 4
    assert case.image.dtype == np.uint8
    normal = sources["normal-2"]
    assert normal.category == "normal"
    assert read_case(normal, NONE).label.sum() == 0


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "1", "P", "LA"])
def test_masks_of_any_mode_read_alike(tmp_path: Path, mode: str) -> None:
    from PIL import Image

    folder = tmp_path / "benign"
    save(folder / "a.png", speckle(1))
    Image.fromarray(square()).convert(mode).save(folder / "a_mask.png")
    assert read_case(found(tmp_path, "busi")["a"], NONE).label.sum() == 100


def test_otu2d_takes_every_colour_but_black_and_no_normal_ovary(tmp_path: Path) -> None:
    from PIL import Image

    root = tmp_path / "OTU_2d"
    colours = np.zeros((40, 48, 3), np.uint8)
    colours[3:5, 3:6] = (0, 0, 64)
    colours[10:12, 3:6] = (128, 0, 0)
    for number in (1, 2):
        (root / "images").mkdir(parents=True, exist_ok=True)
        Image.fromarray(speckle(number)).save(root / "images" / f"{number}.JPG")
    save(root / "annotations" / "1.PNG", colours)
    (root / "annotations").mkdir(exist_ok=True)
    Image.fromarray(colours).quantize().save(root / "annotations" / "2.PNG")
    assert read_case(found(tmp_path, "otu2d")["2"], NONE).label.sum() == 12
    for text in (
        "2\tOvary_Normal\n1\tTeratoma\n",
        "\ufeff2.JPG\tOvary_Normal\n1.JPG\tTeratoma\n3.JPG\tTeratoma",
    ):
        (root / "classes.tsv").write_text(text, encoding="utf-8")
        sources = found(tmp_path, "otu2d")
        assert sources["1"].category == "Teratoma"
        assert read_case(sources["1"], NONE).label.sum() == 12
        assert read_case(sources["2"], NONE).label.sum() == 0


def test_kaggle3m_stacks_the_middle_channel_by_number(kaggle3m: Path) -> None:
    source = found(kaggle3m, "kaggle3m")["TCGA_CS_0_19970222"]
    assert (source.hospital, source.patient_id) == ("CS", "TCGA_CS_0_19970222")
    case = read_case(source, NONE)
    assert case.image.shape == (9, 8, 11)
    assert case.label.sum(axis=(0, 1)).tolist() == [0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]
    # Row 0, column 8 of slice n: last column is leftmost in RAS, first row is foremost.
    assert case.image[0, 7].tolist() == [50 + n for n in range(1, 12)]
    assert (case.spacing, case.spacing_known, case.slice_axis) == ((1.0, 1.0, 1.0), False, 2)
    other = found(kaggle3m, "kaggle3m", SourceOptions(channel=0))["TCGA_CS_0_19970222"]
    assert (read_case(other, NONE).image == 200).all()


def test_msd_turns_volumes_to_ras_and_keeps_places(tmp_path: Path) -> None:
    affine = np.array([[0, -2.0, 0, 9], [0, 0, 3.0, -4], [1.0, 0, 0, 2], [0, 0, 0, 1]])
    volume = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
    label = (volume == 37).astype(np.uint8)
    save_nifti(tmp_path / "imagesTr" / "A_0000.nii.gz", volume, affine)
    save_nifti(tmp_path / "labelsTr" / "A.nii.gz", label, affine)
    source = found(tmp_path, "msd")["A"]
    case = read_case(source, NONE)
    assert case.affine is not None
    assert "".join(nib.aff2axcodes(case.affine)) == "RAS"
    assert case.image.shape == (5, 6, 4)
    assert case.spacing == (2.0, 3.0, 1.0)
    assert case.slice_axis == 1
    there = np.argwhere(case.label)[0]
    assert case.image[tuple(there)] == 37
    before = affine @ [*np.argwhere(label)[0], 1]
    np.testing.assert_allclose(case.affine @ [*there, 1], before)


def test_msd_unknown_spacing_becomes_one_pixel(msd: Path) -> None:
    case = read_case(found(msd, "msd")["TCGA_CS_1"], SourceOptions(unknown_spacing=True))
    assert (case.spacing, case.spacing_known, case.slice_axis) == ((1.0, 1.0, 1.0), False, 2)


def test_msd_channels_as_fourth_axis_or_as_files(tmp_path: Path) -> None:
    volume = np.zeros((4, 5, 6, 2), np.float32)
    volume[..., 1] = 7
    save_nifti(tmp_path / "imagesTr" / "A.nii", volume)
    save_nifti(tmp_path / "labelsTr" / "A.nii", np.ones((4, 5, 6), np.uint8))
    for channel in (0, 1):
        for name in ("B",):
            path = tmp_path / "imagesTr" / f"{name}_000{channel}.nii.gz"
            save_nifti(path, np.full((4, 5, 6), channel + 3, np.uint16))
    save_nifti(tmp_path / "labelsTr" / "B.nii.gz", np.ones((4, 5, 6), np.uint8))
    options = SourceOptions(channel=1)
    sources = found(tmp_path, "msd", options)
    assert (read_case(sources["A"], options).image == 7).all()
    assert (read_case(sources["B"], options).image == 4).all()
    with pytest.raises(FlamesError, match="channels"):
        found(tmp_path, "msd")
    with pytest.raises(FlamesError, match="0 to 1, not 5"):
        read_case(Source("A", sources["A"].images, sources["A"].masks, "volume", channel=5), NONE)


def test_msd_takes_no_channel_for_another(tmp_path: Path) -> None:
    for name in ("A_0000", "A_0001", "B_0001"):
        save_nifti(tmp_path / "imagesTr" / f"{name}.nii.gz", np.full((4, 5, 6), 3, np.uint16))
    for name in ("A", "B"):
        save_nifti(tmp_path / "labelsTr" / f"{name}.nii.gz", np.ones((4, 5, 6), np.uint8))
    sources = found(tmp_path, "msd", SourceOptions(channel=1))
    assert {s.images[0].name for s in sources.values()} == {"A_0001.nii.gz", "B_0001.nii.gz"}
    assert (read_case(sources["B"], NONE).image == 3).all()
    with pytest.raises(FlamesError, match="B has channel 1, not 0"):
        found(tmp_path, "msd", SourceOptions(channel=0))


def test_tumour_labels_choose(tmp_path: Path) -> None:
    label = np.zeros((4, 5, 6), np.uint8)
    label[0, 0, :4] = (1, 1, 2, 3)
    save_nifti(tmp_path / "imagesTr" / "A.nii.gz", np.ones((4, 5, 6), np.int16))
    save_nifti(tmp_path / "labelsTr" / "A.nii.gz", label)
    source = found(tmp_path, "msd")["A"]
    assert read_case(source, NONE).label.sum() == 4
    options = SourceOptions(tumour_labels=(1, 3), other_labels=(2,))
    assert read_case(source, options).label.sum() == 3
    with pytest.raises(FlamesError, match="holds label 3, known are 0, 1, 2"):
        read_case(source, SourceOptions(tumour_labels=(1, 2)))


@pytest.mark.parametrize("kind", ["volume", "picture"])
def test_other_labels_alone_are_no_tumour(tmp_path: Path, kind: str) -> None:
    values = np.zeros((40, 48), np.uint8)
    values[:2, :3], values[5, :4] = 1, 2
    options = SourceOptions(other_labels=(2,))
    if kind == "volume":
        save_nifti(tmp_path / "imagesTr" / "A.nii", np.ones((40, 48, 3), np.int16))
        save_nifti(tmp_path / "labelsTr" / "A.nii", np.stack([values] * 3, axis=-1))
        assert read_case(found(tmp_path, "msd", options)["A"], options).label.sum() == 3 * 6
    else:
        save(tmp_path / "benign" / "a.png", speckle(1))
        save(tmp_path / "benign" / "a_mask.png", values)
        assert read_case(found(tmp_path, "busi", options)["a"], options).label.sum() == 6


def test_pairs_go_by_what_the_wildcards_match(tmp_path: Path) -> None:
    for name in ("7", "70"):
        save(tmp_path / "img" / f"{name}.png", speckle(int(name)))
        save(tmp_path / "img" / f"{name}_seg.png", square(side=int(name) % 9 + 1))
    options = SourceOptions(images="img/*.png", masks="img/*_seg.png")
    sources = found(tmp_path, "pairs", options)
    assert {k: read_case(s, options).label.sum() for k, s in sources.items()} == {"7": 64, "70": 64}
    assert sources["7"].masks[0].name == "7_seg.png"


def test_pairs_know_the_patient_by_the_path(tmp_path: Path) -> None:
    for patient, session in (("01", "a"), ("01", "b"), ("02", "a")):
        folder = tmp_path / f"sub-{patient}" / f"ses-{session}"
        save(folder / "us.png", speckle(int(patient)))
        save(folder / "us_mask.png", square())
    globs = SourceOptions(images="sub-*/ses-*/us.png", masks="sub-*/ses-*/us_mask.png")
    options = replace(globs, patient=r"sub-(\d+)")
    patients = {k: s.patient_id for k, s in found(tmp_path, "pairs", options).items()}
    assert patients == {"01_a": "01", "01_b": "01", "02_a": "02"}
    whole = found(tmp_path, "pairs", replace(globs, patient=r"sub-\d+"))
    assert {s.patient_id for s in whole.values()} == {"sub-01", "sub-02"}
    two = found(tmp_path, "pairs", replace(globs, patient=r"sub-(\d)(\d)"))
    assert {s.patient_id for s in two.values()} == {"0_1", "0_2"}
    assert {s.patient_id for s in found(tmp_path, "pairs", globs).values()} == {None}


@pytest.mark.parametrize("pattern", ["patient-([0-9]+)", "sub-([0-9]*)x?-b", "()"])
def test_a_path_that_names_no_patient_is_refused(tmp_path: Path, pattern: str) -> None:
    save(tmp_path / "sub-1-b.png", speckle(1))
    save(tmp_path / "sub--b.png", speckle(2))
    for name in ("sub-1-b", "sub--b"):
        save(tmp_path / f"{name}_mask.png", square())
    options = SourceOptions(images="*-b.png", masks="*-b_mask.png", patient=pattern)
    with pytest.raises(FlamesError, match=r"finds no patient in sub-.*-b\.png") as error:
        find_sources(tmp_path, "pairs", options)
    assert "sub-([0-9]+)" in error.value.remedy


NAMES = (
    "Müller",
    "Möller",
    "Mu\u0308ller 2",
    "肿瘤",
    "腫瘍",
    "( )",
    "10²5",
    "plain_1",
    "benign (4)",
)


def test_every_name_has_its_own_case_id(tmp_path: Path) -> None:
    for name in NAMES:
        save(tmp_path / "i" / f"{name}.png", speckle(1))
        save(tmp_path / "m" / f"{name}.png", square())
    options = SourceOptions(images="i/*.png", masks="m/*.png")
    ids = [s.case_id for s in select(find_sources(tmp_path, "pairs", options), {})]
    assert len(ids) == len(set(ids)) == len(NAMES)
    assert {"plain_1", "benign-4"} < set(ids)
    assert all(re.fullmatch("[A-Za-z0-9_.-]+", case_id) for case_id in ids)
    assert safe_case_id("M\u00fcller") == safe_case_id("Mu\u0308ller")


@pytest.mark.parametrize("source_format", ["pairs", "msd"])
def test_an_image_and_its_mask_may_spell_an_umlaut_in_two_ways(
    tmp_path: Path, source_format: str
) -> None:
    image = tmp_path / "imagesTr" / "Mu\u0308ller.nii"
    mask = tmp_path / "labelsTr" / "M\u00fcller.nii"
    for path in (image, mask):
        save_nifti(path, np.ones((4, 5, 6), np.uint8))
    globs = {"images": "imagesTr/*.nii", "masks": "labelsTr/*.nii"}
    options = SourceOptions(**(globs if source_format == "pairs" else {}))
    (found,) = find_sources(tmp_path, source_format, options)
    assert (found.images, found.masks) == ((image,), (mask,))


@pytest.mark.parametrize("typed", ["NFC", "NFD"])
@pytest.mark.parametrize("kept", ["NFC", "NFD"])
def test_a_pattern_may_spell_an_umlaut_otherwise_than_a_disk(
    tmp_path: Path, typed: Literal["NFC", "NFD"], kept: Literal["NFC", "NFD"]
) -> None:
    for name in ("M\u00fcller/\u00fcber 7.png", "M\u00fcller/m\u00fc 7.png"):
        save(tmp_path / unicodedata.normalize(kept, name), square())
    images, masks = (
        unicodedata.normalize(typed, pattern)
        for pattern in ("M\u00fcller/\u00fcber *.png", "M\u00fcller/m\u00fc *.png")
    )
    (found,) = find_sources(tmp_path, "pairs", SourceOptions(images=images, masks=masks))
    assert found.case_id == "7"


def test_what_a_mac_writes_beside_a_file_is_no_image(tmp_path: Path) -> None:
    for folder, picture in (("i", speckle(1)), ("m", square())):
        save(tmp_path / folder / "7.png", picture)
        (tmp_path / folder / "._7.png").write_bytes(b"\x00\x05\x16\x07")
    for pattern in ("{}/*.png", "**/{}/*.png", "{}/?*"):
        images, masks = pattern.format("i"), pattern.format("m")
        (found,) = find_sources(tmp_path, "pairs", SourceOptions(images=images, masks=masks))
        assert found.case_id.startswith("7")
    assert matches(tmp_path, "i/.*") == [tmp_path / "i" / "._7.png"]


def linked(root: Path) -> Path:
    """Return a source of two patients, one of them behind a link."""
    for name in ("P_1", "P_2"):
        folder = root.with_name("elsewhere") / name if name == "P_2" else root / name
        for ending in ("flair", "seg"):
            save_nifti(folder / f"{name}_{ending}.nii.gz", np.ones((4, 5, 6), np.uint8))
        for ending in ("1.tif", "1_mask.tif"):
            save(folder / "tif" / f"{name}_{ending}", square())
    (root / "P_2").symlink_to(root.with_name("elsewhere") / "P_2", target_is_directory=True)
    (root / "P_1" / "tif" / "back").symlink_to(root, target_is_directory=True)
    return root


@pytest.mark.parametrize("source_format", ["brats", "pairs"])
def test_links_to_patients_are_followed(tmp_path: Path, source_format: str) -> None:
    root = linked(tmp_path / "source")
    pairs = SourceOptions(images="**/*_1.tif", masks="**/*_1_mask.tif")
    sources = find_sources(root, source_format, pairs if source_format == "pairs" else NONE)
    assert [s.images[0].name[:3] for s in select(sources, {})] == ["P_1", "P_2"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("**/*.png", ["0.png", "a/1.png", "a/b/2.png"]),
        ("a/**/*.png", ["a/1.png", "a/b/2.png"]),
        ("*/[12].png", ["a/1.png"]),
        ("a/b/?.png", ["a/b/2.png"]),
        ("**/b/*", ["a/b/2.png"]),
        ("../source/a/*.png", ["../source/a/1.png"]),
        ("a", ["a"]),
        ("b/*", []),
        ("0.png/*", []),
    ],
)
def test_globs_find_what_pathlib_finds_but_in_hidden_folders(
    tmp_path: Path, pattern: str, names: list[str]
) -> None:
    root = tmp_path / "source"
    for name in ("0.png", "a/1.png", "a/b/2.png", ".h/3.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    found = matches(root, pattern)
    assert sorted(found) == sorted(root / name for name in names)
    assert sorted(found) == sorted(p for p in root.glob(pattern) if p.parent.name != ".h")


@pytest.mark.parametrize("pattern", ["/i/*.png", "i**/*.png"])
def test_globs_that_cannot_be_searched(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(FlamesError, match=r"--masks .* cannot be searched"):
        find_sources(tmp_path, "pairs", SourceOptions(images="i/*.png", masks=pattern))


@pytest.mark.parametrize(
    ("dtype", "kept"),
    [("uint8", "uint8"), ("int16", "int16"), ("uint16", "uint16"), ("float64", "float32"),
     ("int32", "float32"), (">i2", "int16")],
)  # fmt: skip
def test_small_integers_are_kept(tmp_path: Path, dtype: str, kept: str) -> None:
    save_nifti(tmp_path / "imagesTr" / "A.nii.gz", np.full((4, 5, 6), 9, dtype))
    save_nifti(tmp_path / "labelsTr" / "A.nii.gz", np.ones((4, 5, 6), np.uint8))
    image = read_case(found(tmp_path, "msd")["A"], NONE).image
    assert image.dtype == np.dtype(kept)
    assert image.dtype.isnative
    assert (image == 9).all()


def test_where_keeps_what_is_asked(msd: Path, busi: Path) -> None:
    sources = find_sources(msd, "msd", NONE)
    assert [s.case_id for s in select(sources, parse_where(["hospital=DU"]))] == ["TCGA_DU_1"]
    assert len(select(sources, parse_where(["hospital=DU,CS"]))) == 4
    both = parse_where(["hospital=CS", "patient=TCGA_CS_2"])
    assert [s.case_id for s in select(sources, both)] == ["TCGA_CS_2"]
    pictures = find_sources(busi, "busi", NONE)
    assert len(select(pictures, parse_where(["category=benign"]))) == 4


@pytest.mark.parametrize(
    ("text", "said"),
    [("hospital", "KEY=VALUE"), ("hospitl=CS", "did you mean 'hospital'"), ("hospital=", "KEY")],
)
def test_where_says_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(FlamesError, match=said):
        parse_where([text])


def test_where_that_leaves_nothing_says_what_there_is(msd: Path) -> None:
    with pytest.raises(FlamesError, match="hospital: CS, DU"):
        select(find_sources(msd, "msd", NONE), {"hospital": ("FG",)})


def test_two_files_for_one_case_are_refused(tmp_path: Path) -> None:
    for name in ("a b", "a-b"):
        save(tmp_path / "benign" / f"{name}.png", speckle(1))
        save(tmp_path / "benign" / f"{name}_mask.png", square())
    with pytest.raises(FlamesError, match="would both be case"):
        select(find_sources(tmp_path, "busi", NONE), {})


@pytest.mark.parametrize("source_format", sorted(FORMATS))
@pytest.mark.parametrize("kind", ["empty", "file", "absent"])
def test_a_folder_without_cases_is_refused(tmp_path: Path, source_format: str, kind: str) -> None:
    folder = tmp_path / "source"
    if kind == "empty":
        folder.mkdir()
    elif kind == "file":
        folder.write_text("not a folder")
    globs = {"images": "i/*.png", "masks": "m/*.png"} if source_format == "pairs" else {}
    options = SourceOptions(**globs)
    said = {"empty": "no |finds no", "file": "not a folder", "absent": "there is no folder"}[kind]
    with pytest.raises(FlamesError, match=said) as caught:
        find_sources(folder, source_format, options)
    assert str(folder) in caught.value.found
    assert caught.value.remedy


def test_an_unknown_format_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(FlamesError, match="did you mean 'otu2d'"):
        find_sources(tmp_path, "otu2", NONE)

"""Whatever is wrong with a source: the error names the file and a remedy, and no store comes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from source_folders import save, save_nifti, speckle, square

from flames.data.cases import read_case
from flames.data.formats import find_sources
from flames.data.prepare import StoreRequest, add_store
from flames.data.sources import SourceOptions, safe_case_id
from flames.errors import FlamesError

Spoil = Callable[[Path], Path]


def _truncate(path: Path, share: float = 0.6) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def _benign(root: Path, name: str) -> Path:
    return root / "Dataset_BUSI_with_GT" / "benign" / name


def _no_mask(root: Path) -> Path:
    _benign(root, "benign (2)_mask.png").unlink()
    return _benign(root, "benign (2).png")


def _no_image(root: Path) -> Path:
    _benign(root, "benign (2).png").unlink()
    return _benign(root, "benign (2)_mask.png")


def _other_size(root: Path) -> Path:
    return save(_benign(root, "benign (2)_mask.png"), square((40, 47)))


def _photograph(root: Path) -> Path:
    return save(_benign(root, "benign (2)_mask.png"), speckle(3))


def _truncated_png(root: Path) -> Path:
    return _truncate(_benign(root, "benign (2).png"))


def _truncated_mask(root: Path) -> Path:
    return _truncate(_benign(root, "benign (2)_mask.png"))


def _text(root: Path) -> Path:
    _benign(root, "benign (2).png").write_text("not a picture")
    return _benign(root, "benign (2).png")


PICTURES: dict[str, tuple[Spoil, str]] = {
    "no mask": (_no_mask, "has no mask"),
    "no image": (_no_image, "has no image"),
    "other size": (_other_size, "40 x 47, its image 40 x 48"),
    "photograph as mask": (_photograph, "not a mask of two values"),
    "truncated": (_truncated_png, "truncated"),
    "truncated mask": (_truncated_mask, "truncated"),
    "text": (_text, "cannot be read"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_spoiled_picture(busi: Path, tmp_path: Path, name: str) -> None:
    spoil, said = PICTURES[name]
    _refused(busi, tmp_path / "store", "busi", "US", spoil(busi), said)


def test_truncated_jpg(tmp_path: Path) -> None:
    root = tmp_path / "otu"
    for i in range(3):
        save(root / "images" / f"{i}.JPG", speckle(i, (64, 64)))
        save(root / "annotations" / f"{i}.PNG", square((64, 64)))
    path = _truncate(root / "images" / "1.JPG")
    _refused(root, tmp_path / "store", "otu2d", "US", path, "truncated")


CLASSES: dict[str, tuple[bytes, str]] = {
    "no tab": (b"1 Teratoma\n", "line 1"),
    "no such image": (b"image 1\tOvary_Normal\n", "no line for 1.JPG, and line 1 names 'image 1'"),
    "two classes": (b"1\tTeratoma\n1\tOvary_Normal\n", "in a line above"),
    "Latin-1": ("1\tZyste-\u00e4\n".encode("latin-1"), "not UTF-8"),
    "UTF-16": ("1\tOvary_Normal\n".encode("utf-16"), "not UTF-8"),
}


@pytest.mark.parametrize("name", CLASSES)
def test_damaged_classes(tmp_path: Path, name: str) -> None:
    root = tmp_path / "otu"
    save(root / "images" / "1.JPG", speckle(1))
    save(root / "annotations" / "1.PNG", square())
    content, said = CLASSES[name]
    (root / "classes.tsv").write_bytes(content)
    _refused(root, tmp_path / "store", "otu2d", "US", root / "classes.tsv", said)


def _volume(root: Path, **changes: object) -> Path:
    image = np.ones((12, 10, 6), np.float32)
    if "value" in changes:
        image[3, 3, 3] = changes["value"]
    shape = changes.get("shape", image.shape)
    return save_nifti(root / "imagesTr" / "TCGA_CS_2.nii.gz", np.resize(image, shape))


def _label(root: Path, label: np.ndarray, affine: np.ndarray | None = None) -> Path:
    return save_nifti(root / "labelsTr" / "TCGA_CS_2.nii.gz", label, affine)


def _shifted_affine() -> np.ndarray:
    affine = np.diag([2.0, 2.0, 5.0, 1.0])
    affine[0, 3] = 1.0
    return affine


def _flat_affine(root: Path) -> Path:
    import gzip

    path = root / "imagesTr" / "TCGA_CS_2.nii.gz"
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[280:328] = bytes(48)
    path.write_bytes(gzip.compress(bytes(content)))
    return path


ONES = np.ones((12, 10, 6), np.uint8)
VOLUMES: dict[str, tuple[Spoil, str]] = {
    "no label": (lambda r: _without_label(r), "has no mask"),
    "other size": (lambda r: _label(r, ONES[:, :, :5]), "12 x 10 x 5, its image 12 x 10 x 6"),
    "other place": (lambda r: _label(r, ONES, _shifted_affine()), "1 mm from its image"),
    "flat affine": (_flat_affine, "cannot be inverted"),
    "truncated": (lambda r: _truncate(r / "imagesTr" / "TCGA_CS_2.nii.gz"), "cannot be read"),
    "NaN": (lambda r: _volume(r, value=np.nan), "NaN"),
    "infinity": (lambda r: _volume(r, value=np.inf), "not finite"),
    "two dimensions": (lambda r: _volume(r, shape=(12, 10)), "not a volume"),
    "four dimensions": (lambda r: _volume(r, shape=(12, 10, 6, 2)), "has 2 channels"),
    "label of four dimensions": (
        lambda r: _label(r, np.ones((12, 10, 6, 2), np.uint8)),
        "is a label of 2 channels, it must have one",
    ),
    "probabilities": (lambda r: _label(r, ONES * np.float32(0.5)), "not whole numbers"),
    "NaN in label": (lambda r: _label(r, ONES * np.float32("nan")), "not whole numbers"),
    "unsaid label": (lambda r: _label(r, ONES * 7), "holds label 7"),
    "label without image": (
        lambda r: save_nifti(r / "labelsTr" / "X.nii.gz", ONES),
        "X.nii.gz has no image",
    ),
    "image twice": (lambda r: save_nifti(r / "imagesTr" / "TCGA_CS_2.nii", ONES), "are both there"),
    "label twice": (lambda r: save_nifti(r / "labelsTr" / "TCGA_CS_2.nii", ONES), "are both there"),
    "whole and channel": (
        lambda r: save_nifti(r / "imagesTr" / "TCGA_CS_2_0000.nii.gz", ONES).with_name(
            "TCGA_CS_2.nii.gz"
        ),
        "one file a channel is there too",
    ),
}


def _without_label(root: Path) -> Path:
    (root / "labelsTr" / "TCGA_CS_2.nii.gz").unlink()
    return root / "imagesTr" / "TCGA_CS_2.nii.gz"


@pytest.mark.parametrize("name", VOLUMES)
def test_spoiled_volume(msd: Path, tmp_path: Path, name: str) -> None:
    spoil, said = VOLUMES[name]
    options = SourceOptions(tumour_labels=(1, 2))
    _refused(msd, tmp_path / "store", "msd", "MR", spoil(msd), said, options)


PATIENT = "TCGA_CS_1_19970222"


def _slice(folder: Path, name: str) -> Path:
    return save(folder / f"{PATIENT}_{name}", np.zeros((8, 9, 3), np.uint8))


def _gone(path: Path) -> Path:
    path.unlink()
    return path


def _emptied(folder: Path) -> Path:
    for path in folder.iterdir():
        path.unlink()
    return folder


SLICES: dict[str, tuple[Spoil, str]] = {
    "no slice inside": (lambda f: _gone(f / f"{PATIENT}_5.tif").parent, "no slice 5"),
    "no slice at the end": (
        lambda f: _gone(f / f"{PATIENT}_11.tif").with_name(f"{PATIENT}_11_mask.tif"),
        "11_mask.tif has no image",
    ),
    "no mask": (
        lambda f: _gone(f / f"{PATIENT}_5_mask.tif").with_name(f"{PATIENT}_5.tif"),
        "has no mask",
    ),
    "mask of another": (
        lambda f: (
            (f / f"{PATIENT}_5_mask.tif").rename(f / "X_5_mask.tif").with_name(f"{PATIENT}_5.tif")
        ),
        "has no mask",
    ),
    "nothing": (_emptied, "has no slice"),
    "a number twice": (lambda f: _slice(f, "05.tif"), "would both be number 5"),
    "two endings": (lambda f: _slice(f, "5.tiff"), "would both be number 5"),
    "no number": (lambda f: _slice(f, "five.tif"), "neither a slice nor a mask"),
}


@pytest.mark.parametrize("name", SLICES)
def test_spoiled_slices(kaggle3m: Path, tmp_path: Path, name: str) -> None:
    spoil, said = SLICES[name]
    path = spoil(kaggle3m / "kaggle_3m" / PATIENT)
    _refused(kaggle3m, tmp_path / "store", "kaggle3m", "MR", path, said)


def test_a_slice_of_another_size(kaggle3m: Path, tmp_path: Path) -> None:
    path = kaggle3m / "kaggle_3m" / "TCGA_CS_1_19970222" / "TCGA_CS_1_19970222_5.tif"
    save(path, np.zeros((8, 7, 3), np.uint8))
    save(path.with_name(f"{path.stem}_mask.tif"), np.zeros((8, 7), np.uint8))
    _refused(
        kaggle3m, tmp_path / "store", "kaggle3m", "MR", path, "is 8 x 7, the first slice 8 x 9"
    )


def test_pairs_left_over(tmp_path: Path) -> None:
    root = tmp_path / "pairs"
    save(root / "i" / "1.png", speckle(1))
    save(root / "m" / "1.png", square())
    extra = save(root / "m" / "2.png", square())
    options = SourceOptions(images="i/*.png", masks="m/*.png")
    _refused(root, tmp_path / "store", "pairs", "US", extra, "has no image", options)
    extra.unlink()
    extra = save(root / "i" / "3.png", speckle(1))
    _refused(root, tmp_path / "store", "pairs", "US", extra, "has no mask", options)
    with pytest.raises(FlamesError, match="--images"):
        add_store(root, tmp_path / "store", StoreRequest("pairs", "a", "US", "b"))


def test_names_that_are_too_long_for_a_folder_are_cut_and_stay_apart(tmp_path: Path) -> None:
    inner = Path("a" * 150, "b" * 150)
    for number in range(3):
        save(tmp_path / "s" / "i" / inner / f"{number}.png", speckle(number))
        save(tmp_path / "s" / "m" / inner / f"{number}.png", square())
    options = SourceOptions(images="i/**/*.png", masks="m/**/*.png")
    request = StoreRequest("pairs", "a", "US", "b", options=options)
    store = add_store(tmp_path / "s", tmp_path / "store", request).store
    assert len(store.cases) == 3
    assert {len(name) for name in store.cases} == {246}
    assert safe_case_id("x" * 246) == "x" * 246


def test_pairs_of_a_kind_that_is_not_read(tmp_path: Path) -> None:
    root = tmp_path / "pairs"
    for name in ("1.png", "2.bmp"):
        save(root / "i" / name, speckle(1))
        save(root / "m" / name, square())
    (root / "i" / "notes.txt").touch()
    options = SourceOptions(images="i/*", masks="m/*")
    other = root / "m" / "2.bmp"
    _refused(root, tmp_path / "store", "pairs", "US", other, "no image that flames reads", options)
    (root / "i" / "2.bmp").unlink()
    other.unlink()
    (found,) = find_sources(root, "pairs", options)
    assert found.case_id == "1.png"


def test_labels_below_zero_are_tumour_only_where_that_is_said(msd: Path, tmp_path: Path) -> None:
    """Programs mark with -1 what nobody looked at."""
    label = np.zeros((12, 10, 6), np.int16)
    label[2:5, 3:6, 1:3], label[0] = 1, -1
    path = save_nifti(msd / "labelsTr" / "TCGA_CS_1.nii.gz", label)
    _refused(msd, tmp_path / "store", "msd", "MR", path, "holds label -1")
    for said, count in (({"other_labels": (-1,)}, 18), ({"tumour_labels": (1, -1)}, 78)):
        options = SourceOptions(**said)
        assert read_case(find_sources(msd, "msd", options)[0], options).label.sum() == count


@pytest.mark.parametrize("name", ["imagesTr/B.nrrd", "labelsTr/B.MHA"])
def test_volumes_of_another_kind_are_not_left_out(msd: Path, tmp_path: Path, name: str) -> None:
    other = msd / name
    other.write_bytes(b"NRRD0005")
    _refused(msd, tmp_path / "store", "msd", "MR", other, "an image of another kind")
    other.rename(other.with_suffix(".txt"))
    assert len(find_sources(msd, "msd", SourceOptions())) == 4


def test_pictures_of_another_kind_are_not_left_out(busi: Path, tmp_path: Path) -> None:
    other = save(busi / "Dataset_BUSI_with_GT" / "benign" / "benign (9).jpg", speckle(1))
    save(other.with_name("benign (9)_mask.jpg"), square())
    _refused(busi, tmp_path / "store", "busi", "US", other, "an image of another kind")


def _brats(root: Path) -> Path:
    for name in ("BraTS_1", "BraTS_2"):
        for ending in ("flair", "seg"):
            save_nifti(root / name / f"{name}_{ending}.nii.gz", np.ones((4, 5, 6), np.uint8))
    return root


@pytest.mark.parametrize(
    ("layout", "name", "twin"),
    [
        ("brats", "P_1/P_1_seg.nii", "P_1/P_1_seg.nii.gz"),
        ("kits", "case_1/segmentation.nii", "case_1/segmentation.nii.gz"),
        ("busi", "benign/benign (1).png", "benign/benign (1).PNG"),
        ("otu2d", "annotations/1.png", "annotations/1.PNG"),
    ],
)
def test_one_file_in_two_forms(tmp_path: Path, layout: str, name: str, twin: str) -> None:
    root = tmp_path / "source"
    for case, image in (("P_1", "P_1_flair"), ("case_1", "imaging")):
        save_nifti(root / case / f"{image}.nii.gz", np.ones((4, 5, 6), np.uint8))
    save(root / "benign" / "benign (1)_mask.png", square())
    save(root / "images" / "1.png", speckle(1))
    for path in (root / name, root / twin):
        if ".nii" in path.name:
            save_nifti(path, np.ones((4, 5, 6), np.uint8))
        else:
            save(path, square())
    modality = "US" if layout in ("busi", "otu2d") else "MR"
    _refused(root, tmp_path / "store", layout, modality, root / name, "are both there")


def test_a_patient_folder_without_images(tmp_path: Path) -> None:
    root = _brats(tmp_path / "brats")
    _emptied(root / "BraTS_2")
    _refused(root, tmp_path / "store", "brats", "MR", root / "BraTS_2", "BraTS_2 has no NAME_flair")


LINKS: dict[str, tuple[str, str]] = {
    "leads nowhere": ("gone", "leads nowhere"),
    "leads to another patient": ("BraTS_1", "are the same folder"),
}


@pytest.mark.parametrize("name", LINKS)
def test_a_link_that_is_no_patient(tmp_path: Path, name: str) -> None:
    root = _brats(tmp_path / "brats")
    target, said = LINKS[name]
    (root / "BraTS_3").symlink_to(root / target)
    _refused(root, tmp_path / "store", "brats", "MR", root / "BraTS_3", said)


UNREADABLE = {
    "msd": ("imagesTr", SourceOptions()),
    "brats": ("BraTS_1", SourceOptions()),
    "pairs": ("i", SourceOptions(images="i/*.png", masks="m/*.png")),
}


@pytest.mark.parametrize("source_format", UNREADABLE)
def test_an_unreadable_folder(
    msd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source_format: str
) -> None:
    root = msd if source_format == "msd" else _brats(tmp_path / "source")
    if source_format == "pairs":
        save(root / "m" / "1.png", square())
        save(root / "i" / "1.png", speckle(1))
    name, options = UNREADABLE[source_format]
    listed = Path.iterdir

    def refusing(path: Path) -> object:
        if path.name == name:
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", refusing)
    said = "cannot read the folder"
    _refused(root, tmp_path / "store", source_format, "MR", root / name, said, options)


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    root = tmp_path / "pairs"
    for folder, picture in (("i", speckle(1)), ("m", square())):
        path = save(root / folder / "1.png", picture)
        try:
            path.rename(path.with_name(os.fsdecode(b"caf\xe9.png")))
        except OSError:
            pytest.skip("this disk takes no such names")
    options = SourceOptions(images="i/*.png", masks="m/*.png")
    with pytest.raises(FlamesError, match=r"caf\\xe9.png' is not UTF-8") as caught:
        add_store(root, tmp_path / "s", StoreRequest("pairs", "a", "US", "b", options=options))
    assert caught.value.found.isascii()


def test_every_spoiled_case_is_named_at_once(busi: Path, tmp_path: Path) -> None:
    first, second = _truncated_png(busi), _truncate(_benign(busi, "benign (4).png"))
    with pytest.raises(FlamesError, match="2 of 12 cases") as caught:
        add_store(busi, tmp_path / "store", StoreRequest("busi", "a", "US", "breast"))
    assert first.name in caught.value.found
    assert second.name in caught.value.found


def _refused(
    root: Path,
    dest: Path,
    source_format: str,
    modality: str,
    path: Path,
    said: str,
    options: SourceOptions | None = None,
) -> None:
    request = StoreRequest(
        source_format,
        "a",
        modality,
        "b",
        options=options or SourceOptions(),  # type: ignore[arg-type]
    )
    with pytest.raises(FlamesError) as caught:
        add_store(root, dest, request)
    assert said in caught.value.found
    assert path.name in caught.value.found
    assert caught.value.remedy
    assert not (dest / "store.json").exists()
    assert not (dest / "splits.json").exists()
    assert not list(dest.glob("cases/.*"))

"""What lies below a folder is found, behind links too, or it is said why not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from dicom_files import contours, rectangle, series
from lidc_files import patient

from flames.data.dicom.find import find_dicom
from flames.data.formats import find_sources
from flames.data.inputs import find_inputs
from flames.data.sources import SourceOptions
from flames.data.walking import files_below
from flames.errors import FlamesError

OPTIONS = SourceOptions(key=b"k" * 32)
RINGS = {"GTV": [(2, rectangle(2.5, 3.5, 6.5, 7.5))]}


def files(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")
    return root


def names(root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in files_below(root)]


def test_files_come_in_natural_order_without_hidden_ones(tmp_path: Path) -> None:
    files(tmp_path, "b/10.txt", "b/9.txt", "a.txt", ".hidden", ".room/c.txt", "b/.d")
    assert names(tmp_path) == ["a.txt", "b/9.txt", "b/10.txt"]


def test_links_are_followed_once_and_never_upwards(tmp_path: Path) -> None:
    root, away = files(tmp_path / "root", "p2/x", "p2/deep/y"), files(tmp_path / "away", "z", "v/w")
    (root / "p1").symlink_to(away)
    (root / "alone").symlink_to(away / "z")
    (root / "p2" / "up").symlink_to(root)
    (root / "p2" / "above").symlink_to(tmp_path)
    (away / "v" / "round").symlink_to(away)
    (root / "again").symlink_to(root / "p2")
    assert names(root) == ["alone", "p1/v/w", "p1/z", "p2/deep/y", "p2/x"]


def test_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    (files(tmp_path, "a") / "gone").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FlamesError, match="gone is a link to what is not there"):
        files_below(tmp_path)


def test_a_folder_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir
    files(tmp_path, "p1/a", "p2/b", "p3/c")

    def guarded(path: Path):
        if Path(path).name == "p2":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(FlamesError, match=r"cannot read .*p2: Permission denied") as caught:
        files_below(tmp_path)
    assert caught.value.remedy


def linked(tmp_path: Path) -> Path:
    """Return a source of two patients, of which one lies elsewhere behind a link."""
    for folder, name in (("source", "P1"), ("archive", "P2")):
        images = series(tmp_path / folder / name / "i", patient=name)
        contours(tmp_path / folder / name / "rs.dcm", images, RINGS, patient=name)
    (tmp_path / "source" / "P2").symlink_to(tmp_path / "archive" / "P2")
    return tmp_path / "source"


def test_a_patient_behind_a_link_is_found(tmp_path: Path) -> None:
    source = linked(tmp_path)
    assert len(find_dicom(source, OPTIONS)) == 2
    assert len([one for one in find_inputs([source]) if len(one.paths) == 6]) == 2
    patient(tmp_path / "lidc archive", "LIDC-IDRI-0007")
    (tmp_path / "lidc").mkdir()
    (tmp_path / "lidc" / "LIDC-IDRI-0007").symlink_to(tmp_path / "lidc archive" / "LIDC-IDRI-0007")
    assert len(find_sources(tmp_path / "lidc", "lidc", OPTIONS)) == 1


def test_an_empty_file_among_slices_is_a_slice_that_was_lost(tmp_path: Path) -> None:
    source = linked(tmp_path)
    (source / "empty.log").touch()  # beside no DICOM file
    assert len(find_dicom(source, OPTIONS)) == 2
    (source / "P1" / "i" / "IM0006").touch()
    for find in (lambda: find_dicom(source, OPTIONS), lambda: find_inputs([source])):
        with pytest.raises(FlamesError, match="IM0006 is empty and stands beside DICOM files"):
            find()

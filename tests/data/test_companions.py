"""Files that belong to an image without being named: a store notices when one changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from flames.data.companions import companions
from flames.data.prepare import StoreRequest, add_store
from flames.data.sources import SourceOptions
from flames.errors import FlamesError


def _analyze(path: Path, array: np.ndarray) -> Path:
    nib.save(nib.Nifti1Pair(array, np.diag([1.0, 1, 3, 1])), path)
    return path.with_suffix(".hdr")


def _itk(path: Path, array: np.ndarray) -> Path:
    sitk = pytest.importorskip("SimpleITK")
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path))
    return path.with_suffix(".raw")


WRITERS: dict[str, Callable[[Path, np.ndarray], Path]] = {
    ".img": _analyze,
    ".mhd": _itk,
    ".nhdr": _itk,
}


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_changed_companion_is_a_changed_source(tmp_path: Path, suffix: str) -> None:
    root = tmp_path / "source"
    (root / "m").mkdir(parents=True)
    image = np.random.default_rng(0).integers(0, 99, (6, 8, 10), dtype=np.int16)
    beside = WRITERS[suffix](root / f"1{suffix}", image)
    WRITERS[suffix](root / "m" / f"1{suffix}", (image > 60).astype(np.uint8))
    options = SourceOptions(images=f"*{suffix}", masks=f"m/*{suffix}")
    request = StoreRequest("pairs", "a", "MR", "b", options=options)
    dest = tmp_path / "store"
    add_store(root, dest, request)
    assert add_store(root, dest, request).kept == 1
    content = bytearray(beside.read_bytes())
    content[-1] ^= 1
    beside.write_bytes(bytes(content))
    with pytest.raises(FlamesError, match="case '1' changed"):
        add_store(root, dest, request)
    beside.unlink()
    with pytest.raises(FlamesError, match=f"{beside.name}, which is not there"):
        add_store(root, dest, request)


@pytest.mark.parametrize(
    ("name", "header", "files"),
    [
        ("a.mhd", "NDims = 3\nElementDataFile = b.raw\n", ["b.raw"]),
        ("a.mhd", "ElementDataFile = LIST\n1.raw\n2.raw\n", ["1.raw", "2.raw"]),
        ("a.mhd", "ElementDataFile = s%02d.raw 9 11 1\n", ["s09.raw", "s10.raw", "s11.raw"]),
        ("a.mha", "ElementDataFile = LOCAL\n\x00\x01data file: b.raw", []),
        ("a.nhdr", "NRRD0004\r\ndata file: b.raw\r\n\r\n", ["b.raw"]),
        ("a.nhdr", "NRRD0004\ndatafile: s%d.raw 1 3 2 2\n", ["s1.raw", "s3.raw"]),
        ("a.nhdr", "NRRD0004\ndata file: LIST 2\nx/1.raw\nx/2.raw\n", ["x/1.raw", "x/2.raw"]),
        ("a.nrrd", "NRRD0004\ntype: short\n\ndata file: b.raw\n", []),
        ("a.nii", "data file: b.raw\n", []),
    ],
)
def test_headers_name_their_files(tmp_path: Path, name: str, header: str, files: list[str]) -> None:
    (tmp_path / name).write_bytes(header.encode())
    for file in files:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    assert list(companions(tmp_path / name)) == [tmp_path / file for file in files]


def test_a_run_without_end_stops_at_the_first_file_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "a.nhdr").write_text("NRRD0004\ndata file: s%d.raw 1 999999999999 1\n")
    with pytest.raises(FlamesError, match=r"s1\.raw, which is not there"):
        list(companions(tmp_path / "a.nhdr"))

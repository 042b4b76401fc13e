"""Files that were cut, flipped, filled or joined: a result or a named error, and nothing else.

Real files that pydicom brings and small ones of every format are spoiled 2,000 times each.
``FLAMES_FUZZ`` is another number of times; ``FLAMES_FUZZ_OUT`` names a CSV for the counts.
"""

from __future__ import annotations

import os
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_files import contours, rectangle, series
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import data as pydicom_data
from source_folders import save, save_nifti, speckle

from flames.data.cases import read_case
from flames.data.dicom.find import find_dicom
from flames.data.inputs import find_inputs
from flames.data.prepare import StoreRequest, add_store
from flames.data.scans import read_scan, read_series
from flames.data.sources import SourceOptions
from flames.data.store import SiteStore
from flames.errors import FlamesError
from flames.runs import save_csv

pytestmark = pytest.mark.slow
EXAMPLES = int(os.environ.get("FLAMES_FUZZ", "2000"))
OPTIONS = SourceOptions(roi="GTV.*", key=b"k" * 32)
RINGS = {"GTV": [(2, rectangle(2.5, 3.5, 6.5, 7.5))]}
REAL = Path(pydicom_data.__file__).parent

COUNTS: Counter[tuple[str, str]] = Counter()
Spoil = tuple[float, list[tuple[float, int]], list[tuple[float, bytes]]]
SPOILS = st.tuples(
    st.one_of(st.just(1.0), st.floats(0, 1)),
    st.lists(st.tuples(st.floats(0, 0.9999), st.integers(0, 7)), max_size=6),
    st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8)), max_size=2),
)
"""A share to keep, bits to flip, and bytes to put in, all by place."""
HEAD = st.lists(st.tuples(st.floats(0, 0.02), st.integers(0, 7)), max_size=4)
"""Bits of the first fiftieth, where headers are."""


def spoiled(content: bytes, spoil: Spoil, head: list[tuple[float, int]]) -> bytes:
    keep, flips, inserts = spoil
    data = bytearray(content[: max(1, int(len(content) * keep))])
    for place, bit in [*flips, *head]:
        data[int(place * len(data))] ^= 1 << bit
    for place, extra in inserts:
        at = int(place * len(data))
        data[at:at] = extra
    return bytes(data)


def itk(path: Path) -> Path:
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.GetImageFromArray(np.arange(360, dtype=np.int16).reshape(6, 6, 10))
    sitk.WriteImage(image, str(path))
    return path


def volume() -> np.ndarray:
    return np.random.default_rng(0).integers(-900, 900, (12, 10, 6), dtype=np.int16)


def stack(path: Path) -> Path:
    pages = [Image.fromarray(speckle(seed)) for seed in range(3)]
    pages[0].save(path, save_all=True, append_images=pages[1:])
    return path


FILES: dict[str, Callable[[Path], Path]] = {
    "nii": lambda folder: save_nifti(folder / "a.nii", volume()),
    "nii.gz": lambda folder: save_nifti(folder / "a.nii.gz", volume()),
    "img": lambda folder: _analyze(folder / "a.img"),
    "nrrd": lambda folder: itk(folder / "a.nrrd"),
    "mha": lambda folder: itk(folder / "a.mha"),
    "png": lambda folder: save(folder / "a.png", speckle(0)),
    "png16": lambda folder: save(folder / "a.png", speckle(0).astype(np.uint16) * 200),
    "jpg": lambda folder: save(folder / "a.jpg", speckle(0)),
    "tif": lambda folder: save(folder / "a.tif", speckle(0)),
    "stack": lambda folder: stack(folder / "a.tif"),
    "dicom ct": lambda folder: _real(folder, "CT_small.dcm"),
    "dicom jpeg2000": lambda folder: _real(folder, "MR_small_jp2klossless.dcm"),
    "dicom jpeg-ls": lambda folder: _real(folder, "MR_small_jpeg_ls_lossless.dcm"),
    "dicom rle": lambda folder: _real(folder, "MR_small_RLE.dcm"),
    "dicom colour": lambda folder: _real(folder, "ExplVR_BigEnd.dcm"),
}


def _analyze(path: Path) -> Path:
    nib.save(nib.Spm99AnalyzeImage(volume(), np.diag([1.0, 1, 3, 1])), path)
    return path.with_suffix(".hdr")


def _real(folder: Path, name: str) -> Path:
    found = sorted(REAL.rglob(name))
    if not found:
        pytest.skip(f"this pydicom brings no {name}")
    path = folder / "a.dcm"
    path.write_bytes(found[0].read_bytes())
    return path


@pytest.fixture(scope="module", autouse=True)
def counts_written() -> Iterator[None]:
    yield
    out = os.environ.get("FLAMES_FUZZ_OUT")
    kinds = sorted({kind for kind, _ in COUNTS})
    rows = [
        {"kind": k, "result": COUNTS[k, "result"], "named_error": COUNTS[k, "named error"]}
        for k in kinds
    ]
    if out and rows:
        save_csv(Path(out), rows)


def outcome(kind: str, work: Callable[[], object]) -> str:
    """Return what came of it; any error but a named one goes on."""
    what = _outcome(work)
    COUNTS[kind, what] += 1
    return what


def _outcome(work: Callable[[], object]) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            work()
        except FlamesError as error:
            named = error
        else:
            return "result"
    assert named.found
    assert named.remedy
    return "named error"


def fuzzed(test: Callable[..., None]) -> Callable[..., None]:
    return settings(
        max_examples=EXAMPLES,
        deadline=10_000,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
        database=None,
    )(given(SPOILS, HEAD)(test))


@pytest.mark.parametrize("kind", FILES)
@fuzzed
def test_any_image_gives_a_result_or_a_named_error(
    tmp_path_factory: pytest.TempPathFactory, kind: str, spoil: Spoil, head: list
) -> None:
    folder = tmp_path_factory.getbasetemp() / f"fuzz-{kind.replace(' ', '-')}"
    folder.mkdir(exist_ok=True)
    whole = folder / "whole"
    if not whole.exists():
        FILES[kind](folder)
        name = next(p.name for p in sorted(folder.iterdir()) if p.name in {
            "a.hdr", "a.nii", "a.nii.gz", "a.nrrd", "a.mha", "a.png", "a.jpg", "a.tif", "a.dcm",
        })  # fmt: skip
        (folder / "name").write_text(name)
        whole.write_bytes((folder / name).read_bytes())
    path = folder / (folder / "name").read_text()
    path.write_bytes(spoiled(whole.read_bytes(), spoil, head))
    image = path.with_suffix(".img") if path.suffix == ".hdr" else path

    def look() -> None:
        for one in find_inputs([image]):
            scan = read_series(one.paths) if one.dicom else read_scan(one.path)
            assert scan.grid.place(scan.image).shape == scan.grid.shape

    outcome(kind, look)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labelled")
    contours(folder / "rs.dcm", series(folder / "i"), RINGS)
    return folder


@fuzzed
def test_any_contour_file_gives_a_case_or_a_named_error(
    labelled: Path, spoil: Spoil, head: list
) -> None:
    path = labelled / "rs.dcm"
    whole = labelled / ".whole"
    if not whole.exists():
        whole.write_bytes(path.read_bytes())
    path.write_bytes(spoiled(whole.read_bytes(), spoil, head))

    def read() -> None:
        for source in find_dicom(labelled, OPTIONS):
            case = read_case(source, OPTIONS)
            assert case.label.shape == case.image.shape

    outcome("dicom contours", read)


@fuzzed
def test_any_zip_gives_a_store_or_nothing(
    tmp_path_factory: pytest.TempPathFactory, spoil: Spoil, head: list
) -> None:
    root = tmp_path_factory.getbasetemp() / "fuzz-zip"
    whole = root / "whole"
    if not whole.exists():
        contours(root / "s" / "rs.dcm", series(root / "s" / "i", patient="A"), RINGS, patient="A")
        with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted((root / "s").rglob("*.dcm")):
                archive.write(path, path.relative_to(root / "s"))
    path = root / "a.zip"
    path.write_bytes(spoiled(whole.read_bytes(), spoil, head))
    place = root / "stores"
    dest = place / "store"
    request = StoreRequest("dicom", "s", "CT", "limb", options=OPTIONS)
    what = outcome("zip", lambda: add_store(path, dest, request))
    if what == "result":
        SiteStore.open(dest).verify()
    else:
        assert not (dest / "store.json").exists()
        assert not (dest / "splits.json").exists()
        assert not list(dest.glob("cases/.*"))
    assert [p.name for p in place.iterdir() if p.name != "store"] == []
    import shutil

    shutil.rmtree(place)


def test_a_spoiled_real_file_is_seen_to_be_spoiled(tmp_path: Path) -> None:
    path = _real(tmp_path, "CT_small.dcm")
    pydicom.dcmread(path)
    path.write_bytes(path.read_bytes()[:3000])
    assert _outcome(lambda: read_series((path,))) == "named error"

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from source_folders import save, save_nifti, speckle, square

from flames.data import case_folder
from flames.data.case_folder import NOT_HU
from flames.data.prepare import StoreRequest, add_store
from flames.data.sources import SourceOptions
from flames.data.store import SiteStore
from flames.errors import FlamesError

BUSI = StoreRequest("busi", "north", "US", "breast", seed=3)
MSD = StoreRequest("msd", "north", "MR", "brain", fractions=(0.5, 0.25, 0.25))


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        p.relative_to(folder).as_posix(): (p.read_bytes(), p.stat().st_mtime_ns)
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def test_a_store_holds_what_the_source_says(busi: Path, tmp_path: Path) -> None:
    added = add_store(busi, tmp_path / "store", BUSI)
    assert (added.prepared, added.kept) == (12, 0)
    store = SiteStore.open(tmp_path / "store")
    case = store.cases["benign-1"]
    assert case.tumour_voxels == 116
    assert case.sources[0] == "Dataset_BUSI_with_GT/benign/benign (1).png"
    assert len(case.sources) == 3
    assert (case.spacing, case.spacing_unit, case.slice_axis) == ((1.0, 1.0), "px", None)
    np.testing.assert_array_equal(store.image("benign-1"), speckle(10))
    store.verify()
    sizes = [len(store.split(side)) for side in ("train", "val", "test")]
    assert sum(sizes) == 12
    assert min(sizes) >= 1


def test_volumes_keep_patient_and_geometry(msd: Path, tmp_path: Path) -> None:
    store = add_store(msd, tmp_path / "store", MSD).store
    case = store.cases["TCGA_DU_1"]
    assert (case.group, case.patient_id, case.hospital) == ("TCGA_DU_1", "TCGA_DU_1", "DU")
    assert (case.spacing, case.spacing_unit, case.slice_axis) == ((2.0, 2.0, 5.0), "mm", 2)
    assert case.affine is not None
    assert case.affine[2][2] == 5
    assert case.tumour_voxels == 18


def test_two_processes_make_the_same_store(busi: Path, tmp_path: Path) -> None:
    one = add_store(busi, tmp_path / "one", BUSI, workers=1).store
    two = add_store(busi, tmp_path / "two", BUSI, workers=2).store
    assert one.info == two.info
    assert one.splits == two.splits


def test_a_second_call_changes_nothing(busi: Path, tmp_path: Path) -> None:
    dest = tmp_path / "store"
    add_store(busi, dest, BUSI)
    before = contents(dest)
    added = add_store(busi, dest, BUSI)
    assert (added.prepared, added.kept) == (0, 12)
    assert contents(dest) == before


def test_a_stopped_run_goes_on(busi: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dest = tmp_path / "store"

    def stop(done: int, total: int) -> None:
        assert total == 12
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        add_store(busi, dest, BUSI, progress=stop)
    (dest / "cases" / ".normal-1.partial").mkdir()
    with pytest.raises(FlamesError, match="no site store"):
        SiteStore.open(dest)
    added = add_store(busi, dest, BUSI)
    assert (added.prepared, added.kept) == (7, 5)
    assert not list(dest.glob("cases/.*"))
    fresh = add_store(busi, tmp_path / "fresh", BUSI).store
    assert (added.store.info, added.store.splits) == (fresh.info, fresh.splits)


def test_what_a_stopped_run_of_other_cases_left_is_taken_away(busi: Path, tmp_path: Path) -> None:
    dest = tmp_path / "store"
    add_store(busi, dest, BUSI)
    (dest / "splits.json").unlink()
    (dest / "cases" / ".gone.partial").mkdir()
    (dest / "cases" / "notes").mkdir()
    add_store(busi, dest, replace(BUSI, where={"category": ("benign",)}))
    names = sorted(path.name for path in (dest / "cases").iterdir())
    assert names == ["benign-1", "benign-2", "benign-3", "benign-4", "notes"]


def test_a_stopped_run_prepares_again_what_changed(busi: Path, tmp_path: Path) -> None:
    dest = tmp_path / "store"
    add_store(busi, dest, BUSI)
    (dest / "splits.json").unlink()
    image = save(busi / "Dataset_BUSI_with_GT" / "benign" / "benign (2).png", speckle(99))
    added = add_store(busi, dest, BUSI)
    assert (added.prepared, added.kept) == (1, 11)
    np.testing.assert_array_equal(added.store.image("benign-2"), speckle(99))
    assert image.exists()


def test_a_full_disk_leaves_no_store_and_goes_on(
    busi: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dest, real, calls = tmp_path / "store", np.save, []

    def full(path: Path, array: np.ndarray, **options: bool) -> None:
        calls.append(path)
        if len(calls) > 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, array, **options)

    with monkeypatch.context() as patch:
        patch.setattr(case_folder.np, "save", full)
        with pytest.raises(FlamesError, match="No space left") as caught:
            add_store(busi, dest, BUSI)
    assert "free some space" in caught.value.remedy
    assert len(calls) == 6
    assert not (dest / "store.json").exists()
    assert not list(dest.glob("cases/.*"))
    assert add_store(busi, dest, BUSI).kept == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"site": "south"}, "site 'north', not 'south'"),
        ({"modality": "MR"}, "modality 'US', not 'MR'"),
        ({"organ": "ovary"}, "organ 'breast', not 'ovary'"),
        ({"seed": 4}, "seed 3"),
        ({"fractions": (0.5, 0.25, 0.25)}, "shares"),
        ({"where": {"category": ("benign",)}}, "'malignant-1' is gone"),
        ({"options": SourceOptions(tumour_labels=(255,))}, "other settings"),
    ],
)
def test_another_store_in_the_same_folder_is_refused(
    busi: Path, tmp_path: Path, change: dict[str, object], said: str
) -> None:
    dest = tmp_path / "store"
    add_store(busi, dest, BUSI)
    before = contents(dest)
    with pytest.raises(FlamesError, match=said) as caught:
        add_store(busi, dest, replace(BUSI, **change))  # type: ignore[arg-type]
    assert "choose a new folder as DEST" in caught.value.remedy
    assert contents(dest) == before


@pytest.mark.parametrize("how", ["new", "gone", "changed"])
def test_a_source_that_changed_under_a_split_is_refused(
    busi: Path, tmp_path: Path, how: str
) -> None:
    dest, folder = tmp_path / "store", busi / "Dataset_BUSI_with_GT" / "benign"
    add_store(busi, dest, BUSI)
    before = contents(dest)
    if how == "gone":
        (folder / "benign (2).png").unlink()
        (folder / "benign (2)_mask.png").unlink()
    else:
        number = 2 if how == "changed" else 9
        save(folder / f"benign ({number}).png", speckle(77))
        save(folder / f"benign ({number})_mask.png", square())
    with pytest.raises(FlamesError, match=f"benign-[29]' {'is ' * (how != 'changed')}{how}"):
        add_store(busi, dest, BUSI)
    assert contents(dest) == before


def test_a_folder_of_something_else_is_refused(busi: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("mine")
    with pytest.raises(FlamesError, match="not a site store"):
        add_store(busi, tmp_path / "home", BUSI)
    with pytest.raises(FlamesError, match="SOURCE and DEST"):
        add_store(busi, busi, BUSI)
    with pytest.raises(FlamesError, match="is a file"):
        add_store(busi, tmp_path / "home" / "thesis.txt", BUSI)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"modality": "XR"}, "XR"),
        ({"site": " "}, "the site has no name"),
        ({"ct_window": (300, -200)}, "is empty"),
        ({"fractions": (0.5, 0.5, 0.5)}, "shares of 1"),
    ],
)
def test_a_request_that_makes_no_sense(
    busi: Path, tmp_path: Path, change: dict[str, object], said: str
) -> None:
    with pytest.raises(FlamesError, match=said):
        add_store(busi, tmp_path / "store", replace(BUSI, **change))  # type: ignore[arg-type]
    assert not (tmp_path / "store").exists()


def test_too_few_groups_make_a_store_for_testing(msd: Path, tmp_path: Path) -> None:
    request = replace(MSD, where={"patient": ("TCGA_CS_1", "TCGA_CS_2")})
    added = add_store(msd, tmp_path / "store", request)
    assert [len(added.store.split(side)) for side in ("train", "val", "test")] == [0, 0, 2]
    assert any("every case is a test case" in note for note in added.notes)


def test_near_duplicates_share_a_group(busi: Path, tmp_path: Path) -> None:
    folder = busi / "Dataset_BUSI_with_GT" / "malignant"
    coarse = np.kron(speckle(50, (10, 12)), np.ones((4, 4)))
    noisy = np.clip(coarse + np.random.default_rng(0).normal(0, 6, (40, 48)), 0, 255)
    save(folder.parent / "benign" / "benign (1).png", coarse.astype(np.uint8))
    save(folder / "malignant (9).png", noisy.astype(np.uint8)[:, ::-1])
    save(folder / "malignant (9)_mask.png", square())
    store = add_store(busi, tmp_path / "store", BUSI).store
    assert store.cases["malignant-9"].group == store.cases["benign-1"].group == "benign-1"
    assert len({c.group for c in store.info.cases}) == 12


def test_ct_that_is_not_in_hounsfield_units_is_said_once(msd: Path, tmp_path: Path) -> None:
    hu = np.random.default_rng(1).integers(-900, 900, (12, 10, 6), dtype=np.int16)
    save_nifti(msd / "imagesTr" / "TCGA_DU_1.nii.gz", hu)
    options = SourceOptions(tumour_labels=(1, 2))
    added = add_store(msd, tmp_path / "store", replace(MSD, modality="CT", options=options))
    assert added.notes == (f"{NOT_HU}: TCGA_CS_1, TCGA_CS_2, TCGA_CS_3",)
    assert added.store.cases["TCGA_CS_1"].intensity != (-200, 300)
    assert json.loads((tmp_path / "store" / "store.json").read_text())["settings"] == {
        "ct_window": [-200.0, 300.0],
        "tumour_labels": [1, 2],
    }


def test_a_ct_among_mr_is_said(msd: Path, tmp_path: Path) -> None:
    hu = np.random.default_rng(1).integers(-1000, 900, (12, 10, 6), dtype=np.int16)
    save_nifti(msd / "imagesTr" / "TCGA_CS_2.nii.gz", hu)
    request = replace(MSD, options=SourceOptions(tumour_labels=(1, 2)))
    (note,) = add_store(msd, tmp_path / "store", request).notes
    assert note.endswith("may be no MR: TCGA_CS_2")


def test_several_label_values_that_nobody_named_are_said(msd: Path, tmp_path: Path) -> None:
    """An organ and the tumour in it are often in one map."""
    (note,) = add_store(msd, tmp_path / "store", MSD).notes
    assert note.startswith("label values 1, 2 are all taken for tumour")
    # Nothing is said before every case can be read; then it is said of those from before, too.
    damaged = msd / "imagesTr" / "TCGA_CS_3.nii.gz"
    content = damaged.read_bytes()
    damaged.write_bytes(b"")
    with pytest.raises(FlamesError, match="TCGA_CS_3"):
        add_store(msd, tmp_path / "begun", MSD)
    damaged.write_bytes(content)
    added = add_store(msd, tmp_path / "begun", MSD)
    assert (added.kept, added.notes) == (3, (note,))
    for number, said in enumerate(({"tumour_labels": (1, 2)}, {"other_labels": (1,)})):
        request = replace(MSD, options=SourceOptions(**said))
        assert add_store(msd, tmp_path / str(number), request).notes == ()


def test_of_many_label_values_a_few_are_said(msd: Path, tmp_path: Path) -> None:
    """An image that was put where its label belongs has hundreds."""
    path = msd / "labelsTr" / "TCGA_CS_3.nii.gz"
    label = nib.load(path)
    values = np.arange(np.prod(label.shape), dtype=np.int16).reshape(label.shape) % 300
    nib.save(nib.Nifti1Image(values, label.affine), path)
    (note,) = add_store(msd, tmp_path / "store", MSD).notes
    assert "label values 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 289 more are all" in note


@pytest.mark.parametrize("inside", [False, True])
def test_a_folder_that_merely_holds_cases_is_left_alone(
    busi: Path, tmp_path: Path, inside: bool
) -> None:
    """Even where a case has the name of one of the source, or the source lies in it."""
    dest = tmp_path / "study"
    notes = dest / "cases" / "benign-1" / "notes.txt"
    notes.parent.mkdir(parents=True)
    notes.write_text("mine")
    source = busi.rename(dest / "cases" / "busi") if inside else busi
    before = contents(dest)
    with pytest.raises(FlamesError, match="lies in DEST" if inside else "not a site store"):
        add_store(source, dest, BUSI)
    assert contents(dest) == before


def test_a_begun_store_takes_nobody_elses_folder_away(busi: Path, tmp_path: Path) -> None:
    dest = tmp_path / "store"
    add_store(busi, dest, BUSI)
    (dest / "splits.json").unlink()
    (dest / "cases" / "benign-1" / "case.json").unlink()
    before = contents(dest)
    with pytest.raises(FlamesError, match="benign-1 is there already and is not a prepared case"):
        add_store(busi, dest, BUSI)
    assert contents(dest) == before


@pytest.mark.parametrize("cut", [None, 0, 200])
def test_a_begun_store_prepares_again_what_a_power_failure_took(
    busi: Path, tmp_path: Path, cut: int | None
) -> None:
    dest = tmp_path / "store"
    whole = contents(add_store(busi, dest, BUSI).store.path)
    (dest / "splits.json").unlink()
    array = dest / "cases" / "benign-2" / "label.npy"
    if cut is None:
        array.unlink()
    else:
        os.truncate(array, cut)
    assert add_store(busi, dest, BUSI).prepared == 1
    again = contents(dest)
    assert {name: again[name][0] for name in again} == {name: whole[name][0] for name in whole}


def test_a_damaged_store_says_how_to_make_it_again(busi: Path, tmp_path: Path) -> None:
    dest = tmp_path / "store"
    add_store(busi, dest, BUSI)
    (dest / "cases" / "benign-2" / "image.npy").unlink()
    with pytest.raises(FlamesError, match="cannot read") as caught:
        add_store(busi, dest, BUSI)
    assert f"take {dest} away and give the same command again" in caught.value.remedy

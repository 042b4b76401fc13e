from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from scipy import ndimage
from source_folders import save

from flames.data.check import Check, check_store
from flames.data.check_pictures import _draw_counts, _draw_values, draw_check
from flames.data.prepare import StoreRequest, add_store
from flames.data.sources import SourceOptions
from flames.data.store import SPLITS, SiteStore, cases_digest
from flames.errors import FlamesError
from flames.files import save_text

SIZE = (96, 128)


def lesion(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(SIZE)
    centre, radius = (rng.integers(20, 76), rng.integers(20, 108)), rng.integers(8, 14)
    mask = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < radius**2
    texture = ndimage.gaussian_filter(rng.normal(size=SIZE), 1.5)
    image = 120 + 30 * texture / texture.std() - 70 * mask
    return np.clip(image, 0, 255).astype(np.uint8), (mask * 255).astype(np.uint8)


def made(tmp_path: Path, shift: int = 0, inverted: bool = False) -> SiteStore:
    for i in range(8):
        image, mask = lesion(i)
        mask = np.roll(mask, shift, axis=1)
        mask = 255 - mask if inverted and i == 3 else mask
        save(tmp_path / "source" / "benign" / f"{i}.png", image)
        save(tmp_path / "source" / "benign" / f"{i}_mask.png", mask)
    request = StoreRequest("busi", "north", "US", "breast")
    return add_store(tmp_path / "source", tmp_path / "store", request).store


def kinds(check: Check) -> dict[str, tuple[str, ...]]:
    return {finding.kind: finding.cases for finding in check.findings}


def test_a_good_store_has_no_finding(tmp_path: Path) -> None:
    store = made(tmp_path)
    check = check_store(store)
    assert check.findings == ()
    assert check.sound
    case = check.cases[0]
    assert case.tumour_size == store.cases[case.case_id].tumour_voxels
    assert case.tumour_share == pytest.approx(case.tumour_size / (96 * 128))
    for shares in check.intensities.values():
        assert sum(shares) == pytest.approx(1, abs=1e-4)


def test_pictures_that_adding_told_apart_are_no_leak(tmp_path: Path) -> None:
    """Seven bright pixels, cut off by normalising, tell two from each other."""
    for i in range(8):
        image, mask = lesion(i % 4)
        image = image.astype(np.uint16)
        image[2 + 10 * i : 9 + 10 * i, 5] = 60000
        save(tmp_path / "source" / f"{i}.png", image)
        save(tmp_path / "source" / f"{i}_mask.png", mask)
    options = SourceOptions(images="[0-9].png", masks="*_mask.png")
    apart = 0
    for seed in range(3):
        request = StoreRequest("pairs", "x", "US", "breast", options=options, seed=seed)
        store = add_store(tmp_path / "source", tmp_path / f"store-{seed}", request).store
        assert len({case.group for case in store.info.cases}) == 8
        sides = {case.case_id: name for name in SPLITS for case in store.split(name)}
        apart += any(sides[str(i)] != sides[str(i + 4)] for i in range(4))
        assert "leak" not in kinds(check_store(store))
    assert apart


def test_shifted_masks_are_seen_and_by_how_much(tmp_path: Path) -> None:
    check = check_store(made(tmp_path, shift=10))
    text = next(f.text for f in check.findings if f.kind == "shifted")
    # Ten of 128 columns to the right: the masks must move by 8 % to the left.
    assert "-7.8 % along the second" in text or "-8.6 %" in text or "-7.0 %" in text
    assert check.sound


def test_tumours_that_lie_in_one_place_are_said(write_store, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def anywhere(image: np.ndarray, label: np.ndarray) -> None:
        moved = tuple(rng.integers(0, side) for side in label.shape)
        image[:], label[:] = (np.roll(array, moved, axis=(0, 1)) for array in (image, label))

    check = check_store(write_store(tmp_path / "middle", site="middle"))
    (placed,) = [finding for finding in check.findings if finding.kind == "placed"]
    assert "a Dice of 0.95 in the mean of 8" in placed.text
    assert (placed.cases, placed.problem) == ((), False)
    check = check_store(write_store(tmp_path / "anywhere", site="anywhere", change=anywhere))
    assert "placed" not in kinds(check)
    check = check_store(write_store(tmp_path / "two", site="two", counts=(1, 0, 1), free=0))
    assert "placed" not in kinds(check), "two cases are too few to say"


def test_an_inverted_mask_is_seen(tmp_path: Path) -> None:
    check = check_store(made(tmp_path, inverted=True))
    assert kinds(check)["inverted"] == ("3",)


def test_a_store_without_tumour_and_images_without_anything_are_seen(tmp_path: Path) -> None:
    for number in range(6):
        image = np.full(SIZE, 9, np.uint8) if number == 4 else lesion(number)[0]
        save(tmp_path / "s" / f"i{number}.png", image)
        save(tmp_path / "s" / f"m{number}.png", np.zeros(SIZE, np.uint8))
    options = SourceOptions(images="i*.png", masks="m*.png")
    request = StoreRequest("pairs", "x", "US", "breast", options=options)
    found = check_store(add_store(tmp_path / "s", tmp_path / "store", request).store)
    assert kinds(found) == {"no-tumour": (), "blank": ("4",)}
    assert found.sound


def test_changed_arrays_are_a_problem(tmp_path: Path) -> None:
    store = made(tmp_path)
    path = store.path / "cases" / "2" / "image.npy"
    image = np.load(path)
    image[0, 0] ^= 1
    np.save(path, image)
    check = check_store(SiteStore.open(store.path))
    assert kinds(check) == {"changed": ("2",)}
    assert not check.sound


def test_near_duplicates_across_the_split_are_a_problem(tmp_path: Path) -> None:
    image, mask = lesion(0)
    save(tmp_path / "source" / "benign" / "copy.png", image)
    save(tmp_path / "source" / "benign" / "copy_mask.png", mask)
    store = made(tmp_path)
    assert store.cases["copy"].group == "0"
    assert check_store(store).sound
    # A store whose groups were lost, split by case.
    cases = tuple(c.model_copy(update={"group": c.case_id}) for c in store.info.cases)
    info = store.info.model_copy(update={"cases": cases})
    names = [c.case_id for c in cases if c.case_id not in ("0", "copy")]
    splits = store.splits.model_copy(
        update={
            "cases_digest": cases_digest(cases),
            "train": ("0", *names[2:]),
            "val": (names[0],),
            "test": ("copy", names[1]),
        }
    )
    save_text(store.path / "store.json", info.model_dump_json())
    save_text(store.path / "splits.json", splits.model_dump_json())
    check = check_store(SiteStore.open(store.path))
    assert kinds(check) == {"leak": ("0", "copy")}
    assert not check.sound


def test_volumes_are_measured_in_millilitres(msd: Path, tmp_path: Path) -> None:
    request = StoreRequest("msd", "north", "MR", "brain")
    check = check_store(add_store(msd, tmp_path / "store", request).store)
    assert check.size_unit == "ml"
    # 3 * 3 * 2 voxels of 2 * 2 * 5 mm are 360 microlitres.
    assert {c.tumour_size for c in check.cases} == {0.36}


def test_volumes_of_unknown_spacing_are_counted_in_voxels(msd: Path, tmp_path: Path) -> None:
    request = StoreRequest(
        "msd", "north", "MR", "brain", options=SourceOptions(unknown_spacing=True)
    )
    check = check_store(add_store(msd, tmp_path / "store", request).store)
    assert check.size_unit == "voxels"
    assert {c.tumour_size for c in check.cases} == {3 * 3 * 2}


def test_pictures_and_json_are_written(tmp_path: Path) -> None:
    store = made(tmp_path)
    check = check_store(store)
    files = draw_check(check, store, tmp_path / "out")
    assert [f.name for f in files] == ["check.json", "check.png", "contact-sheet.png"]
    content = json.loads(files[0].read_text())
    assert content["sound"] is True
    assert len(content["cases"]) == 8
    sheet = np.asarray(Image.open(files[2]))
    assert sheet.shape == (192 + 16, 8 * 192, 3)
    assert ((sheet == (255, 170, 40)).all(axis=2)).sum() > 200
    assert not list((tmp_path / "out").glob(".*"))


def test_cases_are_counted_in_whole_numbers(tmp_path: Path) -> None:
    check = check_store(made(tmp_path))
    sizes = {name: [float(n)] for n, name in enumerate(("train", "val", "test"), 30)}
    counts, values = Figure().subplots(1, 2)
    _draw_counts(counts, replace(check, cases=check.cases[:3]))
    _draw_values(values, sizes, "tumour size (mm²)")
    for ticks in (counts.get_xticks(), values.get_yticks()):
        assert all(float(tick).is_integer() for tick in ticks)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    store = made(tmp_path)
    (tmp_path / "out").write_text("a file")
    with pytest.raises(FlamesError, match="cannot write"):
        draw_check(check_store(store), store, tmp_path / "out")

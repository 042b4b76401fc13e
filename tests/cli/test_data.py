from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from flames.cli.data import data
from flames.data.store import SiteStore
from flames.errors import FlamesError

ADD = ["add", "--format", "busi", "--site", "north", "--modality", "US", "--organ", "breast"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source" / "benign"
    folder.mkdir(parents=True)
    for i in range(6):
        image = np.random.default_rng(i).integers(0, 256, (30, 40), dtype=np.uint8)
        mask = np.zeros((30, 40), np.uint8)
        mask[5:15, 8:20] = 255
        Image.fromarray(image).save(folder / f"b ({i}).png")
        Image.fromarray(mask).save(folder / f"b ({i})_mask.png")
    return folder.parent


def call(*arguments: str | Path) -> str:
    result = CliRunner().invoke(data, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_add_says_what_it_did_and_that_nothing_is_new(source: Path, tmp_path: Path) -> None:
    first = call(*ADD, "--workers", "1", "--seed", "5", source, tmp_path / "store")
    assert "Prepared 6 cases" in first
    assert "north, US breast: train" in first
    store = SiteStore.open(tmp_path / "store")
    assert store.splits.seed == 5
    second = call(*ADD, "--workers", "1", "--seed", "5", source, tmp_path / "store")
    assert "Nothing new" in second


def test_brackets_in_names_are_shown_as_they_are(source: Path, tmp_path: Path) -> None:
    place = tmp_path / "a store [/x] [mr]"
    add = [*ADD[:4], "[/b]north", *ADD[5:], "--workers", "1", source, place]
    assert f"Prepared 6 cases: {place}" in (said := call(*add))
    assert "[/b]north, US breast" in said
    assert f"Nothing new: {place} already holds" in call(*add)
    assert "[/b]north: US breast" in call("check", place)


def test_add_passes_every_option_on(source: Path, tmp_path: Path) -> None:
    arguments = ["add", "--format", "pairs", "--site", "n", "--modality", "CT", "--organ", "lung"]
    arguments += ["--images", "benign/*.png", "--masks", "benign/*_mask.png"]
    arguments += ["--tumour-labels", "255", "--other-labels", "7,8", "--ct-window", "-100,200"]
    arguments += ["--channel", "0", "--unknown-spacing", "--workers", "1"]
    output = call(*arguments, source, tmp_path / "store")
    assert output.count("Note: CT without") == 1
    assert SiteStore.open(tmp_path / "store").info.settings == {
        "channel": 0,
        "tumour_labels": [255],
        "other_labels": [7, 8],
        "images": "benign/*.png",
        "masks": "benign/*_mask.png",
        "unknown_spacing": True,
        "ct_window": [-100.0, 200.0],
    }


@pytest.mark.parametrize(
    "option", [["--tumour-labels", "a"], ["--ct-window", "3"], ["--where", "hospital"]]
)
def test_add_says_which_option_is_wrong(source: Path, tmp_path: Path, option: list[str]) -> None:
    with pytest.raises(FlamesError) as caught:
        call(*ADD, *option, source, tmp_path / "store")
    assert option[0] in caught.value.found
    assert caught.value.remedy


def test_check_shows_large_tumours_without_powers_of_ten(tmp_path: Path) -> None:
    mask = np.zeros((200, 200), np.uint8)
    mask[20:130, 20:170] = 255  # 110 * 150 pixels
    for i in range(3):
        image = np.random.default_rng(i).integers(0, 256, mask.shape, dtype=np.uint8)
        folder = tmp_path / "source" / "benign"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"b ({i}).png")
        Image.fromarray(mask).save(folder / f"b ({i})_mask.png")
    call(*ADD, "--workers", "1", tmp_path / "source", tmp_path / "store")
    (line,) = [li for li in call("check", tmp_path / "store").splitlines() if "median" in li]
    assert line.split("(px)")[1].split() == ["16,500"] * 3


def test_check_draws_only_where_asked(source: Path, tmp_path: Path) -> None:
    call(*ADD, "--workers", "1", source, tmp_path / "store")
    before = sorted(tmp_path.rglob("*"))
    output = call("check", tmp_path / "store")
    assert "tumour size, median (px)" in output
    assert sorted(tmp_path.rglob("*")) == before
    call("check", tmp_path / "store", "--out", tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["check.json", "check.png", "contact-sheet.png"]


def test_check_of_a_changed_store_ends_with_one(source: Path, tmp_path: Path) -> None:
    call(*ADD, "--workers", "1", source, tmp_path / "store")
    path = tmp_path / "store" / "cases" / "b-1" / "image.npy"
    image = np.load(path)
    image[0, 0] ^= 1
    np.save(path, image)
    result = CliRunner().invoke(data, ["check", str(tmp_path / "store")])
    assert result.exit_code == 1
    assert "Problem: 1 case: " in result.output


def test_a_store_without_training_cases_has_no_fingerprint(source: Path, tmp_path: Path) -> None:
    for path in source.glob("benign/b ([2-5])*"):
        path.unlink()
    call(*ADD, source, tmp_path / "two")
    with pytest.raises(FlamesError, match="no training case"):
        call("fingerprint", tmp_path / "two")


def test_help_loads_no_numpy() -> None:
    code = "import sys, flames.cli.data; print('numpy' in sys.modules, 'rich' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.split()[0] == "False", result.stderr


def test_a_store_of_two_is_for_testing_and_is_checked(source: Path, tmp_path: Path) -> None:
    for i in range(2, 6):
        for name in (f"b ({i}).png", f"b ({i})_mask.png"):
            (source / "benign" / name).unlink()
    output = call(*ADD, "--workers", "1", source, tmp_path / "store")
    assert "every case is a test case" in output
    assert "train 0 (0 groups" in output
    call("check", tmp_path / "store", "--out", tmp_path / "out")


def test_one_case_is_one_case(source: Path, tmp_path: Path) -> None:
    for path in (source / "benign").iterdir():
        if "(1)" not in path.name:
            path.unlink()
    said = call(*ADD, "--workers", "1", source, tmp_path / "store")
    assert f"Prepared 1 case: {tmp_path / 'store'}" in said
    assert "test 1 (1 group, " in said


def test_add_takes_dicom_with_a_key_beside_the_store(source: Path, tmp_path: Path) -> None:
    arguments = ["add", "--format", "dicom", "--site", "n", "--modality", "CT", "--organ", "lung"]
    with pytest.raises(FlamesError, match="holds no DICOM image"):
        call(*arguments, "--roi", "GTV.*", source, tmp_path / "store")
    assert (tmp_path / "store.key").exists()
    with pytest.raises(FlamesError, match="not a regular expression"):
        call(*arguments, "--roi", "GTV[", source, tmp_path / "store")


def test_datasets_are_listed_and_shown() -> None:
    listed = call("datasets")
    assert "kits23" in listed
    page = call("datasets", "msd03-liver")
    for words in ("CC BY-SA 4.0", "10.1038/s41467-022-30695-9", "label 2", "--format msd03-liver"):
        assert words in page
    with pytest.raises(FlamesError, match="no dataset 'kits'") as caught:
        call("datasets", "kits")
    assert "kits23" in caught.value.remedy

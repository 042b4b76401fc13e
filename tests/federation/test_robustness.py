from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from flames.cli.main import app
from flames.errors import FlamesError
from flames.federation.robustness import evaluate_shifts
from flames.inference.shifts import SHIFTS
from flames.models.weights import load_arrays, load_metadata, save_arrays
from flames.reports import robustness
from flames.reports.robustness import write_robustness
from flames.runs import RunFolder, load_csv


def test_a_model_under_every_shift(finished, site_stores, tmp_path):
    site = site_stores["us-b"].path
    rows = evaluate_shifts(finished.path, [site], tmp_path, model=None, split="test")
    assert {r["shift"] for r in rows} == {"none", *SHIFTS}
    assert len(rows) == 3 * (1 + 2 * len(SHIFTS))
    plain = {r["case_id"]: r["dice"] for r in rows if r["shift"] == "none"}
    known = {
        r["case_id"]: r["dice"] for r in finished.load_cases()
        if r["model"] == "server:US" and r["site"] == "us-b"
    }  # fmt: skip
    assert plain == known
    page = write_robustness(tmp_path, name="test", seed=0)
    text = page.read_text(encoding="utf-8")
    assert all(f"{shift} strong" in text for shift in SHIFTS)
    lost = load_csv(tmp_path / "tables" / "lost.csv")
    assert {r["strategy"] for r in lost} == {f"{s} {x}" for s in SHIFTS for x in ("mild", "strong")}
    assert "The data are made-up" in text
    with pytest.raises(FlamesError, match="unknown split 'all' for --shifts") as caught:
        evaluate_shifts(finished.path, [site], tmp_path, model=None, split="all")
    assert caught.value.remedy == "choose one of train, val, test"
    with pytest.raises(FlamesError, match="trained on US"):
        evaluate_shifts(
            finished.path, [site_stores["mr-a"].path], tmp_path, model="server:US", split="test"
        )


def test_draws_and_name_are_those_of_the_run(finished, site_stores, tmp_path, monkeypatch):
    asked = []
    real = robustness.paired_rows

    def rows(*given, **named):
        asked.append((named["seed"], named["resamples"]))
        return real(*given, **named)

    monkeypatch.setattr(robustness, "paired_rows", rows)
    monkeypatch.chdir(finished.path)
    words = ["evaluate", ".", "--site", site_stores["us-b"].path, "--shifts", "--json",
             "--split", "val", "--out", tmp_path / "out"]  # fmt: skip
    told = CliRunner().invoke(app, [str(word) for word in words])
    assert told.exit_code == 0, told.output
    assert asked == [(5, 100)]
    page = (tmp_path / "out" / "shifts.html").read_text(encoding="utf-8")
    assert f"<h1>{finished.path.name}</h1>" in page


def copy_run(finished, path):
    """Return a run with the models of ``finished``, and no more than evaluation needs."""
    shutil.copytree(finished.path / "models", path / "models")
    shutil.copy(finished.config, path)
    return RunFolder(path)


def test_the_same_request_continues_and_measures_nothing_twice(finished, site_stores, tmp_path):
    sites, out = [site_stores["us-b"].path, site_stores["mr-a"].path], tmp_path / "out"
    rows = evaluate_shifts(finished.path, sites, out, model=None, split="val")
    kept = sorted((out / "shifts").iterdir())
    assert len(kept) == 2
    kept[1].unlink()
    marked = kept[0].read_text(encoding="utf-8").replace("MR,organ,", "MR,ORGAN,")
    kept[0].write_text(marked, encoding="utf-8")
    again = evaluate_shifts(finished.path, sites, out, model=None, split="val")
    assert any(row["organ"] == "ORGAN" for row in again)
    assert [row | {"organ": row["organ"].lower()} for row in again] == rows


@pytest.mark.parametrize(
    "damage",
    [
        lambda lines: lines[:0],
        lambda lines: lines[:4],
        lambda lines: [line.replace("strong", "mild") for line in lines],
        lambda lines: [lines[0].replace("dice", "iou"), *lines[1:]],
    ],
)
def test_damaged_scores_are_measured_again(finished, site_stores, tmp_path, damage):
    sites = [site_stores["us-b"].path]
    rows = evaluate_shifts(finished.path, sites, tmp_path / "out", model=None, split="val")
    (kept,) = (tmp_path / "out" / "shifts").iterdir()
    whole = kept.read_text(encoding="utf-8")
    kept.write_text("".join(damage(whole.splitlines(keepends=True))), encoding="utf-8")
    again = evaluate_shifts(finished.path, sites, tmp_path / "out", model=None, split="val")
    assert again == rows
    assert kept.read_text(encoding="utf-8") == whole


def test_a_folder_of_another_request_is_refused_and_left_alone(finished, site_stores, tmp_path):
    site, out = site_stores["us-b"].path, tmp_path / "out"
    evaluate_shifts(finished.path, [site], out, model=None, split="val")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    other = copy_run(finished, tmp_path / "other")
    model = other.server_model("US")
    arrays = load_arrays(model)
    halved = {name: array / np.asarray(2, array.dtype) for name, array in arrays.items()}
    save_arrays(model, halved, load_metadata(model))
    slower = copy_run(finished, tmp_path / "slower")
    text = finished.config.read_text(encoding="utf-8")
    assert "flip = true" in text
    slower.config.write_text(text.replace("flip = true", "flip = false"), encoding="utf-8")
    for run, sites, name, split, words in (
        (other, [site], None, "val", "another model"),
        (finished, [site], "personal:us-b", "val", "another model"),
        (finished, [site], None, "test", "another split"),
        (finished, [site, site_stores["us-a"].path], None, "val", "other stores"),
        (slower, [site], None, "val", "other options"),
    ):
        with pytest.raises(FlamesError, match=f"holds scores of {words}\\n") as caught:
            evaluate_shifts(run.path, sites, out, model=name, split=split)
        assert "name a new --out" in caught.value.remedy
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_store_that_was_split_again_is_another(finished, write_store, tmp_path):
    store = write_store(tmp_path / "us-x", site="us-x", seed=7)
    evaluate_shifts(finished.path, [store.path], tmp_path / "out", model=None, split="val")
    splits = json.loads((store.path / "splits.json").read_text(encoding="utf-8"))
    splits["val"], splits["test"] = splits["test"], splits["val"]
    (store.path / "splits.json").write_text(json.dumps(splits), encoding="utf-8")
    with pytest.raises(FlamesError, match="other stores"):
        evaluate_shifts(finished.path, [store.path], tmp_path / "out", model=None, split="val")


@pytest.mark.parametrize("name", ["shifts.csv", "notes.txt"])
def test_a_folder_of_something_else_is_refused_and_left_alone(
    finished, site_stores, tmp_path, name
):
    foreign = tmp_path / name
    foreign.write_text("mine", encoding="utf-8")
    for out in (tmp_path, foreign):
        with pytest.raises(FlamesError, match="not an empty folder"):
            evaluate_shifts(finished.path, [site_stores["us-b"].path], out, model=None, split="val")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert foreign.read_text(encoding="utf-8") == "mine"


def test_a_damaged_claim_is_named(finished, site_stores, tmp_path):
    (tmp_path / "shifts.json").write_text("{", encoding="utf-8")
    with pytest.raises(FlamesError, match=r"shifts\.json is damaged"):
        evaluate_shifts(
            finished.path, [site_stores["us-b"].path], tmp_path, model=None, split="val"
        )


def test_two_stores_of_one_site_are_refused_before_anything_is_scored(
    finished, site_stores, write_store, tmp_path
):
    twin = write_store(tmp_path / "elsewhere", site="us-b", seed=9)
    sites = [site_stores["us-b"].path, twin.path]
    with pytest.raises(FlamesError, match="both of site 'us-b'") as caught:
        evaluate_shifts(finished.path, sites, tmp_path / "out", model=None, split="val")
    assert all(str(path) in caught.value.found for path in sites)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("made_up", [True, False])
def test_the_page_says_that_data_are_made_up_only_where_all_are(
    finished, site_stores, write_store, tmp_path, made_up
):
    store = write_store(tmp_path / "us-x", site="us-x", seed=7, made_up=made_up)
    sites = [site_stores["us-b"].path, store.path]
    evaluate_shifts(finished.path, sites, tmp_path / "out", model=None, split="val")
    text = write_robustness(tmp_path / "out", name="t", seed=0).read_text(encoding="utf-8")
    assert ("The data are made-up" in text) == made_up

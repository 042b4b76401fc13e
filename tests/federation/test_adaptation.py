from __future__ import annotations

import os
import sys
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from flames.cli.main import app
from flames.config import ModelConfig, TrainingConfig
from flames.data.slices import load_slices
from flames.errors import FlamesError
from flames.federation import adaptation
from flames.federation.adaptation import AdaptOptions, adapt, chosen_cases, only_cases, points
from flames.federation.simulation import simulate
from flames.inference.score import load_model
from flames.models import make_model
from flames.models.precision import choose_precision
from flames.models.student import Told
from flames.models.weights import load_arrays, model_arrays, save_arrays
from flames.processes import held
from flames.reports.adaptation import curve_rows, sentence, write_adaptation
from flames.reports.words import TOOK_PART
from flames.runs import load_csv, save_csv

SMALL = TrainingConfig(batch_size=2, learning_rate=0.01, precision="float32")


def options(**given):
    return AdaptOptions(**({"cases": (0, 2, 50), "steps": 2, "training": SMALL} | given))


def test_more_labelled_cases_include_fewer(site_stores):
    store = site_stores["us-a"]
    for number in range(1, 4):
        fewer, more = (chosen_cases(store, n, 3) for n in (number, number + 1))
        assert more[:number] == fewer
    assert set(chosen_cases(store, 4, 3)) == set(store.splits.train)
    assert chosen_cases(store, 4, 3) != chosen_cases(store, 4, 4)


def test_only_the_labelled_cases_are_trained_on(site_stores):
    table = load_slices(site_stores["mr-a"], "train", 32)
    wanted = chosen_cases(site_stores["mr-a"], 2, 0)
    part = only_cases(table, wanted)
    assert set(part.case_ids) == set(wanted)
    for case_id in wanted:
        np.testing.assert_array_equal(
            part.images[part.rows_by_case[case_id]], table.images[table.rows_by_case[case_id]]
        )


def test_the_curve_ends_with_all_cases():
    assert [(p.start, p.cases) for p in points(options(cases=(0, 5)), 5)] == [
        ("model", 0), ("model", 5), ("nothing", 5),
    ]  # fmt: skip
    assert len(points(options(seeds=3), 4)) == 15


def test_a_curve_from_zero_to_all_cases(finished, site_stores, tmp_path, monkeypatch):
    store = site_stores["us-b"]
    rows = adapt(finished.path, store, tmp_path, options())
    assert {(r["start"], r["cases"]) for r in rows} == {
        ("model", 0), ("model", 2), ("nothing", 2),
    }  # fmt: skip
    # Zero cases is the server's model itself.
    known = {
        r["case_id"]: r["dice"] for r in finished.load_cases()
        if r["model"] == "server:US" and r["site"] == "us-b"
    }  # fmt: skip
    found = {r["case_id"]: r["dice"] for r in rows if r["cases"] == 0}
    assert found == known
    path = tmp_path / "models" / "adapted-2-0.safetensors"
    assert load_model(path, choose_precision("float32")).name == "adapted:us-b"
    before, after = load_arrays(finished.server_model("US")), load_arrays(path)
    assert any((before[n] != after[n]).any() for n in before)

    monkeypatch.setattr(adaptation, "train", None)
    assert adapt(finished.path, store, tmp_path, options()) == rows
    monkeypatch.undo()
    more = adapt(finished.path, store, tmp_path, options(cases=(0, 1)))
    assert {(r["start"], r["cases"]) for r in more} >= {("model", 1), ("nothing", 1)}
    with pytest.raises(FlamesError, match="another steps"):
        adapt(finished.path, store, tmp_path, options(steps=3))
    with pytest.raises(FlamesError, match="another flip"):
        adapt(finished.path, store, tmp_path, options(flip=False))
    once = adapt(finished.path, store, tmp_path / "once", options(cases=(0,), flip=False))
    assert {r["case_id"]: r["presence_score"] for r in once if r["cases"] == 0} == {
        r["case_id"]: r["presence_score"] for r in rows if r["cases"] == 0
    }  # the first look's in both
    assert {r["case_id"]: r["dice"] for r in once if r["cases"] == 0} != found

    page = write_adaptation(tmp_path, made_up=True).read_text(encoding="utf-8")
    assert "Dice against labelled cases" in page
    curve = load_csv(tmp_path / "tables" / "curve.csv")
    assert [row["cases"] for row in curve] == ["0", "1", "2"]
    assert curve[0]["nothing_dice"] == ""
    assert float(curve[-1]["minus_nothing"]) == float(curve[-1]["minus_all"])


def test_each_start_has_its_rate(finished, site_stores, tmp_path, monkeypatch):
    rates = {}

    def train(network, optimizer, batches, *, config, **_):
        rates[len(rates)] = (config.learning_rate, optimizer.param_groups[0]["lr"])

    monkeypatch.setattr(adaptation, "train", train)
    given = options(cases=(2,), rate_from_nothing=0.03)
    adapt(finished.path, site_stores["us-a"], tmp_path / "study", given)
    assert sorted(rates.values()) == [(0.01, 0.01)] * 2 + [(0.03, 0.03)] * 2


def test_what_is_missing_or_damaged_is_made_again(finished, site_stores, tmp_path):
    store = site_stores["us-b"]
    rows = adapt(finished.path, store, tmp_path, options())
    model = tmp_path / "models" / "adapted-2-0.safetensors"
    before = load_arrays(model)
    model.unlink()
    assert adapt(finished.path, store, tmp_path, options()) == rows
    np.testing.assert_equal(load_arrays(model), before)

    score = tmp_path / "scores" / "model-2-0.csv"
    score.write_text("", encoding="utf-8")
    assert adapt(finished.path, store, tmp_path, options()) == rows
    assert score.stat().st_size > 0

    (tmp_path / "adapt.json").write_text("{", encoding="utf-8")
    with pytest.raises(FlamesError, match="damaged"):
        adapt(finished.path, store, tmp_path, options())


def test_a_study_that_somebody_works_on_is_left_alone(finished, site_stores, tmp_path):
    adapt(finished.path, site_stores["us-b"], tmp_path, options(cases=(0,), steps=1))
    with (
        held(tmp_path / "scores"),
        pytest.raises(FlamesError, match=f"in use by process {os.getpid()}") as error,
    ):
        adapt(finished.path, site_stores["us-b"], tmp_path, options(cases=(0, 1), steps=1))
    assert "a study with the same command" in error.value.remedy
    assert not (tmp_path / "scores" / "model-1-0.csv").exists()


def test_a_network_that_listens_is_told_the_modality_in_training_too(
    site_stores, tmp_path, monkeypatch
):
    monkeypatch.setattr(sys.modules["flames.models.student"], "FILTERS", (2, 3, 4))
    config = ModelConfig(name="told-student", pretrained=False)
    path = tmp_path / "student.safetensors"
    metadata = {"name": "student", "kind": "server", "modality": "all", "image_size": 32,
                "network": config.model_dump_json()}  # fmt: skip
    save_arrays(path, model_arrays(make_model(config)), metadata)
    real, told = Told.forward, []

    def forward(self, image):
        told.append((self.training, self.modality))
        return real(self, image)

    monkeypatch.setattr(Told, "forward", forward)
    adapt(path, site_stores["us-b"], tmp_path / "out", options(cases=()))
    assert set(told) == {(True, "US"), (False, "US")}


def test_a_model_of_another_modality_is_refused(finished, site_stores, tmp_path):
    with pytest.raises(FlamesError, match="trained on US"):
        adapt(finished.server_model("US"), site_stores["mr-a"], tmp_path / "out", options())
    # The folder is still free for the right command.
    adapt(finished.server_model("MR"), site_stores["mr-a"], tmp_path / "out", options(cases=()))
    with pytest.raises(FlamesError, match="no model file and no run"):
        adapt(tmp_path / "none", site_stores["mr-a"], tmp_path / "new", options())


def test_a_store_without_a_side_of_the_split_is_refused(finished, write_store, tmp_path):
    for name, counts in {"train": (0, 2, 3), "test": (4, 2, 0)}.items():
        store = write_store(tmp_path / name, site="us-new", counts=counts)
        with pytest.raises(FlamesError, match=f"has no {name} case"):
            adapt(finished.path, store, tmp_path / "out", options())
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def third_fold(make_config, tmp_path_factory):
    """Return a run of one site's third fold."""
    config = make_config("us-b", rounds=1, data={"folds": 3, "fold": 2})
    return simulate(config, tmp_path_factory.mktemp("fold") / "run")


def test_a_site_of_the_run_is_scored_on_what_the_run_did_not_train_on(
    third_fold, site_stores, write_store, tmp_path
):
    store = site_stores["us-b"]
    known = {name: set(cases) for name, cases in third_fold.load_splits()["us-b"].items()}
    assert set(store.splits.test) & known["train"]
    for n, model in enumerate((third_fold.path, third_fold.server_model("US"))):
        out = tmp_path / str(n)
        rows = adapt(model, store, out, options(cases=(0,), steps=1))
        assert {row["case_id"] for row in rows} == known["test"]
        assert {row["took_part"] for row in rows} == {1}
        page = write_adaptation(out, made_up=True).read_text(encoding="utf-8")
        assert TOOK_PART in page[: page.index("<main>")]
    given = ["--cases", "0", "--steps", "1", "--batch-size", "2", "--threads", "1", "--quiet"]
    told = CliRunner().invoke(
        app,
        ["adapt", str(third_fold.path), "--site", str(store.path), "--out", str(tmp_path / "cli"),
         *given],
    )  # fmt: skip
    assert told.exit_code == 0
    assert "warning: The site took part in the run" in told.stderr
    other = write_store(tmp_path / "us-x", site="us-x", seed=9)
    rows = adapt(third_fold.path, other, tmp_path / "other", options(cases=(0,), steps=1))
    assert {row["took_part"] for row in rows} == {0}
    page = write_adaptation(tmp_path / "other", made_up=True).read_text(encoding="utf-8")
    assert TOOK_PART not in page


def test_a_site_of_the_run_that_was_split_anew_is_refused(third_fold, site_stores, tmp_path):
    splits = site_stores["us-b"].splits.model_copy(update={"seed": 77})
    with pytest.raises(FlamesError, match="us-b was split anew since"):
        adapt(third_fold.path, replace(site_stores["us-b"], splits=splits), tmp_path, options())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("other", ["window", "split"])
def test_a_site_prepared_or_split_otherwise_is_another_study(
    finished, write_store, tmp_path, other
):
    """Its pixels are as they were, but points of one curve would not have been trained alike."""
    store = write_store(tmp_path / "us-x", site="us-x", seed=9)
    adapt(finished.path, store, tmp_path / "out", options(cases=(0,), steps=1))
    if other == "window":
        cases = tuple(c.model_copy(update={"intensity": (0.0, 90.0)}) for c in store.info.cases)
        changed = replace(store, info=store.info.model_copy(update={"cases": cases}))
    else:
        sides = {"train": store.splits.train[:2], "val": store.splits.train[2:] + store.splits.val}
        changed = replace(store, splits=store.splits.model_copy(update=sides))
    with pytest.raises(FlamesError, match="made with another store"):
        adapt(finished.path, changed, tmp_path / "out", options(cases=(0, 1), steps=1))


def test_a_file_in_place_of_the_folder_is_told(finished, site_stores, tmp_path):
    (tmp_path / "out").write_text("mine", encoding="utf-8")
    with pytest.raises(FlamesError, match="is not an empty folder"):
        adapt(finished.path, site_stores["us-b"], tmp_path / "out", options())
    assert (tmp_path / "out").read_text(encoding="utf-8") == "mine"


def scores(start, cases, level, seed=0):
    return [
        {"start": start, "cases": str(cases), "seed": str(seed), "all": "9", "site": "s",
         "case_id": f"c{n}", "group": f"c{n}", "dice": str(level + 0.01 * n)}
        for n in range(8)
    ]  # fmt: skip


def test_the_curve_by_hand():
    rows = [
        *scores("model", 0, 0.3), *scores("model", 5, 0.5), *scores("nothing", 5, 0.2),
        *scores("model", 9, 0.6), *scores("nothing", 9, 0.45),
    ]  # fmt: skip
    curve = {row["cases"]: row for row in curve_rows(rows)}
    assert curve[0]["model_dice"] == pytest.approx(0.335)
    assert curve[5]["minus_nothing"] == pytest.approx(0.3)
    assert curve[5]["minus_all"] == pytest.approx(0.05)
    assert curve[0]["minus_all"] == pytest.approx(-0.15)
    assert "with 5 labelled cases, 0.050 above" in sentence(list(curve.values()))
    one = [row | {"cases": 1} if row["cases"] == 5 else row for row in curve.values()]
    assert "with 1 labelled case, 0.050 above" in sentence(one)
    worse = [row | {"model_dice": 0.1} for row in curve.values()]
    assert sentence(worse).startswith("With none of these numbers")


def curve_of(*levels, reach=None):
    goal = levels[-1][2]
    return [
        {"cases": n, "model_dice": model, "nothing_dice": nothing, "minus_all": model - goal,
         "minus_all_low": None if reach is None else model - goal - reach,
         "minus_all_high": None if reach is None else model - goal + reach}
        for n, model, nothing in levels
    ]  # fmt: skip


def test_what_is_said_of_a_curve_is_what_its_interval_allows():
    levels = (0, 0.3, None), (5, 0.508, 0.3), (9, 0.6, 0.5)
    said = sentence(curve_of(*levels, reach=0.033))
    assert "with 5 labelled cases, 0.008 [−0.025, 0.041] above training from nothing" in said
    assert said.endswith("with all 9 in Dice: the interval allows a loss of 0.025.")
    assert sentence(curve_of(*levels, reach=0.002)).endswith("in Dice: by the whole interval.")
    assert "too few patients for an interval" in sentence(curve_of(*levels))
    below = sentence(curve_of((0, 0.3, None), (9, 0.47, 0.5), reach=0.044))
    assert below.endswith("with all 9; nearest with 9: −0.030 [−0.074, +0.014].")


def test_the_p_of_a_curve_says_of_what_it_is(tmp_path):
    rows = [*scores("model", 0, 0.3), *scores("model", 9, 0.6), *scores("nothing", 9, 0.45)]
    save_csv(tmp_path / "cases.csv", [row | {"modality": "US", "organ": "o"} for row in rows])
    page = write_adaptation(tmp_path, made_up=True).read_text(encoding="utf-8")
    assert "p of minus all, uncorrected" in page


def test_where_no_dice_is_defined_nothing_is_compared():
    undefined = [
        row | {"model_dice": None, "nothing_dice": None} for row in curve_of((0, 0.0, 0.0))
    ]
    assert sentence(undefined).startswith("Nothing can be compared")
    alarms = [row | {"model_dice": 0.0} for row in undefined]  # by the model alone
    assert "none was marked" not in sentence(alarms)


def test_two_that_find_nothing_are_not_called_good():
    nothing = curve_of((0, 0.0, None), (2, 0.0, 0.0), (3, 0.0004, 0.0))
    assert sentence(nothing).startswith("Neither the federation’s model")
    assert "nothing with all 3 finds a tumour" in sentence(nothing)
    late = curve_of((0, 0.0, None), (2, 0.1, 0.0), (3, 0.2, 0.0))
    assert "with 2 labelled cases, 0.100 above" in sentence(late)
    only = curve_of((0, 0.0, None), (3, 0.0, 0.2))
    assert sentence(only).startswith("With none of these numbers")

from __future__ import annotations

import csv
import json

import pytest
from PIL import Image

from flames.errors import FlamesError
from flames.federation.evaluation import evaluate_run
from flames.federation.outcome import _pictures_allowed
from flames.federation.robustness import evaluate_shifts
from flames.federation.simulation import simulate
from flames.models.weights import load_metadata
from flames.strategies.base import Strategy


def with_pictures(config, allowed, *, everywhere=False):
    """Return the configuration with the first site's owner saying ``allowed``."""
    first, *rest = config.sites
    return config.model_copy(
        update={
            "sites": (first.model_copy(update={"pictures": allowed}), *rest),
            "evaluation": config.evaluation.model_copy(update={"pictures": everywhere}),
        }
    )


@pytest.mark.parametrize(
    ("made_up", "site", "everywhere", "shown"),
    [
        (True, None, False, True),
        (True, False, False, False),
        (True, False, True, False),
        (False, None, False, False),
        (False, None, True, True),
        (False, False, True, False),
        (False, True, False, True),
    ],
)
def test_who_may_be_shown(make_config, write_store, tmp_path, made_up, site, everywhere, shown):
    stores = {"x": write_store(tmp_path / "x", site="x", made_up=made_up)}
    config = with_pictures(make_config("x", stores=stores), site, everywhere=everywhere)
    assert _pictures_allowed(config, stores) == ({"x"} if shown else set())


def test_pictures_are_drawn_only_of_sites_that_allow_them(make_config, tmp_path):
    config = with_pictures(make_config("us-a", "us-b", rounds=1), False)
    run = simulate(config, tmp_path / "run")
    index = json.loads((run.pictures / "index.json").read_text(encoding="utf-8"))
    assert {one["site"] for one in index} == {"us-b"}
    files = {path.name for path in run.pictures.glob("*.png")}
    assert files == {one["file"] for one in index}
    for name in files:
        with Image.open(run.pictures / name) as picture:
            picture.verify()


def test_without_permission_no_picture_is_written(make_config, write_store, tmp_path):
    stores = {"x": write_store(tmp_path / "x", site="x", made_up=False)}
    run = simulate(make_config("x", stores=stores, rounds=1), tmp_path / "run")
    assert not run.pictures.exists()
    assert not list(run.path.rglob("*.png"))
    assert not run.load_summary()["made_up"]


def test_a_model_file_says_what_it_needs(finished):
    known = load_metadata(finished.personal_model("mr-a"))
    assert (known["name"], known["kind"], known["modality"]) == ("personal:mr-a", "personal", "MR")
    assert known["image_size"] == "32"
    assert str(finished.path.parent) not in json.dumps(known)


def test_evaluate_scores_a_store_outside_the_federation(finished, write_store, tmp_path):
    store = write_store(
        tmp_path / "new", site="new", modality="MR", shape=(18, 22, 3), slice_axis=2
    )
    summary = evaluate_run(finished.path, [store.path], tmp_path / "out", model=None, split="all")
    with (tmp_path / "out" / "cases.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9
    assert {(row["model"], row["site"]) for row in rows} == {("server:MR", "new")}
    written = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert written == json.loads(json.dumps(summary))


def test_evaluate_again_gives_the_runs_own_scores(finished, site_stores, tmp_path):
    evaluate_run(
        finished.path, [site_stores["us-b"].path], tmp_path / "out",
        model="personal:us-b", split="test",
    )  # fmt: skip
    with (tmp_path / "out" / "cases.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows == [row for row in finished.load_cases() if row["model"] == "personal:us-b"]


@pytest.mark.parametrize(
    ("model", "split", "words"),
    [
        ("server:UZ", "test", r"no model 'server:UZ'"),
        ("personal:mr-a", "test", "trained on MR"),
        (None, "tset", "unknown split 'tset'"),
    ],
)
def test_evaluate_refuses_what_does_not_fit(finished, site_stores, tmp_path, model, split, words):
    with pytest.raises(FlamesError, match=words):
        evaluate_run(
            finished.path, [site_stores["us-a"].path], tmp_path / "o", model=model, split=split
        )
    assert not (tmp_path / "o").exists()


def test_a_store_of_a_modality_that_no_server_model_is_of_is_told(finished, write_store, tmp_path):
    store = write_store(tmp_path / "store", site="ct", modality="CT")
    with pytest.raises(FlamesError, match="no server model for ") as caught:
        evaluate_run(finished.path, [store.path], tmp_path / "out", model=None, split="test")
    assert "which holds CT" in caught.value.found
    assert "did you mean" not in caught.value.remedy
    assert "leave that store out" in caught.value.remedy
    assert "personal:us-a" in caught.value.remedy


def test_evaluate_leaves_a_full_folder_and_a_file_alone(finished, site_stores, tmp_path):
    (tmp_path / "mine").touch()
    for out in (tmp_path, tmp_path / "mine"):
        with pytest.raises(FlamesError, match="is not an empty folder"):
            evaluate_run(finished.path, [site_stores["us-a"].path], out, model=None, split="test")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_evaluate_refuses_two_stores_of_one_site_before_scoring(
    finished, site_stores, write_store, tmp_path
):
    twin = write_store(tmp_path / "elsewhere", site="us-a", seed=9)
    sites = [site_stores["us-a"].path, twin.path]
    with pytest.raises(FlamesError, match="both of site 'us-a'") as caught:
        evaluate_run(finished.path, sites, tmp_path / "out", model=None, split="test")
    assert all(str(path) in caught.value.found for path in sites)
    assert not (tmp_path / "out").exists()


def test_a_model_of_a_circle_does_not_name_who_is_outside(make_config, tmp_path, monkeypatch):
    monkeypatch.setattr(Strategy, "circle", lambda *_: ["us-a"])
    run = simulate(make_config("us-a", "us-b", rounds=1), tmp_path / "run")
    (one,) = json.loads(load_metadata(run.server_model("US"))["trained_on"])
    assert one["cases"] == 4


def test_models_say_what_they_learned_from_in_aggregates(make_config, site_stores, tmp_path):
    run = simulate(make_config(rounds=1), tmp_path / "run")
    server = json.loads(load_metadata(run.server_model("US"))["trained_on"])
    assert [one["cases"] for one in server] == [4, 2]
    text = run.personal_model("mr-a").read_bytes()
    (own,) = json.loads(load_metadata(run.personal_model("mr-a"))["trained_on"])
    assert (own["modality"], own["dimensions"]) == ("MR", 3)
    assert not any(case.encode() in text for case in site_stores["mr-a"].cases)


def test_a_store_without_a_case_to_score_is_refused(finished, write_store, tmp_path):
    store = write_store(tmp_path / "store", site="us-new", counts=(4, 2, 0))
    for score in (evaluate_run, evaluate_shifts):
        with pytest.raises(FlamesError, match="has no test case") as caught:
            score(finished.path, [store.path], tmp_path / "out", model=None, split="test")
        assert caught.value.remedy
    assert not (tmp_path / "out").exists()


def test_where_nothing_can_be_written_nothing_is_scored(
    finished, site_stores, tmp_path, monkeypatch
):
    monkeypatch.setattr("flames.federation.evaluation.score_store", None)
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    store, out = site_stores["us-a"].path, tmp_path / "file" / "out"
    with pytest.raises(FlamesError, match="cannot write") as caught:
        evaluate_run(finished.path, [store], out, model=None, split="test")
    assert "another folder" in caught.value.remedy

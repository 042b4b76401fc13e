"""A run that begins with the models of an earlier one."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from flames.array_files import load_arrays, load_metadata, save_arrays
from flames.errors import FlamesError
from flames.federation.beginning import first_weights, own_models
from flames.federation.earlier import earlier_digests, keep_models, seen_before
from flames.federation.exchange import Task
from flames.federation.generalisation import generalisation_jobs
from flames.federation.simulation import simulate
from flames.federation.site_cases import SiteCases
from flames.inference.validation import Validation
from flames.models.weights import model_arrays
from flames.runs import RunFolder
from flames.strategies import Download


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


@pytest.fixture
def earlier(finished, tmp_path):
    """Return a copy of a finished run that a test may change."""
    return RunFolder(shutil.copytree(finished.path, tmp_path / "earlier"))


def same(one, other):
    return one.keys() == other.keys() and all(
        np.array_equal(one[name], other[name]) for name in one
    )


def test_every_modality_begins_with_its_model(finished, make_config, tmp_path):
    config = make_config(start=finished.path, rounds=1)
    run = simulate(config, tmp_path / "run")
    start = first_weights(config, run)
    models = {group: load_arrays(path) for group, path in finished.server_models().items()}
    assert set(models) == {"US", "MR"}
    assert not same(models["US"], models["MR"])
    for modality, model in models.items():
        assert same(start(modality), model)
    environment = json.loads(run.environment.read_text(encoding="utf-8"))
    assert environment["start"] == earlier_digests(finished.path)


def test_a_modality_that_the_earlier_run_had_not_begins_with_random_weights(
    two_sites, make_config, tmp_path
):
    run = RunFolder(tmp_path / "run")
    config = make_config(start=two_sites.path)
    keep_models(two_sites.path, run.state)
    start, fresh = first_weights(config, run), first_weights(make_config(), RunFolder(tmp_path))
    assert same(start("US"), load_arrays(two_sites.server_model("US")))
    assert same(start("MR"), fresh("MR"))


def test_once_begun_the_earlier_run_is_not_needed(earlier, make_config, tmp_path, outcome):
    config = make_config("us-a", "us-b", start=earlier.path, rounds=2)
    unbroken = simulate(config, tmp_path / "unbroken")

    def kill(event):
        if event.stage == "train":
            raise Killed

    with pytest.raises(Killed):
        simulate(config, tmp_path / "run", on_event=kill)
    shutil.rmtree(earlier.path)
    resumed = simulate(config, tmp_path / "run", resume=True)
    assert outcome(resumed) == outcome(unbroken)


def test_another_run_to_begin_with_is_another_configuration(
    finished, earlier, make_config, tmp_path
):
    simulate(make_config("us-a", start=finished.path, rounds=1), tmp_path / "run")
    other = make_config("us-a", start=earlier.path, rounds=1)
    with pytest.raises(FlamesError, match="was started with another start"):
        simulate(other, tmp_path / "run", resume=True)


def test_one_model_for_all_begins_with_one(finished, make_config, tmp_path):
    all_first = simulate(make_config(strategy={"name": "fedavg"}, rounds=1), tmp_path / "all")
    again = make_config(strategy={"name": "uniform"}, start=all_first.path, rounds=1)
    start = first_weights(again, simulate(again, tmp_path / "again"))
    assert start("US") is start("MR")
    assert same(start("US"), load_arrays(all_first.server_model("all")))
    apart = make_config(start=all_first.path, rounds=1)
    assert same(first_weights(apart, simulate(apart, tmp_path / "apart"))("MR"), start("MR"))
    mixed = make_config(strategy={"name": "fedavg"}, start=finished.path)
    with pytest.raises(FlamesError, match="has a model of MR, US, and strategy 'fedavg' keeps one"):
        simulate(mixed, tmp_path / "mixed")
    assert not (tmp_path / "mixed" / "config.toml").exists()


def test_a_model_of_another_network_is_refused(finished, make_config, tmp_path):
    config = make_config(start=finished.path, model={"name": "student"})
    with pytest.raises(FlamesError, match=r"models/MR\.safetensors are not of this network"):
        simulate(config, tmp_path / "run")


def test_what_is_no_finished_run_with_a_model_is_refused(finished, make_config, tmp_path):
    with pytest.raises(FlamesError, match=r"has no summary\.json"):
        simulate(make_config(start=tmp_path / "nothing"), tmp_path / "run")
    alone = simulate(make_config("us-a", strategy={"name": "local"}, rounds=1), tmp_path / "alone")
    with pytest.raises(FlamesError, match="has no server's model to begin with"):
        simulate(make_config(start=alone.path), tmp_path / "run")


@pytest.mark.parametrize(
    ("now", "then", "found"),
    [
        ("test", "train", "1 test case was for training at us-a"),
        ("test", "val", "1 test case was for validation at us-a"),
        ("val", "train", "1 val case was for training at us-a"),
    ],
)
def test_cases_that_the_models_know_must_not_test_them(
    earlier, site_stores, make_config, tmp_path, now, then, found
):
    case = site_stores["us-a"].split(now)[0].case_id
    splits = json.loads(earlier.splits.read_text(encoding="utf-8"))
    splits["us-a"][now].remove(case)
    splits["us-a"][then].append(case)
    earlier.splits.write_text(json.dumps(splits), encoding="utf-8")
    with pytest.raises(FlamesError, match=found):
        simulate(make_config(start=earlier.path), tmp_path / "run")


def test_new_cases_and_former_test_cases_may_train(site_stores):
    store = site_stores["us-a"]
    sides = {side: [case.case_id for case in store.split(side)] for side in ("val", "test")}
    assert seen_before({"train": [], "val": sides["val"], "test": sides["test"]}, store) is None
    assert seen_before({}, store) is None


def test_a_run_that_does_not_say_its_split_is_refused(earlier, make_config, tmp_path):
    earlier.splits.unlink()
    with pytest.raises(FlamesError, match="does not say which cases it was trained on"):
        simulate(make_config(start=earlier.path), tmp_path / "run")


def test_studies_of_what_was_left_out_begin_with_nothing(finished, make_config, tmp_path):
    with pytest.raises(FlamesError, match="may have been trained on what is left out"):
        generalisation_jobs(make_config(start=finished.path), [], seeds=1, out=tmp_path)


@pytest.fixture
def judged(monkeypatch):
    """Return a function that lets validation like one model; it has 0.5 of all others."""

    def like(liked, score):
        def judge(cases, network, precision):
            del cases, precision
            return Validation(score if same(model_arrays(network), liked) else 0.5, [])

        monkeypatch.setattr(SiteCases, "judge", judge)

    return like


@pytest.fixture
def own(earlier):
    """Return the weights of a model of its own with which ``us-a`` ended the earlier run."""
    path = earlier.personal_model("us-a")
    arrays = {name: array * np.float32(1.01) for name, array in load_arrays(path).items()}
    save_arrays(path, arrays, load_metadata(path))
    return arrays


@pytest.mark.parametrize(("score", "stays"), [(0.9, True), (0.51, False)])
def test_a_hospital_ends_with_its_earlier_model_where_that_clearly_leads(
    earlier, own, make_config, tmp_path, judged, score, stays
):
    judged(own, score)
    run = simulate(make_config("us-a", "us-b", start=earlier.path), tmp_path / "run")
    assert same(load_arrays(run.personal_model("us-a")), own) == stays
    assert not same(load_arrays(run.personal_model("us-b")), own)
    [*_, closing] = [r for r in run.load_rounds() if r.get("site") == "us-a"]
    assert closing["validation"]["earlier"] == score
    assert (closing["best_round"] == 0) == stays
    assert closing["chosen"] != "earlier", "it is not what a round begins with"
    assert run.load_summary()["sites"]["us-a"]["kept_round"] == closing["best_round"]


def test_others_hear_nothing_of_an_earlier_model_that_a_hospital_ends_with(
    earlier, own, make_config, tmp_path, judged
):
    config = make_config("us-a", "us-b", start=earlier.path)
    runs = []
    for score in (0.5, 0.9):
        judged(own, score)
        runs.append(simulate(config, tmp_path / str(score)))
    files = [(run.server_model("US"), run.personal_model("us-b")) for run in runs]
    for without, with_it in zip(*files, strict=True):
        assert without.read_bytes() == with_it.read_bytes()
    without, with_it = (run.personal_model("us-a") for run in runs)
    assert without.read_bytes() != with_it.read_bytes()


def test_a_damaged_model_of_its_own_is_told_before_the_hospital_trains(
    finished, make_config, make_client, tmp_path
):
    client = make_client(make_config("us-a"))
    client.earlier = tmp_path / "own.safetensors"
    content = finished.personal_model("us-a").read_bytes()
    client.earlier.write_bytes(content[:-4])
    start = load_arrays(finished.server_model("US"))
    first = Task(1, range(2), 4, Download(start, use="replace"))
    with pytest.raises(FlamesError, match=r"own\.safetensors"):
        client.answer(first)
    client.earlier.write_bytes(content)
    assert client.answer(first)[0].chosen == "model"


def test_where_hospitals_end_with_the_group_s_model_none_is_their_own(make_config, tmp_path):
    shared = simulate(make_config("us-a", strategy={"name": "modality"}, rounds=1), tmp_path / "a")
    assert set(shared.personal_models()) == {"us-a"}
    assert own_models(shared.path) == {}

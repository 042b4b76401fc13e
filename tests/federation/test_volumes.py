"""Federations in three dimensions: the same rounds, over patches of volumes."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from flames.array_files import load_arrays
from flames.config import PlanConfig, differing_keys, load_config
from flames.data.store import SiteStore
from flames.errors import FlamesError
from flames.federation.adaptation import AdaptOptions, adapt
from flames.federation.batch import Job, run_missing
from flames.federation.beginning import first_weights
from flames.federation.classroom import DistilOptions
from flames.federation.distillation import distil
from flames.federation.evaluation import evaluate_run
from flames.federation.planning import make_plans, plans_toml, read_fingerprint
from flames.federation.simulation import simulate
from flames.inference.score import load_model
from flames.models.precision import choose_precision

PLAN = {
    "spacing": [2.0, 1.25, 1.25],
    "patch": [4, 16, 16],
    "strides": [[1, 2, 2], [2, 2, 2], [1, 1, 1]],
    "kernels": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
}


@pytest.fixture(scope="module", autouse=True)
def _thin_network():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["flames.models.unet3d"], "FILTERS", (4, 8, 16))
        yield


@pytest.fixture(scope="module")
def volumes(write_store, tmp_path_factory) -> dict[str, SiteStore]:
    """Return two hospitals with volumes."""
    folder = tmp_path_factory.mktemp("volumes")
    return {
        f"mr-{number}": write_store(
            folder / f"mr-{number}",
            site=f"mr-{number}",
            modality="MR",
            shape=(20, 26, 4),
            slice_axis=2,
            counts=(4, 2, 3),
            seed=number,
        )
        for number in (1, 2)
    }


@pytest.fixture(scope="module")
def finished(volumes, make_config, tmp_path_factory):
    config = make_config(
        *volumes, stores=volumes, data={"dimensions": 3}, plans={"MR": PLAN}, rounds=2
    )
    return simulate(config, tmp_path_factory.mktemp("three") / "run")


def test_a_run_trains_scores_and_repeats(finished, volumes, make_config, tmp_path, outcome):
    scores = finished.load_summary()["scores"]
    assert {s["model"] for s in scores} == {"personal:mr-1", "personal:mr-2", "server:MR"}
    again = make_config(
        *volumes, stores=volumes, data={"dimensions": 3}, plans={"MR": PLAN}, rounds=2
    )
    assert outcome(simulate(again, tmp_path / "again")) == outcome(finished)


def test_a_run_begins_with_an_earlier_one_of_the_same_plan(
    finished, volumes, make_config, tmp_path
):
    given = {"stores": volumes, "data": {"dimensions": 3}, "rounds": 1, "start": finished.path}
    config = make_config(*volumes, plans={"MR": PLAN}, **given)
    start = first_weights(config, simulate(config, tmp_path / "run"))("MR")
    model = load_arrays(finished.server_model("MR"))
    assert start.keys() == model.keys()
    assert all(np.array_equal(start[name], model[name]) for name in model)
    other = make_config(*volumes, plans={"MR": PLAN | {"kernels": [[3, 3, 3]] * 3}}, **given)
    with pytest.raises(FlamesError, match="not of this network"):
        simulate(other, tmp_path / "other")


def test_its_models_know_their_plan_and_work_elsewhere(finished, volumes, tmp_path):
    model = load_model(finished.server_model("MR"), choose_precision("float32"))
    assert model.plan is not None
    assert model.plan.patch == (4, 16, 16)
    found = evaluate_run(
        finished.path, [volumes["mr-1"].path], tmp_path / "out", model=None, split="test"
    )
    known = [s for s in finished.load_summary()["scores"] if s["model"] == "server:MR"]
    assert found["scores"][0]["dice"] == known[0]["dice"]


def test_a_missing_plan_is_made_and_written(volumes, make_config, tmp_path):
    config = make_config(*volumes, stores=volumes, data={"dimensions": 3}, rounds=1)
    run = simulate(config, tmp_path / "run")
    written = load_config(run.config)
    assert written.plans["MR"].spacing == (2.0, 1.25, 1.25)
    assert simulate(config, run.path, resume=True).path == run.path


def test_a_key_of_one_side_only_differs(volumes, make_config):
    plain = make_config(*volumes, stores=volumes, data={"dimensions": 3})
    planned = plain.model_copy(update={"plans": {"MR": PlanConfig(**PLAN)}})
    assert "plans.MR.patch" in differing_keys(planned, plain)
    assert differing_keys(planned, plain) == differing_keys(plain, planned)
    assert differing_keys(planned, planned) == []


def test_a_table_of_runs_knows_the_plans_that_its_runs_made(volumes, make_config, tmp_path):
    config = make_config(*volumes, stores=volumes, data={"dimensions": 3}, rounds=1)
    jobs = [Job(config, tmp_path / "a")]
    run_missing(jobs)
    assert run_missing(jobs)[0].path == tmp_path / "a"
    planned = [Job(config.model_copy(update={"plans": {"MR": PlanConfig(**PLAN)}}), tmp_path / "a")]
    with pytest.raises(FlamesError, match=r"another .*plans\.MR"):
        run_missing(planned)


def test_single_images_do_not_mix_with_volumes(volumes, make_config, write_store, tmp_path):
    flat = write_store(tmp_path / "flat", site="flat", modality="MR", counts=(4, 2, 3), seed=9)
    stores = volumes | {"flat": flat}
    for more in ({}, {"plans": {"MR": PLAN}}):
        config = make_config("mr-1", "flat", stores=stores, data={"dimensions": 3}, **more)
        with pytest.raises(FlamesError, match="single image"):
            simulate(config, tmp_path / f"run-{len(more)}")
        assert not (tmp_path / f"run-{len(more)}").exists()


@pytest.mark.parametrize("strategy", ["fedavg", "scaffold", "fedrep"])
def test_strategies_over_all_modalities_are_refused(volumes, make_config, tmp_path, strategy):
    config = make_config(
        *volumes,
        stores=volumes,
        data={"dimensions": 3},
        plans={"MR": PLAN},
        strategy={"name": strategy},
    )
    with pytest.raises(FlamesError, match="for all modalities"):
        simulate(config, tmp_path / "run")


def test_a_joining_hospital_adapts_a_model_of_volumes(finished, volumes, tmp_path):
    rows = adapt(
        finished.path, volumes["mr-2"], tmp_path / "out", AdaptOptions(cases=(0, 2), steps=2)
    )
    assert {(row["start"], int(row["cases"])) for row in rows} == {
        ("model", 0),
        ("model", 2),
        ("nothing", 2),
        ("model", 4),
        ("nothing", 4),
    }
    adapted = load_model(next((tmp_path / "out" / "models").iterdir()), choose_precision("float32"))
    assert adapted.plan is not None


def test_a_model_of_volumes_is_refused_before_the_folder_is_taken(finished, write_store, tmp_path):
    flat = write_store(tmp_path / "flat", site="flat", modality="MR", seed=9)
    with pytest.raises(FlamesError, match="works on volumes"):
        adapt(finished.path, flat, tmp_path / "out", AdaptOptions(cases=(0, 2), steps=2))
    assert not (tmp_path / "out").exists()


def test_students_learn_slice_by_slice_only(finished, tmp_path):
    with pytest.raises(FlamesError, match="work on volumes"):
        distil(finished.path, [], tmp_path / "out", DistilOptions(variants=()))


def test_a_damaged_plan_is_told(finished, tmp_path):
    from safetensors.numpy import load_file, save_file

    from flames.models.weights import load_metadata

    path = finished.server_model("MR")
    metadata = load_metadata(path) | {"plan": json.dumps(PLAN | {"patch": [4, 16, 17]})}
    save_file(load_file(path), tmp_path / "bad.safetensors", metadata)
    with pytest.raises(FlamesError, match="does not say which network"):
        load_model(tmp_path / "bad.safetensors", choose_precision("float32"))


def test_fingerprints_travel_as_files(volumes, tmp_path):
    from flames.data.fingerprint import fingerprint

    prints = [fingerprint(store) for store in volumes.values()]
    files = [tmp_path / f"{n}.json" for n in range(2)]
    for file, content in zip(files, prints, strict=True):
        file.write_text(content.model_dump_json(), encoding="utf-8")
    plans = make_plans(read_fingerprint(file) for file in files)
    assert "[plans.MR]" in plans_toml(plans)
    files[0].write_text("{}", encoding="utf-8")
    with pytest.raises(FlamesError, match="no fingerprint"):
        read_fingerprint(files[0])
    with pytest.raises(FlamesError, match="cannot read"):
        read_fingerprint(tmp_path / "none.json")


def test_the_network_sees_beyond_a_slice(finished):
    model = load_model(finished.server_model("MR"), choose_precision("float32"))
    import torch

    volume = torch.zeros(1, 1, 4, 16, 16)
    model.network.eval()
    with torch.inference_mode():
        before = model.network(volume)[0, 0, 0].clone()
        volume[0, 0, 3] = 1.0
        after = model.network(volume)[0, 0, 0]
    assert not np.allclose(before, after)

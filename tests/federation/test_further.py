"""The strategies to compare with, in whole runs: limiting cases, bytes, and resuming."""

from __future__ import annotations

import numpy as np
import pytest

from flames.federation.simulation import simulate
from flames.models.weights import LazyArrays, load_arrays
from flames.strategies.rules import decoder, norm_layers


def records(run, kind="site"):
    return [r for r in run.load_rounds() if r["kind"] == kind]


def weights(run, group="all"):
    return {n: a.tobytes() for n, a in load_arrays(run.server_model(group)).items()}


@pytest.fixture(scope="module")
def runs(make_config, tmp_path_factory):
    """Return a function that gives a finished run of a strategy, made once."""
    made = {}

    def run(name, *sites, **strategy):
        key = (name, sites, *sorted(strategy.items()))
        if key not in made:
            config = make_config(*sites, rounds=3, strategy={"name": name} | strategy)
            made[key] = simulate(config, tmp_path_factory.mktemp(name) / "run")
        return made[key]

    return run


def test_fedprox_without_a_spring_is_fedavg_bit_for_bit(runs):
    plain, sprung = (
        runs("fedavg", "us-a", "us-b"),
        runs("fedprox", "us-a", "us-b", **{"proximal-mu": 0.0}),
    )
    assert weights(plain) == weights(sprung)
    assert weights(plain) != weights(runs("fedprox", "us-a", "us-b", **{"proximal-mu": 5.0}))


def test_inside_modalities_with_one_modality_is_alone(runs):
    for name in ("fedprox", "fedadam", "scaffold"):
        alone, inside = runs(name, "us-a", "us-b"), runs(f"modality-{name}", "us-a", "us-b")
        assert weights(alone) == weights(inside, "US"), name


def test_the_rounds_of_a_uniform_model_are_judged_by_clients_alike(runs):
    """The sites have different numbers of cases, so that a mean by cases is another."""
    run = runs("uniform", "us-a", "us-b")
    rounds = run.load_rounds()
    judged = [r for r in rounds if r["kind"] == "server" and r["validation"] is not None]
    assert judged
    for record in judged:
        sites = [r for r in rounds if r["kind"] == "site" and r["round"] == record["round"] + 1]
        scores = [site["validation"]["model"] for site in sites]
        assert record["validation"] == pytest.approx(np.mean(scores), abs=1e-5)
        cases = [site["num_examples"] for site in sites]
        assert len(set(cases)) == 2
        by_cases = np.average(scores, weights=cases)
        assert record["validation"] != pytest.approx(by_cases, abs=1e-5), "told apart"


def test_scaffold_begins_as_fedavg_and_sends_twice(runs):
    plain, found = runs("fedavg", "us-a", "us-b"), runs("scaffold", "us-a", "us-b")
    first = [[r["loss"] for r in records(run) if r["round"] == 1] for run in (plain, found)]
    assert first[0] == first[1]
    assert weights(plain) != weights(found)
    one, other = records(plain)[0]["bytes_up"], records(found)[0]["bytes_up"]
    assert other == pytest.approx(2 * one, rel=0.1)
    assert not any(n.startswith("control:") for n in LazyArrays(found.server_model("all")))


@pytest.mark.parametrize(("name", "part"), [("fedbn", norm_layers), ("fedrep", decoder)])
def test_private_arrays_stay_and_shared_ones_do_not(runs, name, part):
    run = runs(name, "us-a", "us-b")
    assert run.server_models() == {}
    one, other = (load_arrays(run.personal_model(site)) for site in ("us-a", "us-b"))
    private = part(one)
    updates = run.path / "state" / "server" / "round-0004" / "updates" / "us-a.safetensors"
    assert set(LazyArrays(updates)) == set(one) - private
    assert any((one[n] != other[n]).any() for n in private)
    full = records(runs("fedavg", "us-a", "us-b"))[0]["bytes_up"]
    assert records(run)[0]["bytes_up"] < full


@pytest.mark.parametrize("name", ["ditto", "apfl"])
def test_a_second_model_halves_the_common_steps_and_is_what_a_site_keeps(runs, name):
    run = runs(name, "us-a", "us-b")
    closing = [r for r in records(run) if r["round"] == 4]
    scores = {r["site"]: r["validation"]["second"] for r in closing}
    assert {r["site"]: r["best"] for r in closing} == scores
    assert weights(run) != weights(runs("fedavg", "us-a", "us-b"))
    stored = run.load_summary()["stored"]["clients"]
    assert stored > 1.5 * runs("fedavg", "us-a", "us-b").load_summary()["stored"]["clients"]


def test_fedadam_remembers_at_the_server_only(runs):
    plain, found = runs("fedavg", "us-a", "us-b"), runs("fedadam", "us-a", "us-b")
    one, other = plain.load_summary()["stored"], found.load_summary()["stored"]
    assert other["clients"] == one["clients"]
    assert other["server"] > one["server"]
    assert weights(plain) != weights(found)


@pytest.mark.parametrize("name", ["scaffold", "fedadam", "apfl", "modality-fedrep"])
def test_a_stopped_run_ends_as_an_unbroken_one(make_config, runs, tmp_path, outcome, name):
    class Stop(Exception):
        pass

    def stop(event):
        if event.stage == "round" and event.server_round == 2:
            raise Stop

    config = make_config("us-a", "us-b", rounds=3, strategy={"name": name})
    with pytest.raises(Stop):
        simulate(config, tmp_path / "run", on_event=stop)
    again = simulate(config, tmp_path / "run", resume=True)
    assert outcome(again) == outcome(runs(name, "us-a", "us-b"))


def test_one_site_under_fedprox_is_held_near_its_start(runs):
    start = load_arrays(
        runs("fedprox", "mr-a", **{"proximal-mu": 50.0}).state / "start.safetensors"
    )

    def reach(run):
        found = load_arrays(run.server_model("all"))
        return np.sqrt(sum(((found[n] - start[n]) ** 2).sum() for n in start))

    free = runs("fedprox", "mr-a", **{"proximal-mu": 0.0})
    assert reach(free) > reach(runs("fedprox", "mr-a", **{"proximal-mu": 50.0}))

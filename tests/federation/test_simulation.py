from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from flames.data.batches import training_batches
from flames.data.slices import load_slices
from flames.errors import FlamesError
from flames.federation import simulation
from flames.federation.crew import client_sites
from flames.federation.exchange import derive_seed
from flames.federation.server import Server
from flames.federation.simulation import open_stores, simulate
from flames.inference.predict import validate
from flames.inference.score import load_model
from flames.models import make_model
from flames.models.precision import choose_precision
from flames.models.weights import load_arrays, model_arrays
from flames.strategies import FURTHER, STRATEGIES
from flames.strategies.mixture import leads
from flames.training.loop import make_optimizer, train


def test_a_store_without_validation_cases_is_refused_before_anybody_trains(
    make_config, write_store, tmp_path
):
    config = make_config("us-a", "us-b")
    bare = write_store(tmp_path / "bare", site="us-b", counts=(4, 0, 3)).path
    sites = tuple(
        site.model_copy(update={"store": bare}) if site.name == "us-b" else site
        for site in config.sites
    )
    with pytest.raises(FlamesError, match="bare has no validation case"):
        simulate(config.model_copy(update={"sites": sites}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def plain_training(config, site, store):
    """Return the weights after each round's steps of training without any federation."""
    torch.manual_seed(derive_seed(config.seed, "start"))
    network = make_model(config.model)
    optimizer = make_optimizer(network, config.training)
    steps = config.training.local_steps
    rounds = []
    for number in range(config.rounds):
        seed = derive_seed(config.seed, site, number + 1)
        torch.manual_seed(seed)
        batches = training_batches(
            [load_slices(store, "train", config.data.image_size)],
            modality=store.modality,
            batch_size=config.training.batch_size,
            tumour_fraction=config.data.tumour_fraction,
            augmented=config.data.augment,
            seed=seed,
        )
        train(
            network,
            optimizer,
            batches,
            config=config.training,
            precision=choose_precision("float32"),
            steps=range(number * steps, (number + 1) * steps),
            total_steps=config.rounds * steps,
        )
        rounds.append(model_arrays(network))
    return rounds


def test_equal_seeds_give_equal_bits(make_config, tmp_path, two_sites, outcome):
    again = simulate(make_config("us-a", "us-b"), tmp_path / "again")
    assert outcome(again) == outcome(two_sites)


def test_another_seed_gives_other_weights(make_config, tmp_path, two_sites):
    other = simulate(make_config("us-a", "us-b", seed=6, rounds=1), tmp_path / "other")
    assert other.server_model("US").read_bytes() != two_sites.server_model("US").read_bytes()


@pytest.fixture(scope="module")
def plain(make_config, site_stores):
    torch.set_num_threads(1)
    return plain_training(make_config("mr-a"), "mr-a", site_stores["mr-a"])


@pytest.fixture(scope="module")
def alone(make_config, tmp_path_factory):
    """Return by strategy a run of one site, and its client's weights after each round."""
    found = {}
    for name in ("local", "flames", "fedavg", "modality"):
        out = tmp_path_factory.mktemp("alone") / name
        weights = []

        def keep(event, out=out, weights=weights):
            if event.stage == "round" and len(weights) < event.server_round:
                place = out / "state" / "clients" / "mr-a" / f"round-{event.server_round:04d}"
                weights.append(load_arrays(place / "weights.safetensors"))

        run = simulate(make_config("mr-a", strategy={"name": name}), out, on_event=keep)
        found[name] = (run, weights)
    return found


@pytest.mark.parametrize("name", ["local", "flames", "fedavg", "modality"])
def test_one_site_is_plain_training(name, plain, alone):
    _, weights = alone[name]
    for known, found in zip([*plain, plain[-1]], weights, strict=True):
        assert known.keys() == found.keys()
        for key, array in known.items():
            assert array.tobytes() == found[key].tobytes(), key


def test_one_sites_server_model_is_its_last_or_one_that_clearly_leads(plain, alone, site_stores):
    cases = len(site_stores["mr-a"].split("val"))
    for name, group in (("flames", "MR"), ("fedavg", "all"), ("modality", "MR")):
        run, _ = alone[name]
        records = run.load_rounds()
        trained = [r["validation"]["trained"] for r in records if r["kind"] == "site"][:2]
        judged = [r["validation"] for r in records if r["kind"] == "server"]
        assert judged == trained
        best = plain[0 if leads(*judged, cases) else 1]
        for key, array in load_arrays(run.server_model(group)).items():
            assert array.tobytes() == best[key].tobytes(), key


def test_one_sites_personal_model_is_the_local_one(alone):
    known = load_arrays(alone["local"][0].personal_model("mr-a"))
    found = load_arrays(alone["flames"][0].personal_model("mr-a"))
    assert {k: v.tobytes() for k, v in known.items()} == {k: v.tobytes() for k, v in found.items()}


def test_kept_weights_are_never_worse_than_what_was_tried(finished, make_config, site_stores):
    config = make_config()
    sites = [r for r in finished.load_rounds() if r["kind"] == "site"]
    for site, store in site_stores.items():
        mine = [r for r in sites if r["site"] == site]
        closing = mine[-1]["validation"]
        assert mine[-1]["best"] >= max(closing.values())
        if mine[-2]["chosen"] == "mixture":
            assert mine[-1]["best"] == max(closing.values())
        scores = {}
        for path in (finished.personal_model(site), finished.server_model(store.modality)):
            model = load_model(path, choose_precision("float32"))
            scores[model.kind] = validate(
                model.network,
                [load_slices(store, "val", config.data.image_size)],
                at_most=config.training.validation_images,
                precision=choose_precision("float32"),
                batch_size=config.evaluation.batch_size,
            ).dice
        assert scores["personal"] == pytest.approx(mine[-1]["best"], abs=1e-5)
        assert scores["personal"] >= scores["server"] - 1e-4


def test_the_servers_best_model_is_sent_in_the_closing_round_alone(
    make_config, tmp_path, monkeypatch
):
    config = make_config("us-a", "us-b")
    sent, kept = {}, {}
    task = Server.task

    def remember(self, client):
        asked = task(self, client)
        sent[asked.server_round, client] = asked.download.best and dict(asked.download.best)
        kept[asked.server_round] = self.best_models()
        return asked

    monkeypatch.setattr(Server, "task", remember)
    run = simulate(config, tmp_path / "run")
    closing = config.rounds + 1
    for (server_round, _), best in sent.items():
        assert (best is not None) == (server_round == closing)
    np.testing.assert_equal(sent[closing, "us-a"], kept[closing]["US"])
    records = [r for r in run.load_rounds() if r["kind"] == "site" and r["round"] == closing]
    assert all("best" in record["validation"] for record in records)


def test_every_group_is_judged_on_its_model(finished):
    records = finished.load_rounds()
    for record in (r for r in records if r["kind"] == "server"):
        heard = [
            r for r in records
            if r["kind"] == "site" and r["round"] == record["round"] + 1
            and r["site"] in record["sites"]
        ]  # fmt: skip
        scores = [r["validation"].get("model", r["validation"].get("own")) for r in heard]
        cases = [r["num_examples"] for r in heard]
        assert record["validation"] == pytest.approx(np.average(scores, weights=cases), abs=1e-6)


def test_a_fixed_alpha_is_used_and_its_groups_model_judged(make_config, tmp_path):
    config = make_config("us-a", "us-b", strategy={"alpha": 0.7})
    records = simulate(config, tmp_path / "run").load_rounds()
    later = [r for r in records if r["kind"] == "site" and r["round"] > 1]
    assert {(r["chosen"], r["alpha"]) for r in later} == {("mixture", 0.7)}
    judged = [r for r in records if r["kind"] == "server"]
    for record in judged:
        heard = [r for r in later if r["round"] == record["round"] + 1]
        scores = [r["validation"]["model"] for r in heard]
        cases = [r["num_examples"] for r in heard]
        assert record["validation"] == pytest.approx(np.average(scores, weights=cases), abs=1e-6)


INSIDE = {name for name in FURTHER if name.startswith("modality-")}


@pytest.mark.parametrize("name", sorted(set(STRATEGIES) - INSIDE))
def test_every_strategy_does_the_same_steps_on_every_site(name, make_config, tmp_path):
    config = make_config(rounds=3, strategy={"name": name})
    done: dict[str, int] = {}

    def count(event):
        if event.stage == "train":
            done[event.client] = done.get(event.client, 0) + 1

    run = simulate(config, tmp_path / "run", on_event=count)
    each = config.rounds * config.training.local_steps
    if name == "central":
        assert done == {"central-US": 2 * each, "central-MR": each}
    else:
        assert done == {"us-a": each, "us-b": each, "mr-a": each}
    strategy = STRATEGIES[name](None)
    groups = {strategy.group_of(modality) for modality in ("US", "MR")} - {None}
    assert set(run.server_models()) == groups
    assert set(run.personal_models()) == {"us-a", "us-b", "mr-a"}
    rows = run.load_cases()
    cases = {"us-a": 3, "us-b": 3, "mr-a": 3}
    for site, number in cases.items():
        mine = [row for row in rows if row["model"] == f"personal:{site}"]
        assert [row["site"] for row in mine] == [site] * number
    summary = run.load_summary()
    assert {site: fields["steps"] for site, fields in summary["sites"].items()} == {
        site: 2 * each if name == "central" and site.startswith("us") else each for site in cases
    }


def test_central_pools_the_sites_of_a_modality(make_config, site_stores, tmp_path):
    config = make_config(strategy={"name": "central"}, rounds=1)
    assert client_sites(config, site_stores) == {
        "central-US": ["us-a", "us-b"],
        "central-MR": ["mr-a"],
    }
    run = simulate(config, tmp_path / "run")
    cases = {r["site"]: r["num_examples"] for r in run.load_rounds() if r["kind"] == "site"}
    assert cases == {"central-US": 4 + 2, "central-MR": 4}
    one, other = (load_arrays(run.personal_model(site)) for site in ("us-a", "us-b"))
    np.testing.assert_equal(one, other)


def test_a_finished_run_is_not_done_again(two_sites, make_config, monkeypatch):
    monkeypatch.setattr(simulation, "score_run", None)
    assert simulate(make_config("us-a", "us-b"), two_sites.path, resume=True) == two_sites


def test_a_folder_with_a_run_needs_resume(two_sites, make_config):
    with pytest.raises(FlamesError, match="already holds a run"):
        simulate(make_config("us-a", "us-b"), two_sites.path)


def test_a_run_of_another_configuration_is_not_continued(two_sites, make_config):
    with pytest.raises(FlamesError, match="another seed"):
        simulate(make_config("us-a", "us-b", seed=9), two_sites.path, resume=True)


def test_a_folder_with_anything_else_is_left_alone(make_config, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(FlamesError, match="not an empty folder"):
        simulate(make_config("us-a"), tmp_path, resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_run_killed_while_it_wrote_its_first_file_is_begun_again(
    make_config, tmp_path, monkeypatch
):
    def killed(*_):
        raise KeyboardInterrupt

    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            simulate(make_config("us-a", rounds=1), out)
    assert [path.name for path in out.iterdir()] == [".config.toml.partial"]
    assert simulate(make_config("us-a", rounds=1), out, resume=True).cases.exists()


def stopped_run(make_config, write_store, folder):
    """Begin a run of the store ``folder / "x"`` in ``folder / "run"``; return its configuration."""
    stores = {"x": write_store(folder / "x", site="x")}
    config = make_config("x", stores=stores, rounds=1)

    def stop(event):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(config, folder / "run", on_event=stop)
    return config


def test_a_run_is_not_continued_on_a_changed_store(make_config, write_store, tmp_path):
    config = stopped_run(make_config, write_store, tmp_path)
    shutil.rmtree(tmp_path / "x")
    write_store(tmp_path / "x", site="x", seed=8)
    with pytest.raises(FlamesError, match=r"x changed since .*run was made"):
        simulate(config, tmp_path / "run", resume=True)


def test_a_run_is_not_continued_on_another_split(make_config, write_store, tmp_path):
    config = stopped_run(make_config, write_store, tmp_path)
    path = tmp_path / "x" / "splits.json"
    before = path.read_text(encoding="utf-8")
    splits = json.loads(before)
    splits["train"][0], splits["test"][0] = splits["test"][0], splits["train"][0]
    path.write_text(json.dumps(splits), encoding="utf-8")
    with pytest.raises(FlamesError, match=r"split anew since .*run was made: 2 of its cases") as e:
        simulate(config, tmp_path / "run", resume=True)
    assert "splits.json names its cases" in e.value.remedy
    path.write_text(before, encoding="utf-8")
    assert simulate(config, tmp_path / "run", resume=True).summary.exists()


def test_a_changed_image_is_refused(make_config, write_store, tmp_path):
    stores = {"x": write_store(tmp_path / "x", site="x")}
    path = tmp_path / "x" / "cases" / "x-00" / "image.npy"
    image = np.load(path)
    image[0, 0] += 1
    np.save(path, image)
    with pytest.raises(FlamesError, match="changed since the store was made"):
        simulate(make_config("x", stores=stores), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_test_case_of_one_site_cannot_train_another(make_config, write_store, tmp_path):
    stores = {
        "x": write_store(tmp_path / "x", site="x", counts=(4, 2, 3), seed=4),
        "y": write_store(tmp_path / "y", site="y", counts=(7, 1, 1), seed=4),
    }
    with pytest.raises(FlamesError, match="is train at y and test at x"):
        open_stores(make_config("x", "y", stores=stores))
    copy = {"x": stores["x"], "z": write_store(tmp_path / "z", site="z", seed=4)}
    assert set(open_stores(make_config("x", "z", stores=copy))) == {"x", "z"}


def test_records_tell_no_place_and_no_person(finished):
    import getpass
    import platform

    text = finished.environment.read_text(encoding="utf-8")
    assert str(finished.path.parent) not in text
    assert platform.node() not in text
    assert f'"{getpass.getuser()}"' not in text
    assert json.loads(text)["made_up"] is True

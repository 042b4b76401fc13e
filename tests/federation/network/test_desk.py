from __future__ import annotations

import json
import random
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flames.array_files import load_arrays, save_arrays
from flames.errors import FlamesError
from flames.federation.client import Client
from flames.federation.network.journal import Journal
from flames.federation.network.messages import decode, encode
from flames.federation.network.policy import Policy
from flames.federation.network.trained_store import note_store
from flames.federation.simulation import simulate
from flames.models import make_model
from flames.models.weights import model_arrays

pytestmark = pytest.mark.usefixtures("small_network")


def test_a_run_over_messages_is_a_simulation_bit_for_bit(make_hall, three_sites, as_simulated):
    hall = make_hall()
    assert hall.job("us-a", "us-b", "mr-a") == ("finished", "the run is finished")
    assert as_simulated(hall.run) == as_simulated(three_sites)


def test_a_site_with_more_training_cases_than_agreed_does_not_take_part(make_hall):
    hall = make_hall("us-a", "us-b")
    hall.agreed = {"us-a": 3, "us-b": 2}  # they have 4 and 2
    assert hall.job("us-a", "us-b") == ("finished", "the run is finished")
    found = "it says it has 4 training cases, the consortium's record says 3 at most: agree on"
    (told,) = hall.told("refused")
    assert told.startswith(f"us-a does not take part: {found}")
    assert "flames consortium cases" in told
    house = Journal(hall.folder / "server.jsonl").read()
    assert [e["text"] for e in house if e["event"] == "refused"] == [told]
    assert any(e["text"].startswith(f"the server refuses: {found}") for e in said(hall, "us-a"))
    assert {e["purpose"] for e in hall.log("us-a").read()} == {"ask", "hello"}
    assert {r["site"] for r in hall.run.load_rounds() if r["kind"] == "site"} == {"us-b"}


@pytest.mark.parametrize(
    ("counts", "missing"),
    [((4, 0, 3), "no validation case"), ((0, 0, 2), "no training case and no validation case")],
)
def test_a_site_without_a_needed_side_hears_so_before_anything_of_it_leaves(
    make_hall, write_store, tmp_path, counts, missing
):
    hall = make_hall("us-a", "us-b")
    hall.policies["us-b"] = Policy(scores="aggregates")
    hall.stores["us-b"] = write_store(tmp_path / "bare", site="us-b", counts=counts)
    assert hall.job("us-a", "us-b") == ("finished", "the run is finished")
    (told,) = hall.told("refused")
    assert told.startswith(f"us-b does not take part: its store has {missing}: prepare a store")
    assert hall.told("trouble") == []
    assert [e["event"] for e in said(hall, "us-b")] == ["refuses"]
    assert {e["purpose"] for e in hall.log("us-b").read()} == {"ask", "refuse"}
    assert {r["site"] for r in hall.run.load_rounds() if r["kind"] == "site"} == {"us-a"}


def test_the_server_takes_no_site_in_that_says_it_has_no_validation_case(make_hall):
    hall = make_hall("us-a")

    def line(site, send):
        def changed(topic, message):
            facts, sections = decode(message)
            if topic == "hello":
                facts["facts"]["cases"]["val"] = 0
                facts["facts"]["tumour_free"]["val"] = 0
                facts["facts"]["splits"]["val"] = []
            return send(topic, encode(facts, sections))

        return changed

    hall.line = line
    verdict, why = hall.job("us-a")
    assert verdict == "failed"
    assert why.startswith("us-a: its store has no validation case: prepare a store")


def said(hall, site):
    return Journal(hall.kit(site).events).read()


def test_agreed_numbers_that_are_kept_change_nothing(make_hall, three_sites, as_simulated):
    hall = make_hall()
    hall.agreed = {"us-a": 4, "us-b": 100}
    assert hall.job("us-a", "us-b", "mr-a")[0] == "finished"
    assert as_simulated(hall.run) == as_simulated(three_sites)


def test_a_bad_line_changes_nothing(make_hall, three_sites, as_simulated):
    chance = random.Random(7)

    def line(site, send):
        def worse(topic, message):
            fate = chance.random()
            if fate < 0.1:
                return None
            if fate < 0.2:
                send(topic, message)
                return None
            if fate < 0.3 and topic == "ask":
                return send(topic, message)[:-3]
            answer = send(topic, message)
            if fate < 0.5:
                answer = send(topic, message)
            return answer

        return worse

    hall = make_hall()
    hall.line = line
    assert hall.job("us-a", "us-b", "mr-a")[0] == "finished"
    assert as_simulated(hall.run) == as_simulated(three_sites)


def test_every_few_rounds_another_job_takes_over(make_hall, three_sites, as_simulated):
    hall = make_hall(network={"rounds-per-job": 1})
    verdicts = [hall.job("us-a", "us-b", "mr-a")[0] for _ in range(4)]
    assert verdicts == ["next", "next", "next", "finished"]
    config = hall.config.model_copy(update={"network": three_sites_network(three_sites)})
    assert config.rounds == 2
    assert as_simulated(hall.run) == as_simulated(three_sites)


def three_sites_network(run):
    from flames.config import load_config

    return load_config(run.config).network


def test_a_site_that_comes_back_in_time_costs_nothing(make_hall, three_sites, as_simulated):
    hall = make_hall()
    hall.connected = {"us-a", "mr-a", "us-b"}
    assert hall.job("us-a", "mr-a") == ("next", "us-b came back")
    assert hall.job("us-a", "mr-a", "us-b")[0] == "finished"
    assert as_simulated(hall.run) == as_simulated(three_sites)


def test_who_stays_away_is_not_waited_for_beyond_the_deadline(make_hall):
    hall = make_hall("us-a", "us-b", "mr-a", network={"quorum": 0.5})
    hall.connected, hall.late = {"us-a", "mr-a"}, True
    assert hall.job("us-a", "mr-a")[0] == "finished"
    rounds = [text for text in hall.told("round") if "without us-b" in text]
    assert len(rounds) == 3
    assert set(hall.run.personal_models()) == {"us-a", "mr-a"}


def test_a_modality_without_quorum_does_not_hold_up_the_others(make_hall):
    hall = make_hall(network={"quorum": 1.0})
    hall.connected, hall.late = {"us-a", "mr-a"}, True
    assert hall.job("us-a", "mr-a")[0] == "finished"
    sites = {r["site"] for r in hall.run.load_rounds() if r["kind"] == "site"}
    assert sites == {"mr-a"}
    assert set(hall.run.server_models()) == {"MR"}


def test_a_site_that_was_away_goes_on_from_its_own_state(make_hall):
    hall = make_hall("us-a", "us-b", rounds=3, network={"rounds-per-job": 1})
    assert hall.job("us-a", "us-b")[0] == "next"
    hall.connected, hall.late = {"us-a"}, True
    assert hall.job("us-a")[0] == "next"
    hall.connected, hall.late = {"us-a", "us-b"}, False
    assert hall.job("us-a", "us-b")[0] == "next"
    assert hall.job("us-a", "us-b")[0] == "next"
    assert hall.job("us-a", "us-b")[0] == "finished"
    records = [r for r in hall.run.load_rounds() if r["kind"] == "site"]
    assert [r["round"] for r in records if r["site"] == "us-b"] == [1, 3, 4]
    back = next(r for r in records if r["site"] == "us-b" and r["round"] == 3)
    assert back["validation"]["own"] is not None
    assert back["validation"].keys() >= {"own", "model"}


def test_a_new_site_begins_with_its_modalitys_model(make_hall):
    hall = make_hall("us-a", "us-b", rounds=2, network={"rounds-per-job": 1})
    everybody = hall.stores
    hall.config = hall.config.model_copy(update={"sites": hall.config.sites[:1]})
    hall.everybody, hall.stores = True, {"us-a": everybody["us-a"]}
    assert hall.job("us-a")[0] == "next"
    hall.stores = everybody
    desk = hall.desk(["us-a", "us-b"])
    first = desk.job.server.task("us-b").download
    assert first.use == "replace"
    weights = desk.job.server.strategy.models(desk.job.server.before.updates())["US"]
    assert all(np.array_equal(first.arrays[name], weights[name]) for name in weights)
    for _ in range(4):
        if hall.job("us-a", "us-b")[0] == "finished":
            break
    assert set(hall.run.personal_models()) == {"us-a", "us-b"}


def test_if_every_site_fails_the_run_ends_with_the_first_cause(make_hall):
    hall = make_hall("us-a", "us-b")

    def broken(client):
        def answer(task, progress=None):
            raise FlamesError(f"the disk of {client.name} is full", "free some space")

        client.answer = answer
        return client

    hall.client_of = broken
    verdict, why = hall.job("us-a", "us-b")
    assert verdict == "failed"
    assert why in ("us-a: the disk of us-a is full", "us-b: the disk of us-b is full")


def test_what_failed_in_one_round_is_not_said_of_the_next(make_hall):
    hall = make_hall("us-a", "us-b")

    def fails_once(client):
        answer = client.answer

        def sometimes(task, progress=None):
            if client.name == "us-b" and task.server_round == 1:
                raise FlamesError("the loss became nan")
            return answer(task, progress)

        client.answer = sometimes
        return client

    hall.client_of = fails_once
    assert hall.job("us-a", "us-b")[0] == "finished"
    assert hall.told("trouble") == ["us-b: the loss became nan"]
    site = json.loads((hall.run.state / "desk.json").read_text())["sites"]["us-b"]
    assert (site["status"], site["reason"]) == ("here", "")


def test_one_site_that_fails_does_not_stop_the_others(make_hall):
    hall = make_hall("us-a", "us-b", "mr-a")

    def fail(task, progress=None):
        raise FlamesError("the loss became nan")

    def broken(client):
        if client.name == "us-b":
            client.answer = fail
        return client

    hall.client_of = broken
    assert hall.job("us-a", "us-b", "mr-a")[0] == "finished"
    assert any("us-b: the loss became nan" in text for text in hall.told("trouble"))


def test_a_silent_site_counts_as_away(make_hall, monkeypatch):
    hall = make_hall("us-a", "us-b", network={"silence": 2.0})
    hall.late = True
    hanging = threading.Event()

    def slow(client):
        answer = client.answer

        def after_a_while(task, progress=None):
            time.sleep(1.2)
            return answer(task, progress)

        client.answer = after_a_while
        return client

    hall.client_of = slow

    def line(site, send):
        def speak(topic, message):
            if site == "us-b" and topic != "hello" and hanging.is_set():
                return None
            if site == "us-b" and topic == "hello":
                hanging.set()
            return send(topic, message)

        return speak

    hall.line = line
    monkeypatch.setattr("flames.federation.network.station.UNREACHABLE_SECONDS", 1.0)
    assert hall.job("us-a", "us-b")[0] == "finished"
    assert "us-b gives no sign of life" in hall.told("silent")


REFUSED = {
    "another version": {"flames": "0.0.0"},
    "another protocol": {"protocol": 0},
    "another configuration": {"config": "0" * 64},
    "another modality": {"modality": "CT"},
    "another organ": {"organ": "liver"},
    "nothing to train on": {"cases": {"train": 0, "val": 1, "test": 1}},
    "cases that nobody can count": {"cases": {"train": 10**400, "val": 1, "test": 1}},
    "no cases": {"cases": {}},
    "a terminal's escape": {"organ": "\x1b[2J"},
    "a fingerprint without numbers": {"fingerprint": {"contrast": [0.0, float("inf"), 1.0]}},
    "a fingerprint of more cases": {"fingerprint": {"cases": 10_000_000}},
    "names of more cases than it has": {
        "splits": {"train": list("abcdefgh"), "val": [], "test": []}
    },
    "another fingerprint": {"fingerprint": {"modality": "MR"}},
}


@pytest.mark.parametrize("change", REFUSED.values(), ids=REFUSED)
def test_a_site_that_does_not_fit_is_refused_with_a_reason(change, make_hall):
    hall = make_hall("us-a", "us-b")
    desk = hall.desk(["us-a", "us-b"])
    station = hall.station("us-a", desk)
    facts = facts_of(station)
    said = {k: facts[k] | v if k in ("fingerprint", "splits") else v for k, v in change.items()}
    answer, _ = decode(desk.handle("us-a", "hello", encode({"facts": facts | said})))
    assert answer["do"] == "leave"
    assert answer["reason"]
    assert hall.told("refused") == [f"us-a does not take part: {answer['reason']}"]


def facts_of(station):
    from flames.federation.network.facts import facts_of as facts

    return facts(station.store, station.config_text, show_cases=True).model_dump(mode="json")


def test_a_store_that_changed_is_refused(make_hall, site_stores):
    hall = make_hall("us-a", "us-b", network={"rounds-per-job": 1})
    assert hall.job("us-a", "us-b")[0] == "next"
    hall.stores = hall.stores | {"us-b": site_stores["us-a"]}
    hall.job("us-a", "us-b")
    assert any("changed since the site first trained" in text for text in hall.told("refused"))


def split_anew(store):
    """Let two cases change sides, as another seed of the split would."""
    splits = store.splits
    train = (splits.test[0], *splits.train[1:])
    test = (splits.train[0], *splits.test[1:])
    return replace(store, splits=splits.model_copy(update={"train": train, "test": test}))


def seen_otherwise(store):
    """Prepare the same cases with another intensity window."""
    cases = tuple(c.model_copy(update={"intensity": (-1.0, 2.0)}) for c in store.info.cases)
    return replace(store, info=store.info.model_copy(update={"cases": cases}))


@pytest.mark.parametrize(
    ("change", "words"),
    [(split_anew, "2 of its cases are on another side"), (seen_otherwise, "intensity window")],
)
def test_a_site_notices_that_its_store_is_split_or_prepared_anew(make_hall, change, words):
    hall = make_hall("us-a", "us-b", network={"rounds-per-job": 1})
    assert hall.job("us-a", "us-b")[0] == "next"
    before = hall.stores
    hall.stores = before | {"us-b": change(before["us-b"])}
    assert hall.job("us-a", "us-b")[0] == "next"
    (told,) = hall.told("refused")
    assert words in told
    assert "bring it back as it was" in told
    names = [case.case_id for case in before["us-b"].info.cases]
    assert not any(name in told for name in names)
    last = [entry["purpose"] for entry in hall.log("us-b").read()][-1]
    assert last == "refuse"
    hall.stores = before  # brought back: the site comes in again
    while hall.job("us-a", "us-b")[0] == "next":
        pass
    assert set(hall.run.personal_models()) == {"us-a", "us-b"}


def test_a_store_may_change_until_the_site_first_trains(make_hall):
    hall = make_hall("us-a", "us-b", network={"rounds-per-job": 1})
    hall.policies = {"us-b": Policy(approval=True)}
    hall.late = True
    assert hall.job("us-a", "us-b")[0] == "next"
    hall.stores = hall.stores | {"us-b": split_anew(hall.stores["us-b"])}
    hall.decide("us-b", "approved")
    hall.job("us-a", "us-b")
    assert not hall.told("refused")


def test_a_site_does_not_begin_with_a_run_that_trained_on_its_test_cases(make_hall):
    hall = make_hall("us-a", "us-b", start=Path("earlier-run"), rounds=1)
    for site, store in (("us-a", hall.stores["us-a"]), ("us-b", split_anew(hall.stores["us-b"]))):
        note_store(hall.kit(site).state / "earlier-run", store)
    assert hall.job("us-a", "us-b") == ("finished", "the run is finished")
    (told,) = hall.told("refused")
    assert told.startswith("us-b does not take part: 1 test case was for training in earlier-run")
    assert set(hall.run.personal_models()) == {"us-a"}


def test_a_site_ends_with_its_model_of_an_earlier_run_where_that_clearly_leads(
    make_hall, monkeypatch
):
    hall = make_hall("us-a", "us-b", start=Path("earlier-run"), rounds=1)
    network = make_model(hall.config.model)
    own = model_arrays(network)
    for site in ("us-a", "us-b"):
        place = hall.kit(site).state / "earlier-run" / "finished" / "personal.safetensors"
        save_arrays(place, own)
    real = Client._scored

    def scored(client, network, candidate):
        found = real(client, network, candidate)
        score = 0.9 if (client.name, candidate.name) == ("us-a", "earlier") else 0.5
        return replace(found, score=score)

    monkeypatch.setattr(Client, "_scored", scored)
    assert hall.job("us-a", "us-b") == ("finished", "the run is finished")
    kept = {
        site: load_arrays(hall.kit(site).state / "hall" / "finished" / "personal.safetensors")
        for site in ("us-a", "us-b")
    }
    np.testing.assert_equal(kept["us-a"], own)
    assert any((kept["us-b"][name] != own[name]).any() for name in own)
    rounds = {r["site"]: r["best_round"] for r in hall.run.load_rounds() if r["kind"] == "site"}
    assert rounds == {"us-a": 0, "us-b": 2}


def test_who_is_no_site_of_the_run_is_sent_away(make_hall):
    hall = make_hall("us-a")
    desk = hall.desk(["us-a"])
    for site in ("mr-a", "nobody", ""):
        answer, _ = decode(desk.handle(site, "ask", encode({})))
        assert answer["do"] == "leave"


def test_a_desk_whose_run_was_begun_by_the_simulation_goes_on(make_hall, tmp_path):
    hall = make_hall("us-a")
    assert hall.job("us-a")[0] == "finished"
    again = simulate(hall.config, tmp_path / "simulated")
    assert hall.run.cases.read_bytes() == again.cases.read_bytes()


def test_who_is_revoked_in_the_middle_of_a_run_leaves_it_at_once(make_hall):
    hall = make_hall()

    def line(site, send):
        def until_revoked(topic, message):
            answer = send(topic, message)
            if site == "us-b" and topic == "update" and hall.news is None:
                hall.news = hall.record.changed("us-b", revoked="today")
            return answer

        return until_revoked

    hall.line = line
    assert hall.job("us-a", "us-b", "mr-a")[0] == "finished"
    assert hall.told("update").count("us-b answered round 1") == 1
    assert not any("us-b answered" in text for text in hall.told("update")[3:])
    assert "us-b does not take part: revoked today" in hall.told("refused")
    house = Journal(hall.folder / "server.jsonl").read()
    assert [event["who"] for event in house if event["why"] == "run"][:1] == ["us-b"]


ODD = {
    "update": lambda facts: facts["reply"].update(seconds={}),
    "scores": lambda facts: facts["rows"][0].update(dice="x"),
}


@pytest.mark.parametrize("topic", ODD)
def test_one_odd_value_of_one_site_ends_nobody_elses_run(topic, make_hall):
    hall = make_hall("us-a", "us-b", rounds=1)

    def line(site, send):
        def change(said, message):
            if (site, said) == ("us-b", topic):
                facts, sections = decode(message)
                ODD[topic](facts)
                message = encode(facts, sections)
            return send(said, message)

        return change

    hall.line = line
    assert hall.job("us-a", "us-b")[0] == "finished"
    assert all("a message of us-b is set aside" in text for text in hall.told("aside"))
    assert {row["site"] for row in hall.run.load_cases()} == {"us-a"}
    assert hall.run.load_summary()["sites"].keys() == {"us-a", "us-b"}


def test_what_nobody_expected_of_a_message_is_told_and_sets_it_aside(make_hall):
    hall = make_hall("us-a")
    desk = hall.desk(["us-a"])
    desk.job.seats["us-a"].status = "here"
    desk.job.server.dispatch = lambda *_: {}["nothing"]
    answer, _ = decode(desk.handle("us-a", "ask", encode({})))
    assert answer["do"] == "again"
    assert hall.told("aside") == [
        "a message of us-a is set aside: unexpected KeyError in ask",
    ]
    assert desk.step() is None


@pytest.mark.parametrize("damage", ["{", "[]", '{"rows": [{"dice": "x"}]}'])
def test_scores_that_were_damaged_on_the_disk_are_left_out(damage, make_hall):
    hall = make_hall("us-a", "us-b", rounds=1)
    assert hall.job("us-a", "us-b")[0] == "finished"
    (hall.run.state / "scores" / "us-b.json").write_text(damage)
    desk = hall.desk(["us-a", "us-b"])
    for seat in desk.job.seats.values():
        seat.status = "here"
    assert desk.step() == ("finished", "the run is finished")
    assert {row["site"] for row in hall.run.load_cases()} == {"us-a"}
    (told,) = hall.told("server-trouble")
    assert told.startswith("the scores of us-b cannot be used and stay out of the run folder")


def test_scores_before_the_end_are_set_aside(make_hall):
    hall = make_hall("us-a")
    desk = hall.desk(["us-a"])
    desk.job.seats["us-a"].status = "here"
    message = encode({"rows": [], "calibration": [], "seconds": 1.0})
    assert decode(desk.handle("us-a", "scores", message))[0]["do"] == "again"
    assert not desk.job.scores.has("us-a")


def test_words_of_a_site_cannot_steer_a_terminal(make_hall):
    hall = make_hall("us-a")
    desk = hall.desk(["us-a"])
    words = "\x1b]0;owned\x07 \u202e\ud800"
    for topic in ("failed", "waits", "leave", "refuse"):
        desk.handle("us-a", topic, encode({"cause": words, "reason": words}))
        assert desk.job.seats["us-a"].reason.isprintable()
    desk.step()
    assert all(event["text"].isprintable() for event in hall.events)


@pytest.mark.parametrize(
    ("topic", "section", "reason"),
    [
        ("progress", "weights", "not asked for"),
        ("update", "kept", "not asked for"),
        ("update", "weights", "larger than"),
        ("scores", "kept", "larger than"),
    ],
)
def test_a_small_message_cannot_fill_the_servers_memory(make_hall, topic, section, reason):
    hall = make_hall("us-a")
    desk = hall.desk(["us-a"])
    model = desk.job.server.start("US")
    many = 8 * sum(array.size for array in model.values())
    bomb = encode({"round": None}, {section: {"w": np.zeros(many, np.float32)}})
    assert len(bomb) < many
    answer, _ = decode(desk.handle("us-a", topic, bomb))
    assert answer["do"] == "again"
    assert reason in answer["reason"]


OTHER_STORES = {
    "more cases": {"cases": {"train": 40}, "fingerprint": {"cases": 40}, "splits": None},
    "other cases without tumour": {"tumour_free": {"val": 1}},
    "another split": {"splits": {"train": ["x1", "x2", "x3", "x4"]}},
}


@pytest.mark.parametrize("change", OTHER_STORES.values(), ids=OTHER_STORES)
def test_what_a_site_said_of_its_store_it_does_not_change_in_a_run(change, make_hall):
    """Its cases are its weight in every mean, and it may have trained on what it tests on now."""
    hall = make_hall("us-a", "us-b")
    desk = hall.desk(["us-a", "us-b"])
    facts = facts_of(hall.station("us-a", desk))
    assert decode(desk.handle("us-a", "hello", encode({"facts": facts})))[0]["do"] == "go"
    assert decode(desk.handle("us-a", "hello", encode({"facts": facts})))[0]["do"] == "go"
    quiet = facts | {"splits": None}  # as its policy may say from now on
    said = {k: facts[k] | v if isinstance(v, dict) else v for k, v in change.items()}
    for later in (desk, hall.desk(["us-a", "us-b"])):
        answer, _ = decode(later.handle("us-a", "hello", encode({"facts": facts | said})))
        assert answer["do"] == "leave"
        assert "its store changed since it took part in this run" in answer["reason"]
    assert decode(hall.desk(["us-a"]).handle("us-a", "hello", encode({"facts": quiet})))[0] == {
        "do": "go"
    }

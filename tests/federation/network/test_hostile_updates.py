"""Sites that send what schema and shapes allow and no honest site would: they are set aside."""

from __future__ import annotations

import numpy as np
import pytest

from flames.federation.network.journal import Journal
from flames.federation.network.messages import decode, encode
from flames.federation.network.replies import GRID
from flames.reports.html import write_report

pytestmark = pytest.mark.usefixtures("small_network")


def play(hall, change):
    """Run a job, with ``change`` done to every update of us-b; return its verdict."""

    def line(site, send):
        def changed(topic, message):
            if site == "us-b" and topic == "update":
                message = encode(*change(*decode(message)))
            return send(topic, message)

        return changed

    hall.line = line
    return hall.job("us-a", "us-b")


def with_control_variate(facts, sections):
    """Send one more array, as large as the weights that it is called after."""
    weights = sections["weights"]
    name = max(weights, key=lambda name: weights[name].size)
    weights[f"control:{name}"] = np.zeros_like(weights[name])
    return facts | {"letters": "p" * len(weights)}, sections


def without_control_variate(facts, sections):
    """Leave one control variate out."""
    weights = sections["weights"]
    weights.pop(min(weights))
    return facts | {"letters": "p" * len(weights)}, sections


@pytest.mark.parametrize(
    ("strategy", "change"),
    [
        ("flames", with_control_variate),
        ("fedavg", with_control_variate),
        ("scaffold", without_control_variate),
    ],
)
def test_arrays_that_a_strategy_does_not_have_end_no_run(make_hall, strategy, change):
    hall = make_hall("us-a", "us-b", strategy={"name": strategy})
    assert play(hall, change) == ("finished", "the run is finished")
    assert {text.split()[3] for text in hall.told("aside")} == {"us-b"}
    assert {r["site"] for r in hall.run.load_rounds() if r["kind"] == "site"} == {"us-a"}


def with_curves(*, tumours, silenced):
    """Return a change that puts curves into a reply, each threshold's counts alike."""

    def change(facts, sections):
        row = [0.0, 0, tumours, silenced, 5, silenced]
        reply = facts["reply"] | {"curves": dict.fromkeys(facts["reply"]["curves"], [row] * GRID)}
        return facts | {"reply": reply}, sections

    return change


@pytest.mark.parametrize(("tumours", "silenced"), [(5, 5), (0, 9)])
def test_presence_curves_that_no_cases_have_end_no_run(make_hall, tumours, silenced):
    hall = make_hall("us-a", "us-b")
    change = with_curves(tumours=tumours, silenced=silenced)
    assert play(hall, change) == ("finished", "the run is finished")
    assert all("its reply holds what cannot be, at curves" in t for t in hall.told("aside"))
    assert len(hall.told("aside")) == 3 * 3
    assert {r["site"] for r in hall.run.load_rounds() if r["kind"] == "site"} == {"us-a"}


@pytest.mark.parametrize(
    ("claim", "words"),
    [
        ({"num_examples": 10_000_000}, "counts other cases than when it joined"),
        ({"validation_cases": 10_000_000}, "counts other cases than when it joined"),
        ({"best_round": 99}, "keeps weights of round 99, still to come"),
        ({"validation": {"trained": float("nan")}}, "cannot be, at validation.trained"),
        ({"best": float("inf")}, "cannot be, at best"),
        ({"best": 1.5}, "cannot be, at best"),
    ],
)
def test_counts_and_scores_that_cannot_be_are_not_believed(make_hall, claim, words):
    hall = make_hall("us-a", "us-b", rounds=1)

    def change(facts, sections):
        return facts | {"reply": facts["reply"] | claim}, sections

    assert play(hall, change) == ("finished", "the run is finished")
    assert all(words in text for text in hall.told("aside"))
    assert {r["site"] for r in hall.run.load_rounds() if r["kind"] == "site"} == {"us-a"}


@pytest.mark.parametrize("site", ["us-b", "us-z"])
def test_a_site_that_never_stops_to_speak_cannot_fill_the_journals(make_hall, site):
    hall = make_hall("us-a", "us-b", rounds=1)
    desk = hall.desk(["us-a", "us-b"])
    for n in range(500):
        for topic in ("nothing", "failed", "waits", "refuse", "leave"):
            desk.handle(site, topic, encode({"cause": f"{n} " * 999, "reason": f"{n} " * 999}))
    lines = [event for event in hall.events if event.get("site") == site]
    assert len(lines) == 50
    assert hall.told("too-many") == [f"{site} caused 50 lines in round 1: no more are written"]
    assert sum(len(path.read_bytes()) for path in hall.folder.rglob("*.jsonl")) < 100_000
    assert hall.job("us-a", "us-b")[0] == "finished"


def huge(facts, sections):
    """Send weights that are numbers, and of which no network makes any."""
    for array in sections["weights"].values():
        if array.dtype == np.float32:
            array.reshape(-1)[::2] = -3.3e38
            array.reshape(-1)[1::2] = 3.3e38
    return facts, sections


def test_a_server_model_that_one_site_spoilt_takes_nobody_elses_result(make_hall):
    hall = make_hall("us-a", "us-b", rounds=2)
    assert play(hall, huge) == ("finished", "the run is finished")
    assert {row["model"] for row in hall.run.load_cases()} == {"personal:us-a", "personal:us-b"}
    assert set(hall.run.personal_models()) == {"us-a", "us-b"}
    assert sorted(hall.told("scored")) == [
        f"us-{site} sent its scores, without those of server:US" for site in "ab"
    ]
    write_report(hall.run)
    words = "a server's model is left out of the scores: model server:US gives probabilities that"
    assert words in Journal(hall.kit("us-a").events).path.read_text()

from __future__ import annotations

import json
import threading
import time
from datetime import datetime

import numpy as np
import pytest

from flames.config import dump_config
from flames.errors import FlamesError
from flames.federation.exchange import Task
from flames.federation.network.journal import Journal
from flames.federation.network.messages import decode, encode
from flames.federation.network.policy import Policy, load_policy
from flames.federation.network.score_rows import Scorer, check_scores
from flames.metrics.tables import summary_tables
from flames.reports.html import write_report
from flames.strategies import Download

pytestmark = pytest.mark.usefixtures("small_network")


def test_a_policy_file_is_read_and_what_is_unknown_is_refused(tmp_path):
    file = tmp_path / "policy.toml"
    file.write_text('strategies = ["flames"]\nmost-rounds = 9\nworking-hours = "18:00-07:00"\n')
    policy = load_policy(file)
    assert (policy.strategies, policy.most_rounds) == (("flames",), 9)
    assert policy.models == Policy().models
    for text, words in (
        ("most-round = 9", "did you mean 'most-rounds'"),
        ('strategies = ["flame"]', "strategies.0"),
        ('working-hours = "7-18"', "18:00-07:00"),
        ('working-hours = "07:00-07:00"', "two different"),
        ("approval = ", "not valid TOML"),
        (
            "fewest-local-steps = 20\nmost-local-steps = 10",
            "fewest-local-steps = 20 is above most-local-steps = 10",
        ),
        ("fewest-local-steps = 1001", "above most-local-steps = 1000"),
        ("strategies = []", "strategies: name at least one"),
        ("models = []", "models: name at least one"),
    ):
        file.write_text(text)
        with pytest.raises(FlamesError) as error:
            load_policy(file)
        assert words in str(error.value)
    with pytest.raises(FlamesError, match="cannot read"):
        load_policy(tmp_path / "none.toml")
    assert load_policy(None) == Policy()


LIMITS = {
    "strategies": ({"strategies": ("local",)}, "strategy 'flames'"),
    "models": ({"models": ("student",)}, "model 'unet'"),
    "most-rounds": ({"most_rounds": 1}, "2 rounds"),
    "most-local-steps": ({"most_local_steps": 1}, "local steps"),
    "fewest-local-steps": (
        {"fewest_local_steps": 3},
        "rounds of 2 local steps (fewest-local-steps = 3)",
    ),
    "relay": ({"relay": False}, "handing weights on to another site (relay = false)"),
    "moments": ({"moments": False}, "handing the optimiser's moments on (moments = false)"),
}


@pytest.mark.parametrize(("limit", "words"), LIMITS.values(), ids=LIMITS)
def test_what_the_policy_does_not_allow_is_refused_and_the_others_go_on(make_hall, limit, words):
    hall = make_hall("us-a", "us-b", strategy={"relay": 8})
    hall.policies = {"us-b": Policy(**limit)}
    assert hall.job("us-a", "us-b")[0] == "finished"
    assert [words in text for text in hall.told("refused")] == [True]
    assert set(hall.run.personal_models()) == {"us-a"}
    left = {entry["purpose"] for entry in hall.log("us-b").read()}
    assert left <= {"ask", "progress", "refuse"}


def refused_of(hall, site, *answers):
    """Return what a site tells a server that gives these answers, whatever it is asked."""
    told = []
    given = iter(answers)

    def line(_site, _send):
        def lie(topic, message):
            facts, _ = decode(message)
            told.append((topic, facts.get("reason")))
            return encode(*next(given, ({"do": "end", "reason": ""},)))

        return lie

    hall.line = line
    hall.station(site, hall.desk([site])).run()
    return told


@pytest.mark.parametrize("word", ["hello", "train", "score"])
def test_a_server_cannot_go_round_the_policy(make_hall, word, tmp_path):
    hall = make_hall("us-a")
    hall.policies = {"us-a": Policy(strategies=("local",))}

    def never(client):
        client.answer = client.kept_weights = None
        return client

    hall.client_of = never
    told = refused_of(hall, "us-a", ({"do": word, "round": 1},))
    assert [topic for topic, _ in told if topic != "progress"] == ["ask", "refuse"]
    assert "strategy 'flames'" in told[-1][1]


@pytest.mark.parametrize("name", ["../../elsewhere", "elsewhere\n"])
def test_a_server_cannot_choose_where_a_site_writes(make_hall, name):
    hall = make_hall("us-a")
    models = {name: {"w": np.zeros(1, np.float32)}}
    told = refused_of(hall, "us-a", ({"do": "score", "round": 2, "silence": {}}, models))
    assert told[-1][0] == "refuse"
    assert "names no file" in told[-1][1]
    assert not list(hall.folder.rglob("elsewhere*"))


def test_a_small_answer_cannot_fill_a_sites_memory(make_hall, monkeypatch):
    monkeypatch.setattr("flames.federation.network.station.UNREACHABLE_SECONDS", 0.0)
    hall = make_hall("us-a")
    size = sum(array.size for array in hall.desk(["us-a"]).job.server.start("US").values())
    bomb = {"arrays": {"w": np.zeros(13 * size, np.float32)}}
    told = refused_of(hall, "us-a", ({"do": "wait"}, bomb), ({"do": "wait"}, bomb))
    assert {topic for topic, _ in told} <= {"ask", "progress"}
    said = [e["text"] for e in Journal(hall.kit("us-a").events).read() if e["event"] == "damaged"]
    assert said
    assert all("its arrays are larger than" in text for text in said)


@pytest.mark.parametrize(
    ("number", "steps", "total", "moments"),
    [
        (1, (0, 9), 9, False),
        (1, (0, 2), 900, False),
        (4, (0, 1), 4, False),
        (0, (0, 1), 4, False),
        (1, (0, 2), 4, True),
    ],
)
def test_a_round_that_asks_for_more_than_its_configuration_is_refused(
    make_hall, number, steps, total, moments
):
    hall = make_hall("us-a", rounds=2, strategy={"name": "flames", "relay": 1})
    config = hall.config
    assert config.rounds * config.training.local_steps < 9
    task = Task(number, range(*steps), total, Download(None, use="replace", wants_moments=moments))
    assert Policy().refuses_task(task, config, "us-a")
    facts = {"do": "train", "round": number, "steps": steps, "total_steps": total}
    facts |= {"use": "replace", "alpha": None, "peers": 0, "own_share": 1.0, "own_head": False}
    facts |= {"held": 0, "letters": {}, "wants_moments": moments}
    told = refused_of(hall, "us-a", (facts,))
    assert told[-1][0] == "refuse"
    assert "does not allow" in told[-1][1]


def test_a_shorter_round_than_the_site_allows_is_refused_whatever_was_agreed(make_hall):
    """A single step's update is a gradient, which can show the images that it is of."""
    config = make_hall("us-a", rounds=2, strategy={"name": "flames", "relay": 1}).config
    assert config.training.local_steps == 2
    policy = Policy(fewest_local_steps=2)
    assert policy.refuses(config) is None
    for steps, words in ((range(2), None), (range(4, 4), None), (range(2, 3), "1 local step (few")):
        task = Task(1, steps, 4, Download(None, use="replace"))
        found = policy.refuses_task(task, config, "us-a")
        assert found == words or words in found


def test_the_shortest_round_counts_not_the_mean(make_config):
    """The first rounds may take more steps than others, and the others then take fewer."""
    steps = {"local-steps": 5}
    config = make_config("us-a", rounds=10, training=steps, strategy={"first-steps": 8})
    assert Policy(fewest_local_steps=4).refuses(config) is None
    assert "rounds of 4 local steps" in Policy(fewest_local_steps=5).refuses(config)
    alike = make_config("us-a", rounds=10, training=steps, strategy={"name": "modality"})
    assert Policy(fewest_local_steps=5).refuses(alike) is None


@pytest.mark.parametrize(("name", "behind"), [("ditto", 3), ("apfl", 3), ("fedrep", 2)])
def test_only_steps_behind_the_weights_that_leave_count(make_config, name, behind):
    """Of five steps Ditto and APFL give two to a model that stays, FedRep three to the decoder."""
    steps = {"local-steps": 5}
    config = make_config("us-a", rounds=4, training=steps, strategy={"name": name})
    task = Task(2, range(5, 10), 20, Download(None, use="replace"))
    for asked in (
        Policy(fewest_local_steps=behind).refuses(config),
        Policy(fewest_local_steps=behind).refuses_task(task, config, "us-a"),
    ):
        assert asked is None
    policy = Policy(fewest_local_steps=behind + 1)
    words = f"5 local steps, of which {behind} train what leaves"
    assert words in policy.refuses(config)
    assert words in policy.refuses_task(task, config, "us-a")


def go(hall, *sites):
    """Start one job and return what waits for its end."""
    found = []
    thread = threading.Thread(target=lambda: found.append(hall.job(*sites)), daemon=True)
    thread.start()

    def end():
        thread.join(timeout=60)
        return found[0]

    return end


def wait_for(what):
    until = time.monotonic() + 30
    while not what():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_run_waits_for_approval_and_then_is_a_simulation(make_hall, three_sites, as_simulated):
    hall = make_hall()
    hall.policies = {"us-b": Policy(approval=True)}
    end = go(hall, "us-a", "us-b", "mr-a")
    wait_for(lambda: hall.told("waits"))
    assert hall.told("waits") == ["us-b waits: a person at the site must approve the run"]
    wait_for(lambda: len(hall.told("update")) == 2)
    assert {e["purpose"] for e in hall.log("us-b").read()} <= {"ask", "progress", "waits"}
    hall.decide("us-b", "approved")
    assert end()[0] == "finished"
    assert as_simulated(hall.run) == as_simulated(three_sites)


def test_an_approval_is_of_one_configuration(make_hall):
    hall = make_hall("us-a", "us-b", network={"quorum": 0.5})
    hall.policies = {"us-b": Policy(approval=True)}
    station = hall.station("us-b", hall.desk(["us-b"]))
    hall.decide("us-b", "approved")
    assert station.guard.waits(None) is None
    changed = hall.config.model_copy(update={"rounds": 1})
    hall.config = changed
    station = hall.station("us-b", None)
    assert dump_config(changed) != dump_config(make_hall().config)
    assert station.guard.waits(None).what == "approval"


def test_a_denied_run_goes_on_without_the_site(make_hall):
    hall = make_hall("us-a", "us-b", "mr-a")
    hall.policies = {"us-b": Policy(approval=True)}
    end = go(hall, "us-a", "us-b", "mr-a")
    wait_for(lambda: hall.told("waits"))
    hall.decide("us-b", "denied", reason="not this organ")
    assert end()[0] == "finished"
    assert hall.told("refused") == [
        "us-b does not take part: a person at the site denied the run: not this organ"
    ]
    assert set(hall.run.personal_models()) == {"us-a", "mr-a"}


def test_a_run_that_is_denied_ends_a_round_that_goes_on(make_hall):
    hall = make_hall("us-a", "us-b", training={"local-steps": 4})
    steps = []

    def watched(client):
        answer = client.answer

        def denied_meanwhile(task, progress):
            def step(done, loss):
                steps.append(done)
                hall.decide("us-b", "denied")
                progress(done, loss)

            return answer(task, step)

        if client.name == "us-b":
            client.answer = denied_meanwhile
        return client

    hall.client_of = watched
    assert hall.job("us-a", "us-b")[0] == "finished"
    assert steps == [1]
    assert hall.told("refused") == ["us-b does not take part: a person at the site denied the run"]
    assert "update" not in {entry["purpose"] for entry in hall.log("us-b").read()}


def test_if_everybody_waits_the_job_waits_too(make_hall):
    hall = make_hall("us-a", "us-b")
    hall.late = True
    hall.policies = dict.fromkeys(("us-a", "us-b"), Policy(approval=True))
    end = go(hall, "us-a", "us-b")
    wait_for(lambda: len(hall.told("waits")) == 2)
    time.sleep(0.3)
    hall.decide("us-a", "approved")
    hall.decide("us-b", "approved")
    assert end()[0] == "finished"


def test_outside_its_hours_a_site_waits(make_hall):
    hall = make_hall("us-a", "us-b")
    hall.policies = {"us-b": Policy(working_hours="18:00-07:00")}
    hall.clock = lambda: datetime(2030, 1, 1, hall.hour, 30)
    hall.hour = 12
    end = go(hall, "us-a", "us-b")
    wait_for(lambda: hall.told("waits"))
    hall.hour = 23
    assert end()[0] == "finished"
    assert hall.told("waits") == ["us-b waits: it works at 18:00-07:00 only"]
    assert set(hall.run.personal_models()) == {"us-a", "us-b"}


def test_a_site_trains_only_in_company(make_hall):
    hall = make_hall("us-a", "us-b", "mr-a")
    hall.policies = {name: Policy(fewest_peers=1) for name in ("us-a", "us-b", "mr-a")}
    assert hall.job("us-a", "us-b", "mr-a")[0] == "finished"
    assert hall.told("refused") == [
        "mr-a does not take part: its policy wants 1 peers of its modality (fewest-peers), "
        "the run has 0"
    ]
    assert set(hall.run.personal_models()) == {"us-a", "us-b"}


def test_a_site_waits_for_company_that_may_come(make_hall):
    hall = make_hall("us-a", "us-b")
    hall.policies = {"us-a": Policy(fewest_peers=1), "us-b": Policy(approval=True)}
    end = go(hall, "us-a", "us-b")
    wait_for(lambda: len(hall.told("waits")) == 2)
    hall.decide("us-b", "approved")
    assert end()[0] == "finished"
    assert set(hall.run.personal_models()) == {"us-a", "us-b"}


def test_hours_that_are_spent_are_spent(make_hall):
    hall = make_hall("us-a", "us-b")
    hall.policies = {"us-b": Policy(most_hours=1e-7)}
    assert hall.job("us-a", "us-b")[0] == "finished"
    assert "(most-hours), which are spent" in hall.told("refused")[0]


def test_a_message_that_is_too_large_does_not_leave(make_hall):
    hall = make_hall("us-a", "us-b")
    hall.policies = {"us-b": Policy.model_construct(**Policy().model_dump() | {"most_bytes": 9000})}
    assert hall.job("us-a", "us-b")[0] == "finished"
    assert "lets no message of" in hall.told("refused")[0]
    assert "update" not in {entry["purpose"] for entry in hall.log("us-b").read()}


def test_only_means_leave_where_the_policy_says_so(make_hall):
    hall = make_hall()
    sent = []

    def line(site, send):
        def note(topic, message):
            if site == "us-b":
                sent.append(decode(message)[0])
            return send(topic, message)

        return note

    hall.line = line
    hall.policies = {"us-b": Policy(scores="aggregates", personal_weights=False)}
    assert hall.job("us-a", "us-b", "mr-a")[0] == "finished"
    cases = [case.case_id for side in ("train", "val", "test") for case in split(hall, side)]
    assert cases
    assert not any(case in str(facts) for facts in sent for case in cases)
    assert {row["site"] for row in hall.run.load_cases()} == {"us-a", "mr-a"}
    assert set(hall.run.personal_models()) == {"us-a", "mr-a"}
    summary = hall.run.load_summary()
    scores = {(s["model"], s["site"]): s for s in summary["scores"]}
    assert scores["personal:us-b", "us-b"]["dice"]["mean"] is not None
    mean = next(m for m in summary["means"] if (m["model_kind"], m["group"]) == ("personal", "US"))
    parts = [scores[f"personal:{site}", site]["dice"]["mean"] for site in ("us-a", "us-b")]
    assert mean["dice"]["mean"] == pytest.approx(sum(parts) / 2)
    assert mean["dice"]["low"] is None
    page = write_report(hall.run).read_text()
    assert "By the policy of us-b only means" in page


def split(hall, side):
    return hall.stores["us-b"].split(side)


def test_means_of_given_scores_are_those_of_their_rows(make_hall):
    hall = make_hall()
    assert hall.job("us-a", "us-b", "mr-a")[0] == "finished"
    rows = hall.run.load_cases()
    whole = summary_tables(rows, seed=1, resamples=100)
    given = [score for score in whole["scores"] if score["site"] == "us-b"]
    rest = [row for row in rows if row["site"] != "us-b"]
    parts = summary_tables(rest, seed=1, resamples=100, given=given)
    assert parts["scores"] == whole["scores"]
    for mine, theirs in zip(parts["means"], whole["means"], strict=True):
        assert (mine["group"], mine["sites"]) == (theirs["group"], theirs["sites"])
        for measure in ("dice", "iou", "hd95", "nsd", "volume_error"):
            assert mine[measure]["n"] == theirs[measure]["n"]
            assert mine[measure]["mean"] == pytest.approx(theirs[measure]["mean"])
    scorer = Scorer("us-b", "US", "organ", "US", test_cases=3)
    sent = {"rows": [], "calibration": [], "seconds": 1.5, "aggregates": given}
    assert check_scores(sent, scorer) == sent
    kept = json.loads((hall.run.state / "scores" / "us-b.json").read_text(encoding="utf-8"))
    doubled = summary_tables(rows, seed=1, resamples=100, given=given)
    assert len(doubled["scores"]) > len(whole["scores"]), "the site would count twice"
    with pytest.raises(FlamesError, match="both rows and a mean of one model"):
        check_scores(kept | {"aggregates": given}, scorer)
    many = given[0]["dice"] | {"mean": 2.0, "high": 2.5}
    for wrong in (
        {"case_id": "x"},
        {"cases": 0},
        {"cases": 4},
        {"missed": 4},
        {"presence": given[0]["presence"] | {"with_tumour": 4}},
        {"dice": given[0]["dice"] | {"n": 4}},
        {"dice": {"mean": 2}},
        {"dice": many},
        {"site": "us-a"},
        {"model": "personal:us-a"},
        {"model": "server:MR"},
        {"modality": "MR"},
        given[1],
    ):
        with pytest.raises(FlamesError, match="its"):
            check_scores(sent | {"aggregates": [given[0] | wrong, given[1]]}, scorer)

"""Sites that hand a model on over messages: whose turn it is, and who holds nobody up."""

from __future__ import annotations

import threading

import pytest

from flames.federation.network.job_state import JobState
from flames.federation.network.outgoing import OutgoingLog
from flames.federation.network.run_state import RunState
from flames.federation.simulation import simulate

pytestmark = pytest.mark.usefixtures("small_network")
SITES = ("us-a", "us-b", "us-c", "mr-a")
RELAY = {"relay": 8}


@pytest.fixture(scope="module")
def four_rounds(tmp_path_factory, make_config):
    run = simulate(
        make_config(*SITES, rounds=4, strategy=RELAY), tmp_path_factory.mktemp("simulated") / "run"
    )
    chosen = [r for r in run.load_rounds() if r["kind"] == "site" and r["modality"] == "US"]
    handed = {(r["round"], r["site"]) for r in chosen if r["alpha"] == 0}
    assert handed == {(3, "us-b"), (3, "us-c"), (4, "us-a"), (4, "us-b"), (4, "us-c")}
    return run


def test_a_relay_over_messages_is_a_simulation_bit_for_bit(make_hall, four_rounds, as_simulated):
    hall = make_hall(*SITES, rounds=4, strategy=RELAY)
    assert hall.job(*SITES)[0] == "finished"
    assert as_simulated(hall.run) == as_simulated(four_rounds)


def test_moments_travel_with_weights_and_the_log_says_so(make_hall, four_rounds, as_simulated):
    """Rounds of two steps: moments leave in the third round, and nobody needs them after that."""
    hall = make_hall(*SITES, rounds=4, strategy=RELAY)
    assert hall.job(*SITES)[0] == "finished"
    left = {
        (site, entry["round"])
        for site in SITES
        for entry in OutgoingLog(hall.kit(site).outgoing).read()
        if "the optimiser's moments" in entry["holds"]
    }
    assert left == {("us-a", 3), ("us-b", 3), ("us-c", 3)}
    for run in (hall.run, four_rounds):
        rows = [r for r in run.load_rounds() if r["kind"] == "site"]
        sizes = {(r["round"], r["site"]): r["bytes_up"] for r in rows}
        assert 2.5 < sizes[3, "us-a"] / sizes[2, "us-a"] < 3.5


@pytest.mark.parametrize("wire", [{}, {"encoding": "int8", "delta": True}])
def test_rounds_that_nobody_judges_travel_as_in_a_simulation(
    make_hall, make_config, as_simulated, tmp_path, wire
):
    given = {
        "rounds": 6,
        "training": {"local-steps": 1, "validation-steps": 2},
        "strategy": RELAY | {"first-steps": 2},
        "wire": wire,
    }
    plain = simulate(make_config(*SITES, **given), tmp_path / "simulated")
    rows = [r for r in plain.load_rounds() if r["kind"] == "site"]
    assert {r["round"] for r in rows if not r["validation"]} == {5}
    hall = make_hall(*SITES, **given)
    assert hall.job(*SITES)[0] == "finished"
    assert as_simulated(hall.run) == as_simulated(plain)


def test_who_is_before_and_away_is_waited_for(make_hall, four_rounds, as_simulated):
    hall = make_hall(*SITES, rounds=4, strategy=RELAY, network={"rounds-per-job": 2})
    assert hall.job(*SITES) == ("next", "the job did its rounds")
    hall.connected = set(SITES)
    assert hall.job("us-b", "us-c", "mr-a") == ("next", "us-a came back")
    verdicts = [hall.job(*SITES)[0] for _ in range(2)]
    assert verdicts == ["next", "finished"]
    assert as_simulated(hall.run) == as_simulated(four_rounds)


def test_who_is_before_and_away_beyond_the_deadline_is_passed_over(make_hall):
    hall = make_hall(*SITES, rounds=4, strategy=RELAY, network={"rounds-per-job": 3})
    assert hall.job(*SITES)[0] == "next"
    hall.connected, hall.late = {"us-b", "us-c", "mr-a"}, True
    assert hall.job("us-b", "us-c", "mr-a")[0] == "finished"
    rounds = [r for r in hall.run.load_rounds() if r["kind"] == "site" and r["round"] == 4]
    assert {r["site"] for r in rounds} == {"us-b", "us-c", "mr-a"}
    assert next(r for r in rounds if r["site"] == "us-b")["alpha"] == 0, "from us-a's last update"


def test_who_fails_before_holds_nobody_up(make_hall):
    hall = make_hall(*SITES, rounds=3, strategy=RELAY, network={"rounds-per-job": 2})
    assert hall.job(*SITES)[0] == "next"

    def broken(client):
        if client.name == "us-a":

            def answer(task, progress=None):
                raise ValueError("the scanner's disk died")

            client.answer = answer
        return client

    hall.client_of = broken
    assert hall.job(*SITES)[0] == "next"
    rounds = [r for r in hall.run.load_rounds() if r["kind"] == "site" and r["round"] == 3]
    assert {r["site"] for r in rounds} == {"us-b", "us-c", "mr-a"}


def test_friends_train_in_turn_and_strangers_beside_them(make_hall):
    hall = make_hall(*SITES, rounds=3, strategy=RELAY)
    order, lock = [], threading.Lock()

    def watched(client):
        plain = client.answer

        def answer(task, progress=None):
            with lock:
                order.append((task.server_round, client.name, "begins"))
            reply = plain(task, progress)
            with lock:
                order.append((task.server_round, client.name, "ends"))
            return reply

        client.answer = answer
        return client

    hall.client_of = watched
    assert hall.job(*SITES)[0] == "finished"
    third = [(name, what) for number, name, what in order if number == 3 and name != "mr-a"]
    assert third == [
        ("us-a", "begins"),
        ("us-a", "ends"),
        ("us-b", "begins"),
        ("us-b", "ends"),
        ("us-c", "begins"),
        ("us-c", "ends"),
    ]


def test_the_deadline_begins_anew_with_each_turn(make_hall, monkeypatch):
    noted = []
    plain = RunState.note_turn
    monkeypatch.setattr(
        RunState, "note_turn", lambda state, moment: noted.append(plain(state, moment))
    )
    hall = make_hall(*SITES, rounds=3, strategy=RELAY, network={"rounds-per-job": 3})
    assert hall.job(*SITES)[0] == "next"
    assert len(noted) == 3, "three friends take turns in the third round alone"
    desk = hall.desk(list(SITES))
    job = desk.job
    late = []
    for seconds, answers in ((1799, False), (1801, True), (3500, False), (3700, False)):
        job.clock = lambda moment=desk.watch.since + seconds: moment
        late.append(JobState.late(job))
        if answers:
            job.state.note_turn(job.clock())
    assert late == [False, True, False, True]

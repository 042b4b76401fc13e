"""Clients that train side by side do what they do one after another."""

from __future__ import annotations

import multiprocessing
import os
import signal

import pytest

from flames.errors import FlamesError
from flames.federation import judging
from flames.federation.simulation import simulate
from flames.federation.turns import Turns


@pytest.fixture(scope="module", autouse=True)
def _friends():
    """Let all clients be alike, as the server sees them, so that they take turns."""

    def alike(updates, _begun):
        return {
            one.client: {
                other.client: 1.0
                for other in updates.values()
                if other.modality == one.modality and other is not one
            }
            for one in updates.values()
        }

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judging, "cosines", alike)
        patch.setattr(judging, "misfits", lambda _: set())
        yield


@pytest.fixture(scope="module")
def small(make_config):
    """Return a function that gives a run whose network needs no patch: other processes have none.

    Its three ultrasound sites take turns from the third round on, see `_friends`, and hand their
    optimiser's moments on in the third.
    """

    def make(**given):
        return make_config(
            "us-a", "us-b", "us-c", "mr-a", model={"name": "student"}, rounds=4, **given
        )

    return make


@pytest.fixture(scope="module")
def alone(small, tmp_path_factory):
    return simulate(small(), tmp_path_factory.mktemp("alone") / "run")


def test_two_at_a_time_give_the_bits_of_one(small, alone, tmp_path, outcome, monkeypatch):
    told, handed = [], []
    before = Turns.before

    def note(turns, client, answered):
        handed.append((client, before(turns, client, answered)))
        return handed[-1][1]

    monkeypatch.setattr(Turns, "before", note)
    both = simulate(small(), tmp_path / "both", jobs=2, on_event=told.append)
    assert outcome(both) == outcome(alone)
    turns = [pair for pair in handed if pair[1]]
    assert turns[:2] == [("us-b", "us-a"), ("us-c", "us-b")]
    assert turns[2:] == [("us-b", "us-c"), ("us-c", "us-b"), ("us-a", "us-c")]
    trained = [event for event in told if event.stage == "train"]
    assert [(event.server_round, event.done, event.total) for event in trained] == [
        (number, done, 4) for number in (1, 2, 3, 4, 5) for done in (1, 2, 3, 4)
    ]
    assert not multiprocessing.active_children()


def test_when_a_process_is_killed_the_run_says_so_and_continues(small, alone, tmp_path, outcome):
    def kill(event):
        if event.stage == "train" and event.server_round == 4:
            for process in multiprocessing.active_children():
                os.kill(process.pid, signal.SIGKILL)

    with pytest.raises(FlamesError, match="a process ended while "):
        simulate(small(), tmp_path / "run", jobs=2, on_event=kill)
    assert not multiprocessing.active_children()
    assert outcome(simulate(small(), tmp_path / "run", resume=True)) == outcome(alone)


def test_what_a_client_says_of_its_trouble_is_told(small, tmp_path):
    config = small(training={"learning-rate": 1e30})
    with pytest.raises(FlamesError, match="became") as error:
        simulate(config, tmp_path / "run", jobs=2)
    assert "learning-rate" in error.value.remedy
    assert not multiprocessing.active_children()

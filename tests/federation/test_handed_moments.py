"""Optimisers' moments that go on with the weights they belong to, by a server without a network."""

from __future__ import annotations

import numpy as np
import pytest

from flames.errors import FlamesError
from flames.federation.budget import Member
from flames.federation.exchange import Reply

NAMES = ("a", "b", "c")


def play(server, rounds):
    """Let everybody answer: 11, 12, 13 in the first round, 21 and so on in the second."""
    for _ in range(rounds):
        for place, name in enumerate(NAMES, 1):
            use = server.task(name).download.use
            chosen, alpha = ("mixture", 0.0) if use == "mix" else ("own", None)
            reply = Reply(name, "US", 10, {"model": 0.5}, alpha, chosen, None, 1, 0.5, 0.1, {}, 1)
            value = 10 * (server.finished + 1) + place
            server.accept(reply, {"w": np.array([value], np.float32)})
        server.close_round()


@pytest.fixture
def with_moments(make_server):
    """Return a server in its third round, in which turns are short, and what answers for a client.

    The moments that a client sends have its number of steps.
    """
    server = make_server(**{"relay-moments": 5})
    play(server, 2)

    def moments(steps):
        return {
            "first:w": np.array([0.5], np.float32),
            "second:w": np.array([0.25], np.float32),
            "steps": np.asarray(steps, np.float32),
        }

    def answer(name, value, steps):
        server.dispatch(name, {"2": ""})
        reply = Reply(name, "US", 10, {"model": 0.5}, 0.0, "mixture", None, 1, 0.5, 0.1, {}, 1)
        sent = moments(steps) if steps is not None else None
        server.accept(reply, {"w": np.array([value], np.float32)}, None, sent)

    return server, answer


def test_moments_go_on_with_the_weights_they_belong_to(with_moments):
    server, answer = with_moments
    first = server.task("a").download
    assert (first.moments, first.wants_moments) == (None, True), "it begins with a mixture"
    answer("a", 31, 7)
    handed = server.task("b").download
    assert float(handed.arrays["w"][0]) == 31.0
    assert float(handed.moments["steps"]) == 7
    answer("b", 32, 10)
    assert float(server.task("c").download.moments["steps"]) == 10
    answer("c", 33, 13)
    server.close_round()
    last = server.task("b").download
    assert float(last.moments["steps"]) == 13, "those of the last of the round before"
    assert not last.wants_moments, "nobody goes on after the last round"
    server.withdraw(())


def test_moments_that_were_not_asked_for_or_are_missing_are_refused(with_moments):
    server, answer = with_moments
    with pytest.raises(FlamesError, match="a sent no moments"):
        answer("a", 31, None)
    with pytest.raises(FlamesError, match="impossible steps"):
        answer("a", 31, -1)
    usual, short = server.config, server.config.training.model_copy(update={"max_grad_norm": 0.4})
    server.config = usual.model_copy(update={"training": short})
    with pytest.raises(FlamesError, match=r"longer than 0\.4"):
        answer("a", 31, 7)
    server.config = usual
    for name in NAMES:
        answer(name, 31, 7)
    server.close_round()
    with pytest.raises(FlamesError, match="nobody asked for"):
        answer("b", 41, 7)
    answer("b", 41, None)


def test_what_is_taken_out_of_a_round_takes_its_moments_along(with_moments):
    server, answer = with_moments
    answer("a", 31, 7)
    assert server.folders.moments("a").exists()
    server.withdraw(["a"])
    assert not server.folders.moments("a").exists()


def test_who_lost_all_goes_on_from_what_was_handed_to_it(with_moments):
    server, answer = with_moments
    answer("a", 31, 7)
    task, _ = server.dispatch("b", {})
    assert task.download.use == "replace"
    assert float(task.download.arrays["w"][0]) == 31.0
    assert float(task.download.moments["steps"]) == 7
    assert task.download.wants_moments


@pytest.mark.parametrize(
    "given",
    [
        {"strategy": {"relay-moments": 0}},
        {"training": {"local-steps": 6}},
        {"wire": {"encoding": "float16"}},
        {"wire": {"clip": 1.0}},
        {"strategy": {"relay": 1}},
    ],
)
def test_moments_stay_where_they_are(make_config, given):
    usual = {"strategy": {"relay": 8}, "training": {"local-steps": 5}}
    assert make_config("us-a", **usual).hands_moments_on
    merged = {key: usual.get(key, {}) | given.get(key, {}) for key in {*usual, *given}}
    assert not make_config("us-a", **merged).hands_moments_on


def test_one_with_longer_turns_keeps_the_moments_of_its_circle_where_they_are(make_server):
    server = make_server()
    play(server, 2)
    assert server.task("a").download.wants_moments
    server.members["c"] = Member("c", "US", 1, server.config.strategy.relay_moments + 1)
    assert not server.task("a").download.wants_moments

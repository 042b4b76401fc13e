"""Who begins a round with whose weights, by a server without a network."""

from __future__ import annotations

import numpy as np
import pytest

from flames.federation.beginning import make_strategy
from flames.federation.budget import Member
from flames.federation.exchange import Reply
from flames.federation.turns import Turns

NAMES = ("a", "b", "c")


def answer(server, name, value, validation=None):
    use = server.task(name).download.use
    chosen, alpha = ("mixture", 0.0) if use == "mix" else ("own", None)
    scores = validation or {"model": 0.5}
    reply = Reply(name, "US", 10, scores, alpha, chosen, None, 1, 0.5, 0.1, {}, 1)
    server.accept(reply, {"w": np.array([value], np.float32)})


def play(server, rounds):
    """Let everybody answer: 11, 12, 13 in the first round, 21 and so on in the second."""
    for _ in range(rounds):
        number = server.finished + 1
        for place, name in enumerate(NAMES, 1):
            answer(server, name, 10 * number + place)
        server.close_round()


def received(server, name):
    download = server.task(name).download
    return float(download.arrays["w"][0]), download.own_share


def test_the_third_round_is_the_first_in_which_friends_hand_on(make_server):
    server = make_server()
    play(server, 1)
    assert received(server, "a") == pytest.approx((12.5, 1 / 3)), "a mixture with the mean"
    assert server.turns.may_begin("c", server.answered, NAMES)
    play(server, 1)
    assert received(server, "a") == pytest.approx((22.5, 1 / 3)), "nobody is before it yet"
    assert not server.turns.may_begin("b", server.answered, NAMES)
    answer(server, "a", 31)
    assert server.turns.may_begin("b", server.answered, NAMES)
    assert received(server, "b") == (31.0, 0.0)
    assert not server.turns.may_begin("c", server.answered, NAMES)
    answer(server, "b", 32)
    assert received(server, "c") == (32.0, 0.0)
    answer(server, "c", 33)
    server.close_round()
    assert received(server, "b") == (33.0, 0.0), "the last of the round before"


def test_the_groups_model_and_the_closing_pass_stay_as_without_a_relay(make_server):
    server = make_server()
    play(server, 3)
    assert float(server.task("b").download.model["w"][0]) == pytest.approx(32.0)
    play(server, 1)
    assert server.finished + 1 == server.last_round
    assert received(server, "a") == pytest.approx((42.5, 1 / 3))
    assert server.turns.may_begin("c", server.answered, NAMES)


def test_who_is_not_expected_is_passed_over_and_a_start_once_given_stays(make_server):
    server = make_server()
    play(server, 2)
    answer(server, "a", 31)
    assert server.turns.may_begin("c", server.answered, {"a", "c"})
    assert received(server, "c") == (31.0, 0.0)
    answer(server, "b", 32)
    assert received(server, "c") == (31.0, 0.0), "asked again, it must begin as it did"
    assert server.turns.may_begin("c", server.answered, NAMES)


def test_another_begins_each_round_and_nobody_goes_on_from_itself(make_server):
    server = make_server(rounds=5)
    play(server, 3)
    assert [server.turns.may_begin(name, (), NAMES) for name in NAMES] == [False, True, False]
    assert received(server, "b") == (33.0, 0.0), "from c, the last of the round before"
    answer(server, "b", 42)
    answer(server, "c", 43)
    assert received(server, "a") == (43.0, 0.0)


def test_where_nobody_before_answers_it_goes_on_from_the_last_round(make_server):
    server = make_server(rounds=5)
    play(server, 3)
    assert received(server, "c") == (32.0, 0.0), "the last but itself"


def test_whose_peers_have_another_task_is_a_stranger_from_then_on(make_server):
    server = make_server(rounds=6)
    play(server, 1)
    for place, name in enumerate(NAMES, 1):
        answer(server, name, 20 + place, validation={"peers": 0.2 * (name != "b"), "own": 0.15})
    server.close_round()
    assert set(server.affinity()["b"].values()) == {1.0}, "b's own weights can judge nobody yet"
    answer(server, "a", 31, validation={"peers": 0.2, "own": 0.3})
    answer(server, "b", 32, validation={"peers": 0.2, "own": 0.3})
    answer(server, "c", 33, validation={"own": 0.9})
    server.close_round()
    assert server.affinity()["a"] == {"b": 0.0, "c": 1.0}
    assert server.affinity()["b"] == {"a": 0.0, "c": 0.0}
    alone = server.task("b").download
    assert (alone.use, alone.arrays) == ("keep", None)
    assert received(server, "a") == (33.0, 0.5), "two keep to their mean"
    assert float(server.task("a").download.model["w"][0]) == 32.0, "the mean of a and c"
    play(server, 1)
    assert server.affinity()["b"] == {"a": 0.0, "c": 0.0}, "what was measured stays"


@pytest.fixture
def with_a_stranger(make_server):
    """Return a function that gives a server after three rounds, b a stranger to a and c."""

    def make(**given):
        server = make_server(**given)
        play(server, 1)
        for number in (20, 30):
            for place, name in enumerate(NAMES, 1):
                peers = 0.02 if name == "b" else 0.3
                scores = {"peers": peers, "own": 0.4, "model": 0.4}
                answer(server, name, number + place, validation=scores)
            server.close_round()
        assert server.affinity()["b"] == {"a": 0.0, "c": 0.0}
        return server

    return make


def stay(server, model):
    """Let everybody answer once more; the others' model does ``model`` at b, its own 0.4."""
    number = server.finished + 1
    for place, name in enumerate(NAMES, 1):
        answer(server, name, 10 * number + place, validation={"model": model, "own": 0.4})
    server.close_round()


def test_a_guest_that_comes_too_late_is_sent_what_others_are(with_a_stranger):
    server = with_a_stranger(rounds=7)
    stay(server, 0.3)
    stay(server, 0.3)
    assert server.task("b").download.use == "replace"
    for number in (60, 70):
        answer(server, "a", number + 1)
        answer(server, "c", number + 3)
        server.close_round()
    late = server.task("b").download
    assert server.finished + 1 == server.last_round
    assert (late.use, late.arrays) == ("keep", None)
    assert float(late.model["w"][0]) == 72.0
    assert late.best is not None


def test_who_answers_too_late_to_have_been_a_guest_is_no_friend(with_a_stranger):
    server = with_a_stranger(rounds=10, sharing=0.75)
    stay(server, 0.3)
    stay(server, 0.3)
    for number in (60, 70):
        answer(server, "a", number + 1)
        answer(server, "c", number + 3)
        server.close_round()
    assert server.task("b").download.use == "keep"
    for name in NAMES:
        answer(server, name, 80)
    server.close_round()
    assert server.affinity()["b"] == {"a": 0.0, "c": 0.0}, "its weights never met the circle's"


def test_a_model_that_still_has_something_of_the_stranger_is_no_evidence(with_a_stranger):
    """In the fixture the model suits b in the second and third round, which do not count."""
    server = with_a_stranger(rounds=9)
    stay(server, 0.3)
    assert server.task("b").download.use == "keep"
    stay(server, 0.15)
    assert server.task("b").download.use == "keep"


def test_whom_the_others_model_suits_begins_with_it_and_is_a_friend_again(with_a_stranger):
    server = with_a_stranger(rounds=9)
    stay(server, 0.3)
    assert server.task("b").download.use == "keep", "one round says too little"
    stay(server, 0.3)
    guest = server.task("b").download
    assert (guest.use, float(guest.arrays["w"][0])) == ("replace", 52.0), "the mean of a and c"
    assert server.turns.may_begin("b", server.answered, NAMES)
    assert server.affinity()["b"] == {"a": 0.0, "c": 0.0}, "nobody begins with its weights yet"
    assert received(server, "a") == (53.0, 0.5)
    answer(server, "b", 62, validation={"model": 0.3, "trained": 0.4})
    answer(server, "a", 61)
    answer(server, "c", 63)
    server.close_round()
    assert server.affinity()["b"] == {"a": 1.0, "c": 1.0}
    assert sum(server.turns.may_begin(name, (), NAMES) for name in NAMES) == 1, "three take turns"
    assert float(server.task("a").download.model["w"][0]) == pytest.approx(62.0)
    play(server, 1)
    assert server.affinity()["b"] == {"a": 1.0, "c": 1.0}, "the old taste counts no more"


def test_a_guest_that_does_not_answer_is_still_invited(with_a_stranger):
    server = with_a_stranger(rounds=9)
    stay(server, 0.3)
    stay(server, 0.3)
    answer(server, "a", 61)
    answer(server, "c", 63)
    server.close_round()
    assert server.affinity()["b"] == {"a": 0.0, "c": 0.0}
    guest = server.task("b").download
    assert (guest.use, float(guest.arrays["w"][0])) == ("replace", 62.0)


@pytest.mark.parametrize(
    ("model", "given"), [(0.2, {}), (0.3, {"rounds": 6}), (0.3, {"rounds": 9, "sharing": 0.7})]
)
def test_whom_it_does_not_suit_or_too_late_stays_a_stranger(with_a_stranger, model, given):
    server = with_a_stranger(**{"rounds": 9} | given)
    stay(server, model)
    stay(server, model)
    assert server.task("b").download.use == "keep"


def test_short_chains_begin_with_a_mixture(make_server):
    server = make_server(relay=2)
    play(server, 2)
    assert received(server, "a") == pytest.approx((22.5, 1 / 3))
    assert received(server, "b") == pytest.approx((22.0, 1 / 3))
    assert server.turns.may_begin("b", server.answered, NAMES)
    assert not server.turns.may_begin("c", server.answered, NAMES)
    answer(server, "a", 31)
    assert received(server, "c") == (31.0, 0.0)


@pytest.mark.parametrize(
    "settings", [{"relay": 1}, {"short-round": 1}, {"sharing": 0.5}, {"alpha": 0.5}]
)
def test_without_a_relay_nobody_waits(make_server, settings):
    server = make_server(**settings)
    play(server, 2)
    assert all(server.turns.may_begin(name, server.answered, NAMES) for name in NAMES)
    assert received(server, "c")[0] == pytest.approx(21.5)


def test_a_circle_with_one_whose_rounds_are_long_trains_at_once(make_server):
    server = make_server()
    play(server, 2)
    assert not server.turns.may_begin("b", server.answered, NAMES)
    limit = server.config.strategy.short_round
    for steps, waits in ((limit, True), (limit + 1, False)):
        server.members["c"] = Member("c", "US", 1, steps)
        server.turns = Turns(server._chain)
        assert server.turns.may_begin("b", server.answered, NAMES) is not waits
    assert received(server, "b")[0] == pytest.approx(22.0), "the mean of its peers"


def test_who_answered_and_is_no_member_any_more_stops_nobody(make_server):
    server = make_server()
    play(server, 2)
    del server.members["a"]
    assert server.turns.may_begin("b", server.answered, ("b", "c"))
    assert received(server, "b")[0] == pytest.approx(22.0)
    answer(server, "b", 32)
    assert received(server, "c") == (32.0, 0.0)


@pytest.mark.parametrize(("steps", "hands_on"), [(15, True), (16, False)])
def test_a_run_of_long_rounds_hands_nothing_on(make_config, steps, hands_on):
    config = make_config("us-a", strategy={"relay": 8}, training={"local-steps": steps})
    assert config.hands_on is hands_on
    assert (make_strategy(config).chain is not None) is hands_on


@pytest.mark.parametrize("name", ["fedavg", "fedbn", "modality-fedbn", "flames"])
def test_an_old_update_has_no_part_in_what_all_are_sent(make_server, name):
    server = make_server(name=name, relay=1)
    play(server, 1)
    answer(server, "a", 21)
    answer(server, "b", 23)
    server.close_round()
    back, there = server.task("c").download, server.task("a").download
    common = "model" if name == "flames" else "arrays"
    assert float(getattr(back, common)["w"][0]) == float(getattr(there, common)["w"][0]) == 22.0


@pytest.mark.parametrize("name", ["fedavg", "fedbn", "modality-fedbn", "fedrep", "flames", "local"])
def test_who_joins_late_begins_with_what_all_share(make_server, name):
    server = make_server(name=name, relay=1)
    for value in (11, 21):
        answer(server, "a", value)
        answer(server, "b", value + 2)
        server.close_round()
    assert received(server, "c") == (0.0 if name == "local" else 22.0, 0.0)


def test_who_joins_late_is_corrected_by_the_servers_control_variates(make_server):
    server = make_server(name="scaffold")
    for name, value in (("a", 2.0), ("b", 4.0)):
        server.task(name)
        reply = Reply(name, "US", 10, {"model": 0.5}, None, "model", None, 1, 0.5, 0.1, {}, 1)
        arrays = {key: np.array([value], np.float32) for key in ("w", "control:w")}
        server.accept(reply, arrays)
    server.close_round()
    sent = server.task("c").download.arrays
    assert {name: float(array[0]) for name, array in sent.items()} == {"w": 3.0, "control:w": 3.0}

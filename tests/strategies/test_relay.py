from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from flames.strategies import by_modality, personalised
from flames.strategies.base import Chain, Update
from flames.strategies.personalised import ENOUGH
from flames.strategies.relay import chain_of, circles


def update(name, modality="MR", cases=ENOUGH, **affinity):
    return Update(name, modality, {"w": np.zeros(1)}, cases, affinity or None)


def friends(*names):
    return {
        one: update(one, **{other: 1.0 for other in names if other != one} or {"nobody": 0.0})
        for one in names
    }


def test_a_circle_is_one_chain_while_it_is_short_enough():
    known = friends("a", "b", "c")
    assert chain_of("b", known, 0, length=3) == Chain(("a", "b", "c"))
    assert chain_of("b", known, 0, length=2) == Chain(("b",))
    assert chain_of("c", known, 4, length=2) == Chain(("a", "c"))


@pytest.mark.parametrize("length", [1, 2, 3, 5, 8])
def test_chains_hold_everybody_once_and_none_is_too_long(length):
    known = friends(*"abcdefgh")
    chains = {chain_of(name, known, 1, length=length) for name in known}
    assert sorted(name for chain in chains for name in chain.clients) == list("abcdefgh")
    assert max(len(chain.clients) for chain in chains) <= length
    assert len(chains) == -(-8 // length)


@pytest.mark.parametrize("number", [3, 4, 7])
def test_everybody_goes_on_from_somebody_else(number):
    names = "abcdefgh"[:number]
    known = friends(*names)
    rounds = [chain_of("a", known, turn, length=8) for turn in range(9)]
    assert rounds[0].before == ()
    for last, this in pairwise(rounds):
        assert this.before == last.clients
        assert this.clients[0] != last.clients[-1], "nobody trains twice running"
    closing = [chain.clients[-1] for chain in rounds[:number]]
    assert len(set(closing)) == number, "each is once last"


def test_two_keep_to_their_mean():
    assert chain_of("a", friends("a", "b"), 4, length=8) == Chain(("a",))


def test_strangers_are_in_no_chain_of_others():
    known = friends("a", "c", "d") | {"b": update("b", a=0.0, c=0.0, d=0.0)}
    assert [sorted(circle) for circle in circles(known)] == [["a", "c", "d"], ["b"]]
    assert chain_of("c", known, 0, length=8) == Chain(("a", "c", "d"))
    assert chain_of("b", known, 0, length=8) == Chain(("b",))


def test_modalities_have_chains_of_their_own():
    strategy = by_modality(personalised(relay=8), "flames")
    known = {
        name: update(name, modality)
        for name, modality in zip("abcd", ("US", "MR", "US", "US"), strict=True)
    }
    assert strategy.chain("a", known, 0) == Chain(("a", "c", "d"))
    assert strategy.chain("b", known, 0) == Chain(("b",))


def test_a_fixed_share_has_no_relay():
    assert personalised(0.5, relay=8).chain is None
    assert by_modality(personalised(0.5, relay=8), "flames").chain is None


@pytest.mark.parametrize(
    ("names", "alpha", "kept"), [("ab", None, True), ("abc", None, False), ("ab", 0.5, False)]
)
def test_last_levels_stay_at_home_where_two_are_alike_and_alpha_is_tuned(names, alpha, kept):
    known = friends(*names)
    assert personalised(alpha).download("a", known).own_head == kept


def test_a_client_with_few_cases_learns_the_last_levels_from_others_too():
    known = friends("a", "b") | {"b": update("b", cases=ENOUGH - 1, a=1.0)}
    assert personalised().download("a", known).own_head
    assert not personalised().download("b", known).own_head


def test_without_a_relay_a_mean_may_still_be_of_one():
    """What the explanation says of means of one."""
    known = {
        name: Update(name, "MR", {"w": np.array([float(cases)])}, cases, dict.fromkeys(peers, 0.0))
        for name, cases, peers in (("a", 9, "bc"), ("b", 5, "ac"), ("c", 3, "ab"))
    }
    assert personalised(relay=1).download("c", known).model["w"] == [9.0], "a's alone"
    known = {
        "a": replace(known["a"], affinity={"b": 1.0, "c": 0.0}),
        "b": replace(known["b"], affinity={"a": 1.0, "c": 0.0}),
        "c": known["c"],
    }
    found = personalised(relay=1).download("b", known)
    assert found.arrays["w"] == [9.0], "the mean of its peers is a's weights"


def test_a_pair_beside_a_stranger_is_still_a_pair():
    known = {
        "a": update("a", b=1.0, c=0.0),
        "b": update("b", a=1.0, c=0.0),
        "c": update("c", a=0.0, b=0.0),
    }
    assert personalised().download("a", known).own_head

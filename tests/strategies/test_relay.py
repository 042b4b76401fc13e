from __future__ import annotations

import numpy as np
import pytest

from flames.strategies import by_modality, personalised
from flames.strategies.base import Chain, Update
from flames.strategies.relay import chain_of, circles


def update(name, modality="MR", **affinity):
    return Update(name, modality, {"w": np.zeros(1)}, 1, affinity or None)


def friends(*names):
    return {
        one: update(one, **{other: 1.0 for other in names if other != one} or {"nobody": 0.0})
        for one in names
    }


def test_a_circle_is_one_chain_while_it_is_short_enough():
    known = friends("a", "b", "c")
    assert chain_of("b", known, 3) == Chain(("a", "b", "c"), ring=True)
    assert chain_of("b", known, 2) == Chain(("b",), ring=False)
    assert chain_of("c", known, 2) == Chain(("a", "c"), ring=False)


@pytest.mark.parametrize("length", [1, 2, 3, 5, 8])
def test_chains_hold_everybody_once_and_none_is_too_long(length):
    known = friends(*"abcdefgh")
    chains = {chain_of(name, known, length) for name in known}
    assert sorted(name for chain in chains for name in chain.clients) == list("abcdefgh")
    assert max(len(chain.clients) for chain in chains) <= length
    assert len(chains) == -(-8 // length)


def test_turns_begin_in_the_middle_of_a_circle():
    known = {
        "a": update("a", b=0.3, c=0.2),
        "b": update("b", a=0.3, c=1.0),
        "c": update("c", a=0.2, b=1.0),
    }
    assert chain_of("a", known, 8).clients == ("b", "c", "a")
    assert chain_of("c", known, 2).clients == ("c",)


def test_strangers_are_in_no_chain_of_others():
    known = {
        "a": update("a", b=0.0, c=0.7),
        "b": update("b", a=0.0, c=0.0),
        "c": update("c", a=0.7, b=0.0),
    }
    assert [sorted(circle) for circle in circles(known)] == [["a", "c"], ["b"]]
    assert chain_of("c", known, 8) == Chain(("a", "c"), ring=True)
    assert chain_of("b", known, 8) == Chain(("b",), ring=True)


def test_modalities_have_chains_of_their_own():
    strategy = by_modality(personalised(relay=8), "flames")
    known = {
        name: update(name, modality)
        for name, modality in zip("abc", ("US", "MR", "US"), strict=True)
    }
    assert strategy.chain("a", known) == Chain(("a", "c"), ring=True)
    assert strategy.chain("b", known) == Chain(("b",), ring=True)


def test_a_fixed_share_has_no_relay():
    assert personalised(0.5, relay=8).chain is None
    assert by_modality(personalised(0.5, relay=8), "flames").chain is None

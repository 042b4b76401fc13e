from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flames.strategies import (
    STRATEGIES,
    Update,
    by_modality,
    fedavg,
    local,
    personalised,
    published,
)
from flames.strategies.mixture import candidates


def update(client, value, cases, modality="US"):
    arrays = {
        "w": np.array([value, 2 * value], np.float32),
        "norm.running_mean": np.array([value], np.float32),
        "norm.num_batches_tracked": np.array(cases, np.int64),
    }
    return Update(client, modality, arrays, cases)


def updates(*every):
    return {one.client: one for one in every}


THREE = updates(update("a", 1, 2), update("b", 10, 6), update("c", 40, 3))
MIXED = updates(
    update("a", 1, 2),
    update("b", 10, 6),
    update("c", 40, 3, "MR"),
    update("d", -8, 1, "MR"),
    update("e", 100, 9, "CT"),
)


def first(arrays):
    return float(arrays["w"][0])


def test_fedavg_by_hand():
    # (2·1 + 6·10 + 3·40) / 11
    assert first(fedavg().models(THREE)["all"]) == pytest.approx(182 / 11)
    for client in THREE:
        download = fedavg().download(client, THREE)
        assert first(download.arrays) == pytest.approx(182 / 11)
        assert (download.use, download.peers) == ("replace", 2)


@pytest.mark.parametrize(
    ("client", "peers", "own_share"),
    [
        ("a", (6 * 10 + 3 * 40) / 9, 1 / 3),  # 2/11 by cases
        ("b", (2 * 1 + 3 * 40) / 5, 6 / 11),
        ("c", (2 * 1 + 6 * 10) / 8, 1 / 3),  # 3/11 by cases
    ],
)
def test_personalised_weighs_peers_by_cases(client, peers, own_share):
    download = personalised().download(client, THREE)
    assert first(download.arrays) == pytest.approx(peers)
    assert download.own_share == pytest.approx(own_share)
    assert (download.use, download.alpha, download.peers) == ("mix", None, 2)
    assert first(personalised().models(THREE)["all"]) == pytest.approx(182 / 11)


def test_own_share_and_peers_form_the_groups_model():
    for client, one in THREE.items():
        ways = candidates(personalised().download(client, THREE), one.arrays, count=3)
        model = next(way for way in ways if way.name == "model")
        np.testing.assert_allclose(
            model.arrays["w"], personalised().models(THREE)["all"]["w"], rtol=1e-6
        )


def test_personalised_passes_a_fixed_alpha_on():
    assert personalised(0.8).download("a", THREE).alpha == 0.8


@pytest.mark.parametrize(
    ("client", "peers"),
    [
        ("a", 30),  # 1/6 : 1/3 = 1 : 2, (10 + 2·40) / 3
        ("b", (3 * 1 + 2 * 40) / 5),  # 1/2 : 1/3 = 3 : 2
        ("c", (3 * 1 + 1 * 10) / 4),  # 1/2 : 1/6 = 3 : 1
    ],
)
def test_published_weighs_peers_by_one_over_cases(client, peers):
    download = published().download(client, THREE)
    assert first(download.arrays) == pytest.approx(peers)
    assert download.alpha == pytest.approx(0.1 + 1 / 3)
    (way,) = [w for w in candidates(download, THREE[client].arrays, count=3) if w.name == "mixture"]
    own = first(THREE[client].arrays)
    assert first(way.arrays) == pytest.approx(13 / 30 * own + 17 / 30 * peers)


def test_published_server_model_is_the_plain_mean():
    assert first(published().models(THREE)["all"]) == pytest.approx((1 + 10 + 40) / 3)


def test_published_alpha_of_two_and_of_one():
    two = updates(update("a", 1, 2), update("b", 10, 6))
    assert published().download("a", two).alpha == pytest.approx(0.6)
    alone = published().download("a", updates(update("a", 1, 2)))
    assert (alone.use, alone.alpha) == ("keep", 1.0)


def test_published_second_round_is_ten_parts():
    parts = [published().schedule(number, 4, 6) for number in (1, 2, 3, 4)]
    assert parts == [1, 10, 1, 1]
    assert published().schedule(1, 1, 6) == 1


def test_by_modality_keeps_modalities_apart():
    models = by_modality(fedavg(), "modality").models(MIXED)
    assert {name: first(model) for name, model in models.items()} == pytest.approx(
        {"CT": 100, "MR": (3 * 40 - 8) / 4, "US": (2 + 60) / 8}
    )
    flames = by_modality(personalised(), "flames")
    assert first(flames.download("c", MIXED).arrays) == -8
    assert flames.download("c", MIXED).own_share == 0.75
    assert first(flames.download("a", MIXED).arrays) == 10


@given(st.floats(-1e4, 1e4, width=32))
def test_what_another_modality_learns_changes_nothing(value):
    changed = MIXED | updates(update("e", value, 9, "CT"))
    for name in ("flames", "paper", "modality"):
        strategy = STRATEGIES[name](None)
        for group in ("US", "MR"):
            np.testing.assert_array_equal(
                strategy.models(changed)[group]["w"], strategy.models(MIXED)[group]["w"]
            )
        for client in "abcd":
            np.testing.assert_array_equal(
                strategy.download(client, changed).arrays["w"],
                strategy.download(client, MIXED).arrays["w"],
            )


@pytest.mark.parametrize("inner", [fedavg(), personalised(), published(), local()])
def test_by_modality_with_one_modality_is_the_inner_strategy(inner):
    outer = by_modality(inner, "outer")
    known, found = list(inner.models(THREE).values()), list(outer.models(THREE).values())
    assert len(known) == len(found)
    for one, other in zip(known, found, strict=True):
        np.testing.assert_equal(other, one)
    for client in THREE:
        np.testing.assert_equal(
            vars(outer.download(client, THREE)), vars(inner.download(client, THREE))
        )


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_one_client_is_local_training(name):
    alone = updates(update("a", 0.1, 7))
    strategy = STRATEGIES[name](None)
    own = alone["a"].arrays
    ways = candidates(strategy.download("a", alone), own, count=3)
    for way in ways:
        for key in own:
            assert way.arrays[key].tobytes() == own[key].tobytes()
    for model in strategy.models(alone).values():
        np.testing.assert_equal(model, dict(own))


@pytest.mark.parametrize("name", sorted(STRATEGIES))
class TestContract:
    def test_inputs_stay_and_calls_repeat_in_any_order(self, name):
        strategy = STRATEGIES[name](None)
        before = copy.deepcopy(MIXED)
        backwards = dict(reversed(MIXED.items()))
        np.testing.assert_equal(strategy.models(MIXED), strategy.models(backwards))
        for client in MIXED:
            np.testing.assert_equal(
                vars(strategy.download(client, MIXED)), vars(strategy.download(client, backwards))
            )
        for client, one in MIXED.items():
            np.testing.assert_equal(dict(one.arrays), before[client].arrays)

    def test_a_client_can_begin_with_what_it_receives(self, name):
        strategy = STRATEGIES[name](None)
        for client, one in MIXED.items():
            download = strategy.download(client, MIXED)
            assert (download.arrays is None) == (download.use == "keep")
            for way in candidates(download, one.arrays, count=3):
                assert set(way.arrays) == set(one.arrays)
                for key, own in one.arrays.items():
                    assert (way.arrays[key].shape, way.arrays[key].dtype) == (own.shape, own.dtype)

    def test_every_client_is_served_by_a_model_that_exists(self, name):
        strategy = STRATEGIES[name](None)
        groups = {strategy.group_of(one.modality) for one in MIXED.values()} - {None}
        assert groups == set(strategy.models(MIXED))

    def test_no_weights_leave_the_range_of_their_clients(self, name):
        strategy = STRATEGIES[name](None)
        values = [first(one.arrays) for one in MIXED.values()]
        for client, one in MIXED.items():
            for way in candidates(strategy.download(client, MIXED), one.arrays, count=3):
                assert min(values) <= first(way.arrays) <= max(values)

    @given(clients=st.permutations(["p", "q", "r"]))
    def test_names_mean_nothing(self, name, clients):
        strategy = STRATEGIES[name](None)
        renamed = updates(
            *(
                Update(new, one.modality, one.arrays, one.num_examples)
                for new, one in zip(clients, THREE.values(), strict=True)
            )
        )
        for new, old in zip(clients, THREE, strict=True):
            found, known = strategy.download(new, renamed), strategy.download(old, THREE)
            assert (found.use, found.alpha, found.own_share) == (
                known.use,
                known.alpha,
                known.own_share,
            )
            if known.arrays is not None:
                np.testing.assert_allclose(found.arrays["w"], known.arrays["w"], rtol=1e-6)


def test_sums_do_not_depend_on_who_answered_first():
    values = {"a": 1e16, "b": 1.0, "c": -1e16}
    three = {
        client: Update(client, "US", {"w": np.array([value])}, 4)
        for client, value in values.items()
    }
    late = {client: three[client] for client in "acb"}
    for strategy in (fedavg(), personalised(), published()):
        one, other = strategy.models(three)["all"], strategy.models(late)["all"]
        assert one["w"].tobytes() == other["w"].tobytes()


@pytest.mark.parametrize("name", [n for n in sorted(STRATEGIES) if n != "local"])
def test_nothing_received_is_refused(name):
    with pytest.raises((ValueError, KeyError)):
        STRATEGIES[name](None).download("a", {})


def knowing(one, **affinity):
    return replace(one, affinity=affinity)


CIRCLES = updates(
    knowing(update("a", 1, 2), b=0.9, c=0.0),
    knowing(update("b", 10, 6), a=0.9, c=0.0),
    knowing(update("c", 40, 5), a=0.0, b=0.0),
    knowing(update("d", 3, 4, "MR")),
)


def test_the_server_model_leaves_strangers_out():
    models = by_modality(personalised(), name="flames").models(CIRCLES)
    assert first(models["US"]) == pytest.approx((2 * 1 + 6 * 10) / 8)
    assert first(models["MR"]) == 3


def test_only_those_in_the_server_model_judge_it():
    strategy = by_modality(personalised(), name="flames")
    assert strategy.voters is not None
    assert strategy.voters(CIRCLES) == {"a", "b", "d"}


def test_a_friend_of_a_friend_is_of_the_circle():
    chain = updates(
        knowing(update("a", 1, 2), b=0.9, c=0.0),
        knowing(update("b", 10, 6), a=0.9, c=0.5),
        knowing(update("c", 40, 5), a=0.0, b=0.5),
    )
    assert first(personalised().models(chain)["all"]) == pytest.approx((2 + 60 + 200) / 13)

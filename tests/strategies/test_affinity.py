"""Whom to learn from: worked cosines, symmetry, and what it does to peers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flames.strategies import Update, affinities, cosines, personalised

START = {"w": np.array([1.0, 1.0]), "n": np.array(3)}


def update(client, modality, move, cases=1, affinity=None):
    arrays = {"w": START["w"] + np.array(move), "n": np.array(9)}
    return Update(client, modality, arrays, cases, affinity)


def table(*updates):
    return {u.client: u for u in updates}


def weights(updates):
    return affinities(cosines(updates, dict.fromkeys(updates, START)))


def test_weights_are_cosines_over_the_largest_inside_a_modality():
    found = weights(
        table(
            update("a", "US", [3.0, 4.0]),
            update("b", "US", [4.0, 3.0]),  # cosine with a 24/25
            update("c", "US", [0.0, 2.0]),  # with a 4/5, with b 3/5
            update("d", "US", [-1.0, 0.0]),  # against a and b, at right angles to c
            update("x", "CT", [3.0, 4.0]),  # like a, but of another modality
        )
    )
    assert found["a"] == {
        "b": 1.0,
        "c": pytest.approx(4 / 5 / (24 / 25)),
        "d": 0.0,
    }
    assert found["c"] == {
        "a": pytest.approx(4 / 5 / (24 / 25)),
        "b": pytest.approx(3 / 5 / (24 / 25)),
        "d": 0.0,
    }
    assert found["x"] == {}


def test_nobody_alike_weighs_nobody():
    found = weights(table(update("a", "US", [1.0, 0.0]), update("b", "US", [-1.0, 0.1])))
    assert found == {"a": {"b": 0.0}, "b": {"a": 0.0}}


def test_a_client_that_did_not_move_is_like_nobody():
    found = weights(table(update("a", "US", [0.0, 0.0]), update("b", "US", [1.0, 0.0])))
    assert found["a"] == {"b": 0.0}


# What is shorter than numbers of weights can tell from nothing counts as no movement.
LENGTHS = st.integers(-5000, 5000).map(lambda thousandths: thousandths / 1000)


@given(hnp.arrays(np.float64, (4, 2), elements=LENGTHS))
def test_symmetric_inside_zero_to_one_and_blind_to_step_length(moves):
    names = ["a", "b", "c", "d"]
    modalities = ["US", "US", "US", "MR"]
    once = weights(table(*map(update, names, modalities, moves)))
    twice = weights(table(*map(update, names, modalities, 2 * moves)))
    for one in names[:3]:
        for other, weight in once[one].items():
            assert 0 <= weight <= 1
            assert weight == once[other][one]
            assert twice[one][other] == pytest.approx(weight, abs=1e-6)


def test_peers_weigh_by_cases_times_affinity():
    download = personalised().download(
        "a",
        table(
            update("a", "US", [0.0, 0.0], 6, {"b": 0.5, "c": 0.0}),
            update("b", "US", [2.0, 0.0], 4),
            update("c", "US", [9.0, 9.0], 8),
        ),
    )
    assert download.arrays["w"].tolist() == [3.0, 1.0]  # b alone
    assert download.own_share == 0.75  # 6 / (6 + 0.5·4)
    assert download.model["w"].tolist() == [
        pytest.approx(1 + 80 / 18),  # (4·2 + 8·9) / 18
        pytest.approx(1 + 72 / 18),
    ]


def test_a_client_among_strangers_keeps_its_own_and_may_try_the_groups_model():
    download = personalised().download(
        "a",
        table(
            update("a", "US", [0.0, 0.0], 6, {"b": 0.0, "c": 0.0}),
            update("b", "US", [3.0, 0.0], 1),
            update("c", "US", [0.0, 3.0], 2),
        ),
    )
    assert (download.use, download.arrays, download.own_share) == ("keep", None, 1.0)
    assert download.model["w"].tolist() == [
        pytest.approx(1 + 3 / 9),
        pytest.approx(1 + 6 / 9),
    ]


def test_little_likeness_is_none():
    found = weights(
        table(
            update("a", "US", [10.0, 0.0]),
            update("b", "US", [10.0, 1.0]),
            update("c", "US", [1.0, 10.0]),  # cosine with a 0.0995, a tenth of the largest
        )
    )
    assert found["a"] == {"b": 1.0, "c": 0.0}
    assert found["b"]["c"] == 0.0 or found["b"]["c"] >= 0.2


def test_many_large_models_are_compared_a_few_at_a_time(monkeypatch):
    from flames.strategies import affinity

    rng = np.random.default_rng(0)
    starts = [{"w": rng.normal(size=(4, 5)).astype(np.float32)} for _ in range(7)]
    models = [{"w": s["w"] + rng.normal(size=(4, 5)).astype(np.float32)} for s in starts]
    at_once = affinity._cosines(models, starts)
    monkeypatch.setattr(affinity, "TILE_BYTES", 2 * 8 * 20)
    np.testing.assert_allclose(affinity._cosines(models, starts), at_once, rtol=1e-12)


def test_a_movement_counts_from_where_its_own_client_began():
    updates = table(update("a", "US", [3.0, 4.0]), update("b", "US", [3.0, 4.0]))
    elsewhere = {"w": START["w"] + np.array([3.0, 0.0]), "n": np.array(3)}
    found = cosines(updates, {"a": START, "b": elsewhere})  # (3, 4) and (0, 4)
    assert found["a"]["b"] == pytest.approx(0.8)


def test_statistics_of_batch_norm_do_not_count():
    def one(name, weight, mean):
        arrays = {"w": np.array(weight), "norm.running_mean": np.array([mean])}
        return Update(name, "US", arrays, 1)

    begun = {"w": np.zeros(2), "norm.running_mean": np.zeros(1)}
    updates = table(one("a", [1.0, 0.0], 99.0), one("b", [0.0, 1.0], 99.0))
    assert cosines(updates, {"a": begun, "b": begun})["a"]["b"] == 0.0

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flames.strategies import interpolate, weighted_mean

numbers = st.floats(-1e3, 1e3, width=32)


@st.composite
def models_and_weights(draw):
    count = draw(st.integers(1, 5))
    models = [
        {
            name: np.array([draw(numbers) for _ in range(size)], np.float32)
            for name, size in (("a", 1), ("b", 3))
        }
        for _ in range(count)
    ]
    return models, [draw(st.integers(1, 500)) for _ in range(count)]


def test_weighted_mean_of_three_by_hand():
    models = [
        {"w": np.array([1.0, 0.0])},
        {"w": np.array([4.0, 8.0])},
        {"w": np.array([10.0, 2.0])},
    ]
    # (1·1 + 2·4 + 5·10) / 8 and (1·0 + 2·8 + 5·2) / 8
    assert weighted_mean(models, [1, 2, 5])["w"].tolist() == [7.375, 3.25]


def test_sums_are_kept_in_float64_and_returned_in_the_arrays_dtype():
    models = [{"w": np.array([16_777_216.0], np.float32)}, {"w": np.array([1.0], np.float32)}]
    # float32 loses the 1 in 2^24 + 1; the mean of 2^24, 1 and 1 keeps it until the last rounding
    mean = weighted_mean([*models, models[1]], [1, 1, 1])["w"]
    assert mean.dtype == np.float32
    assert mean[0] == np.float32((16_777_216 + 2) / 3)


def test_integer_arrays_take_the_largest():
    models = [{"n": np.array(7, np.int64)}, {"n": np.array(3, np.int64)}]
    mean = weighted_mean(models, [1, 9])["n"]
    assert mean.dtype == np.int64
    assert mean.shape == ()
    assert mean == 7


def test_arrays_without_dimensions_stay_so():
    mean = weighted_mean([{"s": np.array(1.0)}, {"s": np.array(4.0)}], [2, 1])["s"]
    assert mean.shape == ()
    assert mean == 2.0


@pytest.mark.parametrize(
    ("models", "weights", "words"),
    [
        ([], [], "nothing to average"),
        ([{"w": np.ones(1)}], [1, 2], "nothing to average"),
        ([{"w": np.ones(1)}, {"w": np.ones(1)}], [0, 0], "positive sum"),
        ([{"w": np.ones(1)}, {"w": np.ones(1)}], [-1, 2], "non-negative"),
        ([{"w": np.ones(1)}, {"v": np.ones(1)}], [1, 2], "differ in arrays"),
        ([{"w": np.ones(1)}, {"w": np.ones(2)}], [1, 2], "shapes differ"),
    ],
)
def test_what_cannot_be_averaged_is_refused(models, weights, words):
    with pytest.raises(ValueError, match=words):
        weighted_mean(models, weights)


@given(models_and_weights())
def test_a_mean_lies_between_its_parts(drawn):
    models, weights = drawn
    mean = weighted_mean(models, weights)
    for name in mean:
        values = np.stack([model[name] for model in models])
        slack = 1e-6 * np.abs(values).max()
        assert (mean[name] >= values.min(0) - slack).all()
        assert (mean[name] <= values.max(0) + slack).all()


@given(models_and_weights(), st.randoms())
def test_order_of_models_does_not_matter(drawn, random):
    models, weights = drawn
    pairs = list(zip(models, weights, strict=True))
    random.shuffle(pairs)
    again = weighted_mean([m for m, _ in pairs], [w for _, w in pairs])
    for name, value in weighted_mean(models, weights).items():
        np.testing.assert_allclose(again[name], value, rtol=1e-6, atol=1e-4)


@given(models_and_weights())
def test_equal_models_give_that_model(drawn):
    models, weights = drawn
    mean = weighted_mean([models[0]] * len(weights), weights)
    for name, value in models[0].items():
        np.testing.assert_array_equal(mean[name], value)


@given(models_and_weights(), st.integers(2, 9))
def test_weights_count_by_their_shares(drawn, factor):
    models, weights = drawn
    more = weighted_mean(models, [factor * weight for weight in weights])
    for name, value in weighted_mean(models, weights).items():
        np.testing.assert_allclose(more[name], value, rtol=1e-6, atol=1e-6)


def test_interpolate_by_hand():
    own, peers = {"w": np.array([1.0, 2.0])}, {"w": np.array([5.0, -2.0])}
    # 0.25·1 + 0.75·5 and 0.25·2 − 0.75·2
    assert interpolate(own, peers, 0.25)["w"].tolist() == [4.0, -1.0]


def test_alpha_one_is_own_bit_for_bit_and_a_copy():
    own = {"w": np.array([0.1, np.nan], np.float32), "n": np.array(3)}
    peers = {"w": np.array([np.inf, 1.0], np.float32), "n": np.array(9)}
    kept = interpolate(own, peers, 1)
    assert kept["w"].tobytes() == own["w"].tobytes()
    assert kept["n"] == 3
    kept["w"][0] = 7
    assert own["w"][0] == np.float32(0.1)


@pytest.mark.parametrize("alpha", [-0.01, 1.1])
def test_alpha_outside_zero_to_one_is_refused(alpha):
    with pytest.raises(ValueError, match="alpha"):
        interpolate({"w": np.ones(1)}, {"w": np.ones(1)}, alpha)


class Watched(dict):
    """Arrays that note who was read, in order."""

    def __init__(self, name, arrays, log):
        super().__init__(arrays)
        self.name, self.log = name, log

    def __getitem__(self, key):
        self.log.append((key, self.name))
        return super().__getitem__(key)


def test_one_array_of_all_models_is_read_at_a_time():
    log: list[tuple[str, str]] = []
    arrays = {key: np.ones(2) for key in "xyz"}
    weighted_mean([Watched(name, arrays, log) for name in "ab"], [1, 2])
    assert log == [(key, name) for key in "xyz" for name in "ab"]


class Counted(np.ndarray):
    """An array that notes how many of its kind live."""

    alive = most = 0

    def __array_finalize__(self, _):
        Counted.alive += 1
        Counted.most = max(Counted.most, Counted.alive)

    def __del__(self):
        Counted.alive -= 1


def test_memory_does_not_grow_with_the_number_of_models():
    class Fresh(dict):
        def __getitem__(self, key):
            return np.ones(100_000, np.float32).view(Counted)

    most = []
    for count in (8, 30):
        Counted.most = Counted.alive
        weighted_mean([Fresh(w=None) for _ in range(count)], [1] * count)
        most.append(Counted.most)
    assert most[1] <= most[0] + 9  # one window more, as the next begins


def test_a_mean_by_blocks_is_the_plain_sum_bit_for_bit():
    rng = np.random.default_rng(0)
    models = [{"w": rng.normal(size=(70_001,)).astype(np.float32)} for _ in range(3)]
    plain = np.zeros(70_001)
    for model, weight in zip(models, (3, 4, 7), strict=True):
        plain += (weight / 14.0) * model["w"].astype(np.float64)
    assert (weighted_mean(models, [3, 4, 7])["w"] == plain.astype(np.float32)).all()

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from flames.config import WireConfig
from flames.strategies.movement import movement, shortened
from flames.wire.coding import Coded, code, digest_of, restore

ENCODINGS = ("float32", "float16", "bfloat16", "int8")
floats = st.floats(-100, 100, width=32)


@st.composite
def pairs(draw):
    shape = draw(array_shapes(min_dims=0, max_dims=3, max_side=4))
    return [{"w": draw(arrays(np.float32, shape, elements=floats))} for _ in range(2)]


@given(pairs(), st.sampled_from(ENCODINGS), st.booleans(), st.sampled_from([0.3, 1.0]))
def test_what_is_restored_has_the_shape_and_is_as_near_as_the_bits_allow(pair, encoding, delta, k):
    sent, held = pair
    wire = WireConfig(encoding=encoding, delta=delta, top_k=k if delta else 1.0)
    coded = code(sent, held, wire)
    found = restore(coded, held)["w"]
    assert (found.shape, found.dtype) == (sent["w"].shape, np.float32)
    spread = np.abs(sent["w"] - (held["w"] if delta else 0)).max(initial=0)
    share = {"float32": 1e-6, "float16": 6e-4, "bfloat16": 5e-3, "int8": 5e-3}[encoding]
    if not coded.masks:
        rounding = 1e-6 * np.abs(held["w"]).max(initial=0) + 1e-7
        assert np.abs(found - sent["w"]).max(initial=0) <= share * spread + rounding


@given(pairs())
def test_lossless_differences_are_lossless(pair):
    sent, held = pair
    found = restore(code(sent, held, WireConfig(delta=True)), held)
    assert found["w"].tobytes() == sent["w"].tobytes()


def test_the_largest_differences_travel_and_the_rest_stays():
    held = {"w": np.array([[10.0, 10.0], [10.0, 10.0]], np.float32)}
    sent = {"w": np.array([[11.0, 10.5], [10.25, 7.0]], np.float32)}
    wire = WireConfig(delta=True, top_k=0.5)
    coded = code(sent, held, wire)
    assert coded.letters == "F"
    assert coded.values["w"].tolist() == [1.0, -3.0]
    assert restore(coded, held)["w"].tolist() == [[11.0, 10.0], [10.0, 7.0]]


def test_what_a_coding_cannot_hold_travels_as_it_is():
    arrays = {
        "big": np.array([[70_000.0, 1.0]], np.float32),
        "count": np.array(3, np.int64),
        "nan": np.array([[np.nan]], np.float32),
        "vector": np.ones(4, np.float32),
    }
    assert code(arrays, None, WireConfig(encoding="float16")).letters == "ppph"
    coded = code(arrays, None, WireConfig(encoding="int8"))
    assert coded.letters == "qppp"
    found = restore(coded, None)
    assert np.isnan(found["nan"]).all()
    assert found["count"] == 3


def test_whole_weights_of_an_int8_difference_travel_as_float16():
    wire = WireConfig(encoding="int8", delta=True)
    assert code({"w": np.ones((2, 2), np.float32)}, None, wire).letters == "h"


def test_digests_tell_names_shapes_and_bits_apart():
    ones = {"w": np.ones(4, np.float32)}
    others = [{"v": ones["w"]}, {"w": ones["w"].reshape(2, 2)}, {"w": np.ones(4)}]
    assert len({digest_of(arrays) for arrays in [ones, *others]}) == 4


@pytest.mark.parametrize(
    ("coded", "words"),
    [
        (Coded("", {"w": np.ones(1)}), "1 arrays and 0 codings"),
        (Coded("?", {"w": np.ones(1)}), "no known coding"),
        (Coded("Q", {"v": np.ones((1, 1), np.int8)}), "not there"),
        (Coded("H", {"w": np.ones((3, 3), np.float16)}), "another shape"),
        (Coded("x", {"w": np.ones((2, 2), np.float32)}), "another shape"),
        (Coded("Q", {"w": np.ones((2, 2), np.int8)}), "no scale"),
        (Coded("H", {"w": np.ones((2, 2), np.int8)}), "expected float16"),
        (
            Coded("F", {"w": np.ones(1, np.float32)}, masks={"w": np.zeros(9, np.uint8)}),
            "mask of array",
        ),
        (
            Coded("F", {"w": np.ones(1, np.float32)}, masks={"w": np.full(1, 255, np.uint8)}),
            "another number of entries",
        ),
    ],
)
def test_codings_that_do_not_fit_are_refused(coded, words):
    with pytest.raises(ValueError, match=words):
        restore(coded, {"w": np.zeros((2, 2), np.float32)})


def test_error_feedback_loses_nothing_over_time(tmp_path):
    """Ten equal movements of which a tenth travels each time arrive in the end."""
    from types import SimpleNamespace

    from flames.federation.leaving import RESIDUAL, unwrap, wrap

    wire = WireConfig(encoding="int8", delta=True, top_k=0.1)
    rng = np.random.default_rng(0)
    step = rng.normal(size=(10, 10)).astype(np.float32)
    there = {"w": np.zeros((10, 10), np.float32)}
    for number in range(2, 62):  # the first two rounds leave nothing out
        begun, place = dict(there), tmp_path / f"{number}"
        wrap(
            {"w": begun["w"] + step},
            place,
            server_round=number + 1,
            reply=SimpleNamespace(chosen="model", alpha=None),
            begun=begun,
            waiting=tmp_path / f"{number - 1}" / RESIDUAL,
            own_head=False,
            wire=wire,
        )
        there = restore(unwrap(place)[0], begun)
    # Plain top-k would have moved a tenth of the entries by 60 steps, and the others not at all.
    np.testing.assert_allclose(there["w"] / 60, step, atol=0.35)
    assert np.corrcoef(there["w"].ravel(), step.ravel())[0, 1] > 0.99


def test_own_last_levels_brought_along_what_their_last_update_left_out(tmp_path):
    from types import SimpleNamespace

    from flames.array_files import save_arrays
    from flames.federation.leaving import unwrap, wrap

    begun = {name: np.zeros((2, 2), np.float32) for name in ("stem.weight", "head.weight")}
    save_arrays(tmp_path / "waiting", {name: np.ones((2, 2), np.float32) for name in begun})
    wrap(
        begun,
        tmp_path / "place",
        server_round=3,
        reply=SimpleNamespace(chosen="mixture", alpha=0.75),
        begun=begun,
        waiting=tmp_path / "waiting",
        own_head=True,
        wire=WireConfig(encoding="int8", delta=True),
    )
    sent = restore(unwrap(tmp_path / "place")[0], begun)
    np.testing.assert_allclose(sent["stem.weight"], 0.25)
    assert not sent["head.weight"].any()


def test_movements_are_measured_and_shortened_by_hand():
    begun = {"w": np.ones(2, np.float32), "n.running_var": np.zeros(1, np.float32)}
    arrays = {"w": np.array([4.0, 5.0], np.float32), "n.running_var": np.full(1, 9, np.float32)}
    assert movement(arrays, begun) == {"weights": 5.0, "statistics": 9.0}
    short = shortened(arrays, begun, 1.0)
    np.testing.assert_allclose(short["w"], [1.6, 1.8])  # 1 + 3/5, 1 + 4/5
    assert short["n.running_var"] == 9
    assert shortened(arrays, begun, 5.0)["w"] is arrays["w"]


@pytest.mark.parametrize(("server_round", "moved"), [(1, 100), (2, 100), (3, 10)])
def test_the_first_two_rounds_leave_nothing_out(tmp_path, server_round, moved):
    from types import SimpleNamespace

    from flames.federation.leaving import unwrap, wrap

    begun = {"w": np.zeros((10, 10), np.float32)}
    step = np.random.default_rng(0).uniform(1, 2, (10, 10)).astype(np.float32)
    wrap(
        {"w": step},
        tmp_path,
        server_round=server_round,
        reply=SimpleNamespace(chosen="model", alpha=None),
        begun=begun,
        waiting=tmp_path / "none",
        own_head=False,
        wire=WireConfig(encoding="int8", delta=True, top_k=0.1),
    )
    assert np.count_nonzero(restore(unwrap(tmp_path)[0], begun)["w"]) == moved

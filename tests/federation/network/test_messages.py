from __future__ import annotations

import json
from dataclasses import asdict, fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from flames.errors import FlamesError
from flames.federation.exchange import Reply
from flames.federation.network.messages import MessageError, decode, encode
from flames.federation.network.replies import _Reply, as_progress, as_reply
from flames.federation.network.score_rows import CaseRow, Scorer, check_scores
from flames.metrics.cases import CaseScore, score_case

DTYPES = st.sampled_from([np.float32, np.float16, np.int64, np.uint8])
NAMED = st.dictionaries(
    st.text(min_size=1, max_size=8),
    DTYPES.flatmap(
        lambda dtype: arrays(dtype, array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    ),
    max_size=5,
)


@settings(max_examples=40)
@given(NAMED)
def test_what_is_packed_comes_out_bit_for_bit(named):
    _, sections = decode(encode({"round": 1}, {"weights": named}))
    found = sections["weights"]
    assert set(found) == set(named)
    for name, array in named.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == np.ascontiguousarray(array).tobytes()


def test_weights_shrink_without_loss():
    weights = np.random.default_rng(0).normal(0, 0.05, 200_000).astype(np.float32)
    message = encode({}, {"weights": {"w": weights}})
    assert len(message) < 0.9 * weights.nbytes


def message() -> bytes:
    return encode(
        {"round": 1}, {"weights": {"w": np.arange(6, dtype=np.float32), "n": np.int64(3)}}
    )


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_byte_is_noticed_or_harmless(place, change):
    good = bytearray(message())
    good[place % len(good)] ^= change
    try:
        _, sections = decode(bytes(good))
    except MessageError:
        return
    for array in sections.get("weights", {}).values():
        assert array.dtype in (np.float32, np.int64)


@given(st.binary(max_size=200))
def test_noise_is_refused(noise):
    with pytest.raises(FlamesError, match="damaged"):
        decode(noise)
    with pytest.raises(FlamesError, match="damaged"):
        decode(b"FLM1" + noise)


@pytest.mark.parametrize("cut", [0, 3, 8, 30, -1])
def test_a_cut_message_is_refused(cut):
    with pytest.raises(MessageError):
        decode(message()[:cut])


def test_what_is_too_large_when_packed_is_not_even_read(monkeypatch):
    def never(*_):
        raise AssertionError("it was read")

    noise = np.random.default_rng(0).integers(0, 255, 50_000, dtype=np.uint8)
    packed = encode({}, {"weights": {"w": noise}})
    assert len(packed) > noise.nbytes
    assert decode(packed, most_bytes=noise.nbytes)[1]["weights"]["w"].tolist() == noise.tolist()
    monkeypatch.setattr("flames.federation.network.messages.unpack", never)
    with pytest.raises(MessageError, match="larger than 30,000 bytes"):
        decode(packed, most_bytes=30_000)


def forged(change) -> bytes:
    good = message()
    size = int.from_bytes(good[4:8], "little")
    head = json.loads(good[8 : 8 + size])
    change(head["sections"]["weights"])
    text = json.dumps(head).encode()
    return good[:4] + len(text).to_bytes(4, "little") + text + good[8 + size :]


FORGERIES = {
    "a dtype that is no number": lambda h: h["groups"][0].update(dtype="object"),
    "a huge shape": lambda h: h["groups"][0].update(shapes=[[10**12]]),
    "a negative shape": lambda h: h["groups"][0].update(shapes=[[-6]]),
    "another digest": lambda h: h.update(sha256="0" * 64),
    "a missing name": lambda h: h["groups"][0].update(names=[]),
    "no groups": lambda h: h.pop("groups"),
    "more bytes than there are": lambda h: h.update(bytes=10**9),
    "planes that do not fit": lambda h: h["groups"][0].update(planes=[1, 2, 3]),
}


@pytest.mark.parametrize("change", FORGERIES.values(), ids=FORGERIES)
def test_a_head_that_lies_is_refused(change):
    with pytest.raises(MessageError):
        decode(forged(change))


def test_all_arrays_of_a_message_share_one_limit(monkeypatch):
    two = encode({}, {"a": {"w": np.zeros(1000)}, "b": {"w": np.zeros(1000)}})
    assert len(two) < 2000 < len(decode(two, most_bytes=16_000)[1]["b"]["w"].tobytes())
    with pytest.raises(MessageError, match="larger than 7,999 bytes"):
        decode(two, most_bytes=15_999)
    with pytest.raises(MessageError, match="'b', which are not asked for"):
        decode(two, sections=("a",))

    def never(*_):
        raise AssertionError("it was unpacked")

    monkeypatch.setattr("flames.federation.network.messages._release", never)
    with pytest.raises(MessageError, match="larger than 0 bytes"):
        decode(two, most_bytes=0)


# --- what stands beside arrays ------------------------------------------------------------------

HUGE = 10**400
REPLY = asdict(
    Reply(
        client="us-a",
        modality="US",
        num_examples=4,
        validation={"own": 0.25, "mixture": 1},
        alpha=0.5,
        chosen="mixture",
        best=0.25,
        best_round=1,
        loss=1.75,
        learning_rate=0.02,
        seconds={"train": 2.5, "validate": 0, "data": 0.5},
        validation_cases=2,
        curves={"own": [[0.5, 2, 2, 0, 0, 0]] * 29, "kept": None},
    )
)
ODD_REPLIES = {
    "no seconds": {"seconds": {}},
    "other seconds": {"seconds": {"train": 1.0, "validate": 1.0, "sleep": 1.0}},
    "negative seconds": {"seconds": {"train": -1.0, "validate": 1.0, "data": 1.0}},
    "a score that overflows": {"validation": {"own": 1.7e308}},
    "a score above 1": {"validation": {"own": 1000.0}},
    "a best score above 1": {"best": 1000.0},
    "a huge number of cases": {"num_examples": HUGE},
    "no case": {"num_examples": 0},
    "a loss that is no number": {"loss": float("nan")},
    "an infinite rate": {"learning_rate": float("inf")},
    "a curve that overflows": {"curves": {"own": [[1e308] * 6] * 29}},
    "a curve of more cases than judged it": {"curves": {"own": [[0.5, 2, 2, 0, 1, 0]] * 29}},
    "a short curve": {"curves": {"own": [[0.5] * 6]}},
    "a way with a line feed": {"chosen": "own\n"},
    "another field": {"more": 1},
}


@pytest.mark.parametrize("change", ODD_REPLIES.values(), ids=ODD_REPLIES)
def test_a_reply_that_cannot_be_is_refused(change):
    assert asdict(as_reply(REPLY, client="us-a", modality="US")) == REPLY
    with pytest.raises(MessageError, match="its reply holds what cannot be"):
        as_reply(REPLY | change, client="us-a", modality="US")


def test_a_reply_has_the_fields_that_are_checked():
    assert set(_Reply.model_fields) == {field.name for field in fields(Reply)}


@pytest.mark.parametrize(
    "odd", [{"loss": float("nan")}, {"done": HUGE}, {"done": "x"}, {"round": []}, {"more": 1}]
)
def test_a_sign_of_life_that_cannot_be_is_refused(odd):
    assert as_progress({"round": 1, "done": 2, "loss": 0.5}).done == 2
    assert as_progress({"round": None}).round is None
    with pytest.raises(MessageError, match="a sign of life holds what cannot be"):
        as_progress({"round": 1, "done": 2, "loss": 0.5} | odd)


MASK = np.array([[True, False], [True, True]])
ROW = {
    "model": "server:US",
    "model_kind": "server",
    "site": "us-a",
    "modality": "US",
    "organ": "breast",
    "hospital": None,
    "case_id": "us-a-01",
    "group": "patient 7",
    **score_case(MASK, ~MASK, spacing=(1.0, 1.0), spacing_unit="px", presence_score=0.75).as_row(),
}
BIN = {
    "model": "server:US", "site": "us-a", "bin": 3, "pixels": 4, "probability": 0.7, "tumour": 1
}  # fmt: skip
SENT = {"rows": [ROW], "calibration": [BIN], "seconds": 1.5, "aggregates": []}
SCORER = Scorer("us-a", "US", "breast", "US", test_cases=1)
ODD_ROWS = {
    "text for a score": {"dice": "x"},
    "a score above 1": {"dice": 7.5},
    "another column": {"more": 1},
    "a formula for a case": {"case_id": "=1+1"},
    "a formula for a group": {"group": "=1+1"},
    "a terminal's escape": {"hospital": "\x1b[2J"},
    "half of a pair": {"group": "\ud800"},
    "another site": {"site": "us-b"},
    "another site's model": {"model": "personal:us-b", "model_kind": "personal"},
    "a model of another kind": {"model": "personal:us-a"},
    "another modality's model": {"model": "server:MR"},
    "another modality": {"modality": "MR"},
    "another organ": {"organ": "liver"},
    "a huge count": {"label_voxels": HUGE},
    "an infinite distance": {"hd95": float("inf")},
    "neither yes nor no": {"tumour_present": 2},
}


@pytest.mark.parametrize("change", ODD_ROWS.values(), ids=ODD_ROWS)
def test_a_row_of_scores_that_cannot_be_is_refused(change):
    assert check_scores(SENT, SCORER) == SENT
    with pytest.raises(MessageError, match="scores"):
        check_scores(SENT | {"rows": [ROW | change]}, SCORER)


@pytest.mark.parametrize(
    "change",
    [
        {"rows": [ROW, ROW]},
        {"rows": [{k: v for k, v in ROW.items() if k != "dice"}]},
        {"rows": "x"},
        {"calibration": [BIN | {"pixels": "x"}]},
        {"calibration": [BIN | {"bin": 20}]},
        {"calibration": [BIN | {"tumour": 5}]},
        {"calibration": [BIN | {"probability": 4.1}]},
        {"rows": [ROW, ROW | {"case_id": "us-a-02"}]},
        {"calibration": [BIN, BIN]},
        {"seconds": HUGE},
        {"seconds": None},
    ],
)
def test_tables_of_scores_that_cannot_be_are_refused(change):
    with pytest.raises(MessageError, match="its"):
        check_scores(SENT | change, SCORER)


def test_a_row_of_scores_has_the_columns_that_are_checked():
    assert list(CaseRow.model_fields) == list(ROW)
    assert [f.name for f in fields(CaseScore)] == list(ROW)[8:]

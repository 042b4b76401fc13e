from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from flames.errors import FlamesError
from flames.federation.network.messages import MessageError, decode, encode

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

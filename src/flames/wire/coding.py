"""Named arrays as they travel, and back: whole or as a difference from what the receiver holds.

Each array is coded by itself, in one of these ways, each a letter:

==  ==============================================================================================
p   as it is: integers, vectors in lossy codings, and whatever a coding cannot hold
x   float32, exclusive or with the receiver's bits: lossless, and most of it zeros
h   float16                     H   float16 of the difference
b   bfloat16                    B   bfloat16 of the difference
q   int8 with a scale a row     Q   int8 of the difference
F   float32 of the difference, where only the largest entries travel
==  ==============================================================================================

Capitals may come with a mask of the entries that travel; the others keep the receiver's value. A
row is what belongs to one index of the first axis, an output channel of a convolution. Whoever
sends restores too, so both sides hold the same bits afterwards.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from flames.config import WireConfig

Arrays = Mapping[str, np.ndarray]
LEVELS = 127
FLOAT16_MOST = 65504.0
WHOLE = {"float16": "h", "bfloat16": "b", "int8": "q"}
MOVED = {"float16": "H", "bfloat16": "B", "int8": "Q", "float32": "F"}


@dataclass(frozen=True)
class Coded:
    """Named arrays as they travel."""

    letters: str
    """How each array is coded, in the order of the sorted names."""
    values: dict[str, np.ndarray]
    scales: dict[str, np.ndarray] = field(default_factory=dict)
    """Float32, one a row, of the arrays that travel as int8."""
    masks: dict[str, np.ndarray] = field(default_factory=dict)
    """Bits, eight in a byte, of the entries that travel."""
    moments: dict[str, np.ndarray] = field(default_factory=dict)
    """The optimiser's moments, which travel as they are beside weights that do; mostly none."""

    @property
    def needs_base(self) -> bool:
        """Return whether some array is a difference."""
        return any(letter == "x" or letter.isupper() for letter in self.letters)


def code(arrays: Arrays, base: Arrays | None, wire: WireConfig) -> Coded:
    """Return ``arrays`` as ``wire`` lets them travel to somebody who holds ``base``.

    An array that ``base`` lacks, and every array where there is none, travels whole; then int8 with
    `WireConfig.delta` is float16, because whole weights span a wider range than their movements.

    >>> held = {"w": np.array([[1.0, 2.0]], np.float32)}
    >>> sent = {"w": np.array([[1.5, 1.0]], np.float32)}
    >>> coded = code(sent, held, WireConfig(encoding="int8", delta=True))
    >>> coded.values["w"].tolist()  # 0.5 and −1 in steps of 1/127
    [[64, -127]]
    """
    letters = []
    coded = Coded("", {})
    for name in sorted(arrays):
        held = None if base is None or not wire.delta else base.get(name)
        letters.append(_code_one(name, np.asarray(arrays[name]), held, wire, coded))
    return Coded("".join(letters), coded.values, coded.scales, coded.masks)


def restore(coded: Coded, base: Arrays | None) -> dict[str, np.ndarray]:
    """Return the arrays that the receiver makes of it; the same bits on every machine.

    Raises:
        ValueError: Letters, shapes and masks do not fit each other or ``base``.
    """
    names = sorted(coded.values)
    if len(names) != len(coded.letters):
        raise ValueError(f"{len(names)} arrays and {len(coded.letters)} codings")
    restored = {}
    for name, letter in zip(names, coded.letters, strict=True):
        value = coded.values[name]
        if letter not in "phbqxHBQF":
            raise ValueError(f"array {name!r} has no known coding")
        if letter == "x" or letter.isupper():
            if base is None or name not in base:
                raise ValueError(f"array {name!r} is a difference from what is not there")
            restored[name] = _add(name, letter, value, np.asarray(base[name]), coded)
        else:
            restored[name] = value if letter == "p" else _decode(name, letter, value, coded)
    return restored


def digest_of(arrays: Arrays) -> str:
    """Return a digest of names, dtypes, shapes and bits, by which two sides know they agree."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.asarray(arrays[name], order="C")
        digest.update(f"{name}\x1f{array.dtype}\x1f{array.shape}\x1f".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _code_one(
    name: str, array: np.ndarray, held: np.ndarray | None, wire: WireConfig, coded: Coded
) -> str:
    """Put one array among the coded ones and return its letter."""
    coded.values[name] = array
    if array.dtype != np.float32 or (held is not None and held.shape != array.shape):
        return "p"
    lossless = wire.encoding == "float32" and wire.top_k == 1
    if lossless or (array.ndim < 2 and (wire.encoding == "int8" or wire.top_k < 1)):
        if held is None or held.dtype != np.float32:
            return "p"
        coded.values[name] = _bits(array) ^ _bits(held)
        return "x"
    if held is None:
        fewer = "float16" if wire.delta and wire.encoding == "int8" else wire.encoding
        letter = WHOLE.get(fewer, "p")
        return letter if _put(name, letter, array, None, coded) else "p"
    moved = np.asarray(array - held.astype(np.float32))
    mask = _largest(moved, wire.top_k) if wire.top_k < 1 else None
    letter = MOVED[wire.encoding]
    return letter if _put(name, letter, moved, mask, coded) else "p"


def _put(name: str, letter: str, values: np.ndarray, mask: np.ndarray | None, coded: Coded) -> bool:
    """Code values, unless they are not finite or leave the coding's range."""
    most = float(np.max(np.abs(values), initial=0.0))
    if letter == "p" or not math.isfinite(most) or (letter in "hH" and most > FLOAT16_MOST):
        return False
    if letter in "qQ":
        values = values if mask is None else np.where(mask, values, np.float32(0))
        rows = values.reshape(len(values), -1) if values.ndim > 1 else values.reshape(1, -1)
        scales = np.abs(rows).max(axis=1, initial=0.0) / np.float32(LEVELS)
        steps = np.where(scales > 0, scales, np.float32(1))[:, None]
        kept = np.clip(np.rint(rows / steps), -LEVELS, LEVELS).astype(np.int8)
        kept = kept.reshape(values.shape)
        coded.scales[name] = scales
    elif letter in "hH":
        kept = values.astype(np.float16)
    elif letter in "bB":
        kept = _as_bfloat16(values)
    else:
        kept = values
    coded.values[name] = kept if mask is None else kept[mask]
    if mask is not None:
        coded.masks[name] = np.packbits(mask.reshape(-1))
    return True


def _add(name: str, letter: str, value: np.ndarray, held: np.ndarray, coded: Coded) -> np.ndarray:
    if held.dtype != np.float32:
        raise ValueError(f"array {name!r} is a difference from {held.dtype}")
    if letter == "x":
        if value.dtype != np.uint32 or value.shape != held.shape:
            raise ValueError(f"array {name!r} is of another shape than what it differs from")
        return (value ^ _bits(held)).view(np.float32)
    mask = coded.masks.get(name)
    if mask is None:
        if value.shape != held.shape:
            raise ValueError(f"array {name!r} is of another shape than what it differs from")
        return np.asarray(held + _decode(name, letter, value, coded))
    if mask.dtype != np.uint8 or mask.ndim != 1 or len(mask) != -(-held.size // 8):
        raise ValueError(f"the mask of array {name!r} does not fit")
    chosen = np.unpackbits(mask, count=held.size).astype(bool)
    if value.ndim != 1 or len(value) != int(np.count_nonzero(chosen)):
        raise ValueError(f"array {name!r} has another number of entries than its mask")
    whole = np.zeros(held.size, value.dtype)
    whole[chosen] = value
    return held + _decode(name, letter, whole.reshape(held.shape), coded)


def _decode(name: str, letter: str, value: np.ndarray, coded: Coded) -> np.ndarray:
    """Return float32 of what one array or difference holds."""
    wanted = {"h": "float16", "b": "uint16", "q": "int8", "f": "float32"}[letter.lower()]
    if str(value.dtype) != wanted:
        raise ValueError(f"array {name!r} is {value.dtype}, expected {wanted}")
    if letter in "bB":
        return (value.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if letter in "qQ":
        rows = value.reshape(len(value), -1) if value.ndim > 1 else value.reshape(1, -1)
        scales = coded.scales.get(name)
        if scales is None or scales.dtype != np.float32 or scales.shape != (len(rows),):
            raise ValueError(f"array {name!r} has no scale for each row")
        return (rows.astype(np.float32) * scales[:, None]).reshape(value.shape)
    return value.astype(np.float32)


def _largest(moved: np.ndarray, share: float) -> np.ndarray:
    """Return a mask of the share of entries that moved most; equals of the last one stay too."""
    count = max(1, round(share * moved.size))
    size = np.abs(moved)
    if count >= moved.size:
        return np.ones(moved.shape, bool)
    last = np.partition(size.reshape(-1), moved.size - count)[moved.size - count]
    return (size >= last) & (size > 0)


def _bits(array: np.ndarray) -> np.ndarray:
    return np.asarray(array, order="C").view(np.uint32)


def _as_bfloat16(values: np.ndarray) -> np.ndarray:
    """Return the upper halves of float32, rounded to the nearest and to even."""
    bits = _bits(values)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    return ((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)).astype(np.uint16)

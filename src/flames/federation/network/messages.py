"""One message: a head of plain facts, and named arrays packed into one buffer.

::

    FLM1 | length of the head | head as JSON | planes of bytes, one after the other

Arrays of one dtype lie behind each other. Their bytes are regrouped into planes, all first bytes,
then all second bytes: the upper bytes of weights repeat and compress, the lower ones do not and are
left as they are. The head names every array with shape and dtype, every plane with its length, and
the SHA-256 of the whole buffer. Nothing in a message can carry code.
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Collection, Mapping
from typing import Any, Literal

import numpy as np

from flames.errors import FlamesError

Arrays = Mapping[str, np.ndarray]
MAGIC = b"FLM1"
DTYPES = ("float32", "float16", "float64", "uint8", "int8", "uint16", "uint32", "int32", "int64")
Compression = Literal["zlib", "none"]
LOOK = 65536
STRATEGIES = (zlib.Z_DEFAULT_STRATEGY, zlib.Z_HUFFMAN_ONLY)
MAX_HEAD = 16_000_000
MAX_ARRAYS_BYTES = 8_000_000_000
"""Of all arrays of one message together, where whoever reads it knows no smaller limit."""
PACKED = 1.01
"""Times the bytes of arrays that they may have packed: what cannot be compressed grows a little."""
MARKS = 10_000
"""Bytes for marks of planes, on top of that."""


class MessageError(FlamesError):
    """A message that cannot be what it says."""

    def __init__(self, found: str) -> None:
        super().__init__(f"a message is damaged: {found}", "it is set aside and asked for again")


def encode(
    head: Mapping[str, Any],
    sections: Mapping[str, Arrays | None] | None = None,
    compression: Compression = "zlib",
) -> bytes:
    """Return one message of facts and of arrays by section, such as ``{"weights": arrays}``.

    >>> message = encode({"round": 3}, {"weights": {"w": np.array([1.0, 4.0], np.float32)}})
    >>> head, sections = decode(message)
    >>> head["round"], sections["weights"]["w"].tolist()
    (3, [1.0, 4.0])
    """
    packed, parts = {}, []
    for section, arrays in (sections or {}).items():
        if arrays is not None:
            packed[section], buffer = pack(arrays, compression)
            parts.append(buffer)
    text = json.dumps({"facts": dict(head), "sections": packed}).encode()
    return b"".join([MAGIC, len(text).to_bytes(4, "little"), text, *parts])


def decode(
    message: bytes,
    *,
    sections: Collection[str] | None = None,
    most_bytes: int = MAX_ARRAYS_BYTES,
) -> tuple[dict[str, Any], dict[str, dict[str, np.ndarray]]]:
    """Return the facts and the arrays by section.

    A few compressed bytes can stand for many: nothing is unpacked beyond ``most_bytes``.

    Args:
        message: As it arrived.
        sections: Names that it may hold; None for any.
        most_bytes: Of all its arrays together, unpacked.

    Raises:
        MessageError: It is cut, altered, too large, or its head and its bytes do not fit.
    """
    head, start = _head(message)
    try:
        facts, packed = dict(head["facts"]), dict(head["sections"])
        found: dict[str, dict[str, np.ndarray]] = {}
        left = most_bytes
        for name, header in packed.items():
            if sections is not None and name not in sections:
                raise MessageError(f"it holds arrays {name[:40]!r}, which are not asked for")
            size = int(header["bytes"])
            if size < 0 or start + size > len(message):
                raise MessageError("it ends too early")
            if size > PACKED * left + MARKS:
                raise MessageError(f"its arrays are larger than {left:,} bytes")
            found[name] = unpack(header, message[start : start + size], left)
            left -= sum(array.nbytes for array in found[name].values())
            start += size
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise MessageError(f"its head is wrong ({error})") from error
    if start != len(message):
        raise MessageError("it is longer than it says")
    return facts, found


def peek(message: bytes) -> tuple[dict[str, Any], list[str]]:
    """Return the facts and the names of the sections, without unpacking an array.

    Raises:
        MessageError: Its head is damaged.
    """
    head, _ = _head(message)
    try:
        return dict(head["facts"]), [str(name) for name in head["sections"]]
    except (KeyError, TypeError, ValueError) as error:
        raise MessageError(f"its head is wrong ({error})") from error


def pack(arrays: Arrays, compression: Compression = "zlib") -> tuple[dict[str, Any], bytes]:
    """Return the head and the one buffer of named arrays."""
    names: dict[str, list[str]] = {}
    for name in sorted(arrays):
        names.setdefault(str(np.asarray(arrays[name]).dtype), []).append(name)
    groups, parts = [], []
    for dtype, members in names.items():
        flat = [np.ascontiguousarray(arrays[name]).reshape(-1) for name in members]
        joined = np.concatenate(flat) if len(flat) > 1 else flat[0]
        planes = [_press(plane, compression) for plane in _planes(joined)]
        parts += planes
        groups.append(
            {
                "dtype": dtype,
                "names": members,
                "shapes": [list(np.shape(arrays[name])) for name in members],
                "planes": [len(plane) for plane in planes],
            }
        )
    buffer = b"".join(parts)
    digest = hashlib.sha256(buffer).hexdigest()
    return {"groups": groups, "bytes": len(buffer), "sha256": digest}, buffer


def unpack(
    header: Mapping[str, Any], buffer: bytes, most_bytes: int = MAX_ARRAYS_BYTES
) -> dict[str, np.ndarray]:
    """Return the named arrays of one buffer.

    Raises:
        MessageError: The digest differs, sizes, shapes and dtypes do not fit, or the arrays are
            larger than ``most_bytes``.
    """
    if hashlib.sha256(buffer).hexdigest() != header["sha256"]:
        raise MessageError("its digest differs from its content")
    arrays: dict[str, np.ndarray] = {}
    start, left = 0, most_bytes
    for group in header["groups"]:
        if group["dtype"] not in DTYPES:
            raise MessageError(f"dtype {group['dtype']!r} is not one of weights")
        dtype = np.dtype(group["dtype"])
        shapes = [tuple(int(n) for n in shape) for shape in group["shapes"]]
        if any(n < 0 for shape in shapes for n in shape):
            raise MessageError("a shape is negative")
        sizes = [math.prod(shape) for shape in shapes]
        left -= sum(sizes) * dtype.itemsize
        if left < 0:
            raise MessageError(f"its arrays are larger than {most_bytes:,} bytes")
        if len(group["planes"]) != dtype.itemsize or len(sizes) != len(group["names"]):
            raise MessageError("its sizes do not fit")
        planes = []
        for length in group["planes"]:
            planes.append(_release(buffer[start : start + int(length)], sum(sizes)))
            start += int(length)
        joined = np.stack(planes, axis=1).reshape(-1).view(dtype) if sum(sizes) else None
        place = 0
        for name, shape, size in zip(group["names"], shapes, sizes, strict=True):
            part = np.zeros(0, dtype) if joined is None else joined[place : place + size]
            arrays[str(name)] = part.reshape(shape)
            place += size
    if start != len(buffer):
        raise MessageError("its buffer is longer than its arrays")
    return arrays


def _head(message: bytes) -> tuple[dict[str, Any], int]:
    if not isinstance(message, bytes) or message[:4] != MAGIC or len(message) < 8:
        raise MessageError("it is not a message of FLAMES")
    size = int.from_bytes(message[4:8], "little")
    if size > MAX_HEAD or 8 + size > len(message):
        raise MessageError("it ends too early")
    try:
        head = json.loads(message[8 : 8 + size])
    except (ValueError, RecursionError) as error:
        raise MessageError("its head is not JSON") from error
    if not isinstance(head, dict):
        raise MessageError("its head is not a table")
    return head, 8 + size


def _planes(joined: np.ndarray) -> list[np.ndarray]:
    """Return all first bytes, all second bytes, and so on."""
    table = joined.view(np.uint8).reshape(-1, joined.dtype.itemsize)
    return [np.ascontiguousarray(table[:, index]) for index in range(joined.dtype.itemsize)]


def _press(plane: np.ndarray, compression: Compression) -> bytes:
    """Return a plane, compressed where looks at its start and its middle say that it pays.

    Bytes that only differ in how often they occur, as rounded differences do, are coded by that
    alone: faster and smaller than a search for what repeats.
    """
    raw = plane.tobytes()
    middle = len(raw) // 2
    look = raw[:LOOK] + raw[middle : middle + LOOK]
    tried = {strategy: len(_deflate(look, strategy)) for strategy in STRATEGIES}
    best = min(tried, key=lambda strategy: tried[strategy])
    if compression == "none" or tried[best] > 0.95 * len(look):
        return b"\0" + raw
    return b"\1" + _deflate(raw, best)


def _deflate(content: bytes, strategy: int) -> bytes:
    stream = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, strategy)
    return stream.compress(content) + stream.flush()


def _release(pressed: bytes, size: int) -> np.ndarray:
    kind, content = pressed[:1], pressed[1:]
    if kind == b"\1":
        try:
            stream = zlib.decompressobj()
            content = stream.decompress(content, size + 1)
        except zlib.error as error:
            raise MessageError(f"it cannot be decompressed ({error})") from error
    elif kind != b"\0":
        raise MessageError("a plane is of no known kind")
    if len(content) != size:
        raise MessageError("a plane is of another size")
    return np.frombuffer(content, np.uint8)

"""Named arrays as safetensors files: no file here can carry code."""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from flames.errors import FlamesError, NotWritten

Arrays = Mapping[str, np.ndarray]
DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2",
    "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?",
}  # fmt: skip


class LazyArrays(Mapping[str, np.ndarray]):
    """Named arrays of a safetensors file, mapped one at a time when asked for, each time anew.

    They cannot be written to, and leave memory when nobody holds them any more.
    """

    def __init__(self, path: Path) -> None:
        """Read the head of the file: names, dtypes, shapes and places.

        Raises:
            FlamesError: The file is missing or damaged.
        """
        with _open(path) as file:
            names = tuple(file.keys())
        self.path = path
        with path.open("rb") as content:
            size = int.from_bytes(content.read(8), "little")
            head = json.loads(content.read(size))
        self._start = 8 + size
        self._places = {name: head[name] for name in names}

    def __getitem__(self, name: str) -> np.ndarray:
        place = self._places[name]
        dtype, (start, end) = np.dtype(DTYPES[place["dtype"]]), place["data_offsets"]
        count = (end - start) // dtype.itemsize
        if count == 0:
            return np.zeros(place["shape"], dtype)
        with self.path.open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return np.frombuffer(content, dtype, count, self._start + start).reshape(place["shape"])

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def save_arrays(path: Path, arrays: Arrays, metadata: Mapping[str, Any] | None = None) -> int:
    """Write arrays whole, then rename; return the bytes written.

    Metadata values that are not text are written as JSON.

    Raises:
        NotWritten: The disk is full or the folder cannot be written.
    """
    words = {k: v if isinstance(v, str) else json.dumps(v) for k, v in (metadata or {}).items()}
    # Of nothing at all with empty metadata safetensors writes a header that cannot be read.
    content = _in_order(
        save({name: np.asarray(arrays[name], order="C") for name in arrays}, metadata=words or None)
    )
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise NotWritten(
            f"cannot write {path}: {error.strerror}",
            "free some space, then continue the run with --resume",
        ) from error
    return len(content)


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return all arrays of a safetensors file.

    Raises:
        FlamesError: The file is missing or damaged.
    """
    with _open(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def load_metadata(path: Path) -> dict[str, str]:
    """Return the text that was written beside the arrays."""
    with _open(path) as file:
        return dict(file.metadata() or {})


def _in_order(content: bytes) -> bytes:
    """Return the file with its metadata sorted: safetensors writes it in a random order."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    if "__metadata__" in header:
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[end:]


def _open(path: Path) -> Any:
    try:
        return safe_open(path, framework="np")
    except (OSError, SafetensorError) as error:
        raise FlamesError(
            f"cannot read weights from {path}: {error}", "name a whole safetensors file"
        ) from error

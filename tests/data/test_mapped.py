from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import get_ident
from time import sleep

import numpy as np
import pytest
from numpy.lib import format as npy

from flames.data.mapped import map_array


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24, dtype=np.int16).reshape(2, 3, 4),
        np.zeros((1025, 1025), np.uint8),
        np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
        np.array([[True, False]]),
    ],
)
def test_an_array_comes_back_read_only(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    found = map_array(tmp_path / "a.npy")
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype
    assert not found.flags.writeable


def test_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    for array in (np.zeros(3, np.uint8), np.ones((2, 2), np.int16), np.full((2, 2), 7, np.int16)):
        np.save(tmp_path / "a.npy", array)
        np.testing.assert_array_equal(map_array(tmp_path / "a.npy"), array)


@pytest.mark.parametrize("keep", [0, 5, 9, 40, 130])
def test_a_short_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.arange(100))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"\w"):
        map_array(path)


def test_python_objects_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(ValueError, match="Python objects"):
        map_array(tmp_path / "a.npy")


def test_headers_are_parsed_one_after_another(tmp_path, monkeypatch):
    # The parser of Python 3.11 may fail where two threads are in it.
    inside, most = set(), []
    parse = npy.read_array_header_1_0

    def slowly(stream):
        inside.add(get_ident())
        most.append(len(inside))
        sleep(0.01)
        try:
            return parse(stream)
        finally:
            inside.discard(get_ident())

    monkeypatch.setattr(npy, "read_array_header_1_0", slowly)
    for number in range(1, 17):
        np.save(tmp_path / f"{number}.npy", np.zeros((number, 977), np.uint8))
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda n: map_array(tmp_path / f"{n}.npy").shape[0], range(1, 17))
        assert list(found) == list(range(1, 17))
    assert len(most) == 16
    assert set(most) == {1}

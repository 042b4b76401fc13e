from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from flames.errors import FlamesError
from flames.models.weights import (
    LazyArrays,
    load_arrays,
    load_metadata,
    load_weights,
    model_arrays,
    save_arrays,
    set_model_arrays,
)

ARRAYS = {
    "w": np.array([[0.1, -0.0], [np.float32(1e-42), 3.0]], np.float32),
    "scalar": np.array(7, np.int64),
    "columns": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
    "none": np.zeros((0, 3), np.float32),
}


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


def test_round_trip_is_equal_bit_for_bit(tmp_path):
    path = tmp_path / "deep" / "w.safetensors"
    written = save_arrays(path, ARRAYS, {"name": "x", "size": 3})
    assert written == path.stat().st_size
    for known in (load_arrays(path), LazyArrays(path)):
        assert set(known) == set(ARRAYS)
        for name, array in ARRAYS.items():
            assert (known[name].shape, known[name].dtype) == (array.shape, array.dtype)
            assert known[name].tobytes() == array.tobytes("C")
    assert load_metadata(path) == {"name": "x", "size": "3"}
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_equal_arrays_give_equal_files(tmp_path):
    words = {f"key-{n}": "word" * n for n in range(12)}
    for name in "abcdef":
        save_arrays(tmp_path / name, ARRAYS, words)
    assert len({(tmp_path / name).read_bytes() for name in "abcdef"}) == 1


def test_a_networks_weights_round_trip_with_its_buffers(tmp_path):
    one, other = network(), network()
    one(torch.randn(2, 1, 8, 8))
    save_arrays(tmp_path / "w", model_arrays(one))
    set_model_arrays(other, load_arrays(tmp_path / "w"))
    state = other.state_dict()
    assert int(state["1.num_batches_tracked"]) == 1
    for name, value in one.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_returned_weights_are_copies():
    model = network()
    arrays = model_arrays(model)
    known = {name: array.copy() for name, array in arrays.items()}
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(1)
    np.testing.assert_equal(arrays, known)
    set_model_arrays(model, arrays)
    arrays["0.weight"][:] = 99
    assert model[0].weight.max() < 99


def test_weights_of_another_network_are_refused():
    with pytest.raises(FlamesError, match="not of this network"):
        set_model_arrays(network(), {"w": np.ones(1, np.float32)})
    wrong = model_arrays(network()) | {"0.weight": np.ones((2, 1, 5, 5), np.float32)}
    with pytest.raises(FlamesError, match=r"not of this network.*0\.weight"):
        set_model_arrays(network(), wrong)


def test_a_file_of_another_network_is_named_with_how_many_arrays_differ(tmp_path):
    path = tmp_path / "sent.safetensors"
    known = model_arrays(network())
    for changes, words in (
        ({"0.weight": np.ones((2, 1, 5, 5), np.float32)}, "array '0.weight' differs"),
        ({"0.weight": known["1.bias"], "1.bias": known["0.weight"]}, "and 1 more differ"),
    ):
        save_arrays(path, known | changes)
        with pytest.raises(FlamesError, match=words) as caught:
            load_weights(network(), path)
        assert str(path) in caught.value.found


@pytest.mark.parametrize("name", ["0.weight", "1.running_var"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_a_file_with_weights_that_are_not_finite_is_refused(tmp_path, name, value):
    path = tmp_path / "sent.safetensors"
    wrong = model_arrays(network())
    wrong[name] = wrong[name].astype(np.float64)
    wrong[name].flat[-1] = value
    save_arrays(path, wrong)
    with pytest.raises(FlamesError, match=f"not finite: array '{name}' is not") as caught:
        load_weights(network(), path)
    assert str(path) in caught.value.found
    assert "earlier round" in caught.value.remedy


def test_large_weights_whose_sum_is_not_finite_are_taken(tmp_path):
    large = model_arrays(network())
    large["0.weight"][:] = 3e38
    save_arrays(tmp_path / "w", large)
    model = network()
    load_weights(model, tmp_path / "w")
    assert float(model[0].weight.detach().sum()) == np.inf
    assert float(model[0].weight.detach()[0, 0, 0, 0]) == np.float32(3e38)


@pytest.mark.parametrize("keep", [0, 4, 60, -1])
def test_a_file_cut_short_is_refused(tmp_path, keep):
    path = tmp_path / "w.safetensors"
    save_arrays(path, ARRAYS)
    path.write_bytes(path.read_bytes()[:keep])
    for read in (load_arrays, LazyArrays, load_metadata):
        with pytest.raises(FlamesError, match="cannot read weights"):
            read(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FlamesError, match=r"none\.safetensors"):
        load_arrays(tmp_path / "none.safetensors")


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    save_arrays(path, ARRAYS)
    before = path.read_bytes()

    def full(self, content):
        self.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(FlamesError, match="No space left"):
        save_arrays(path, {"w": np.zeros(3)})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_nothing_but_the_metadata_is_reordered(tmp_path):
    save_arrays(tmp_path / "w", ARRAYS, {"b": "ü", "a": '"quoted"'})
    content = (tmp_path / "w").read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    assert end % 8 == 0
    assert list(json.loads(content[8:end])["__metadata__"]) == ["a", "b"]

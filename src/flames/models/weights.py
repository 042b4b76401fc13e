"""Weights and optimiser state of networks as named arrays, and back."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from flames.array_files import LazyArrays, load_arrays, load_metadata, save_arrays
from flames.errors import FlamesError

__all__ = [
    "LazyArrays",
    "load_arrays",
    "load_metadata",
    "model_arrays",
    "optimizer_arrays",
    "save_arrays",
    "set_model_arrays",
    "set_optimizer_arrays",
]

Arrays = Mapping[str, np.ndarray]


def model_arrays(model: nn.Module) -> dict[str, np.ndarray]:
    """Return real copies of a network's weights and buffers, by name, each once.

    A module that a network reaches on two ways, as MONAI's DynUNet does, would be twice in its
    ``state_dict`` and cross the network twice.
    """
    return {
        name: tensor.detach().cpu().contiguous().numpy().copy()
        for name, tensor in _tensors(model).items()
    }


def set_model_arrays(model: nn.Module, arrays: Arrays) -> None:
    """Copy ``arrays`` into ``model``.

    Raises:
        FlamesError: Names or shapes are not this network's.
    """
    tensors = _tensors(model)
    wrong = sorted(set(tensors) ^ set(arrays)) or [
        name for name in arrays if tuple(tensors[name].shape) != arrays[name].shape
    ]
    if wrong:
        raise FlamesError(
            f"these weights are not of this network: array {wrong[0]!r} and {len(wrong) - 1} more "
            "differ",
            "use the network that the weights' metadata names",
        )
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(torch.from_numpy(np.array(arrays[name])))


def optimizer_arrays(optimizer: Optimizer) -> dict[str, np.ndarray]:
    """Return the optimiser's moments and counters as named arrays."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": np.asarray(torch.as_tensor(value).cpu().numpy())
        for index, values in state.items()
        for name, value in values.items()
    }


def set_optimizer_arrays(optimizer: Optimizer, arrays: Arrays) -> None:
    """Continue from moments and counters that `optimizer_arrays` returned."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key in arrays:
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = torch.from_numpy(np.array(arrays[key]))
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})


def _tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return dict(model.named_parameters()) | dict(model.named_buffers())

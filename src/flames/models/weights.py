"""Weights and optimiser state of networks as named arrays, and back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from flames.array_files import LazyArrays, load_arrays, load_metadata, save_arrays
from flames.errors import FlamesError
from flames.moments import FIRST, SECOND, STEPS, check_moments

__all__ = [
    "LazyArrays",
    "NotFinite",
    "load_arrays",
    "load_metadata",
    "load_weights",
    "model_arrays",
    "moment_arrays",
    "named_tensors",
    "optimizer_arrays",
    "refuse_not_finite",
    "save_arrays",
    "set_model_arrays",
    "set_moment_arrays",
    "set_optimizer_arrays",
]

Arrays = Mapping[str, np.ndarray]


class NotFinite(FlamesError):
    """A model's weights, or what it makes of an image, are no numbers."""


def model_arrays(model: nn.Module) -> dict[str, np.ndarray]:
    """Return real copies of a network's weights and buffers, by name, each once.

    A module that a network reaches on two ways, as MONAI's DynUNet does, would be twice in its
    ``state_dict`` and cross the network twice.
    """
    return {
        name: tensor.detach().cpu().contiguous().numpy().copy()
        for name, tensor in named_tensors(model).items()
    }


def set_model_arrays(model: nn.Module, arrays: Arrays, *, path: Path | None = None) -> None:
    """Copy ``arrays`` into ``model``.

    Args:
        model: The network.
        arrays: All its weights and buffers by name.
        path: The file that they come from, for messages.

    Raises:
        FlamesError: Names or shapes are not this network's.
    """
    tensors = named_tensors(model)
    wrong = sorted(set(tensors) ^ set(arrays)) or [
        name for name in arrays if tuple(tensors[name].shape) != arrays[name].shape
    ]
    if wrong:
        weights = "these weights" if path is None else f"the weights in {path}"
        raise FlamesError(
            f"{weights} are not of this network: {_listed(wrong, 'differs', 'differ')}",
            "use the network that the weights' metadata names",
        )
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(torch.from_numpy(np.array(arrays[name])))


def load_weights(model: nn.Module, path: Path) -> None:
    """Copy the weights of a finished model's file into ``model``.

    Raises:
        FlamesError: The file is damaged, is of another network, or has weights that are not finite.
    """
    set_model_arrays(model, load_arrays(path), path=path)
    refuse_not_finite(named_tensors(model).items(), path)


def refuse_not_finite(tensors: Iterable[tuple[str, Tensor]], path: Path) -> None:
    """Refuse a file's weights where any is infinite or not a number; whole numbers always pass.

    Raises:
        NotFinite: Naming the file and the first such array.
    """
    wrong = [name for name, tensor in tensors if tensor.is_floating_point() and not _finite(tensor)]
    if wrong:
        raise NotFinite(
            f"{path} has weights that are not finite: {_listed(wrong, 'is not', 'are not')}",
            "take the model of an earlier round, or ask who sent the file for another",
        )


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


def moment_arrays(model: nn.Module, optimizer: Optimizer) -> dict[str, np.ndarray]:
    """Return Adam's moments of a network's weights by their names, as another client can use them.

    See `flames.moments`.
    """
    found: dict[str, np.ndarray] = {}
    steps = 0.0
    for name, parameter in model.named_parameters():
        state = optimizer.state.get(parameter, {})
        steps = max(steps, float(state.get("step", 0.0)))
        for prefix, key in ((FIRST, "exp_avg"), (SECOND, "exp_avg_sq")):
            moment = state.get(key, torch.zeros_like(parameter))
            found[prefix + name] = moment.detach().cpu().contiguous().numpy().copy()
    return {**found, STEPS: np.asarray(steps, np.float32)}


def set_moment_arrays(
    model: nn.Module, optimizer: Optimizer, arrays: Arrays, *, longest: float = math.inf
) -> None:
    """Continue from moments that `moment_arrays` returned at another client.

    Gradients there were no longer than ``longest``, an L2 norm.

    Raises:
        FlamesError: They are not of this network, or cannot be of any optimiser.
    """
    parameters = dict(model.named_parameters())
    like = {name: p.detach().cpu().numpy() for name, p in parameters.items()}
    check_moments(arrays, like, "another client", longest=longest)
    order = [p for group in optimizer.param_groups for p in group["params"]]
    names = {id(parameter): name for name, parameter in parameters.items()}
    state = {
        index: {
            "step": torch.tensor(float(arrays[STEPS])),
            "exp_avg": torch.from_numpy(np.array(arrays[FIRST + names[id(parameter)]])),
            "exp_avg_sq": torch.from_numpy(np.array(arrays[SECOND + names[id(parameter)]])),
        }
        for index, parameter in enumerate(order)
    }
    optimizer.load_state_dict(optimizer.state_dict() | {"state": state})


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return a network's own weights and buffers by name, each once."""
    return dict(model.named_parameters()) | dict(model.named_buffers())


def _finite(tensor: Tensor) -> bool:
    """Return whether every number is finite: a finite sum says so in a tenth of the time."""
    return bool(torch.isfinite(tensor.sum())) or bool(torch.isfinite(tensor).all())


def _listed(names: list[str], one: str, several: str) -> str:
    """Return such as ``array 'a' differs``, or ``array 'a' and 2 more differ``."""
    more = f" and {len(names) - 1} more {several}" if len(names) > 1 else f" {one}"
    return f"array {names[0]!r}{more}"

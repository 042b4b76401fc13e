"""What a client's training does beside the plain loop, and what of a model never travels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

Arrays = Mapping[str, np.ndarray]
CONTROL = "control:"
"""Starts the names of control variates, which travel beside the weights."""


@dataclass(frozen=True)
class LocalRule:
    """Additions to the one local loop; the defaults add nothing."""

    proximal_mu: float = 0.0
    """Adds ``μ/2 ‖w − received‖²`` to the loss (FedProx)."""
    corrects: bool = False
    """Corrects each gradient by control variates, which travel too (SCAFFOLD)."""
    decoder_first: bool = False
    """Trains the decoder for the first half of a round's steps, the encoder after (FedRep)."""
    second: Literal["", "ditto", "apfl"] = ""
    """A second model that stays at the client, trained for the second half of a round's steps."""
    second_strength: float = 0.0
    """Ditto's λ, or the own share α that APFL begins with."""

    def shared_steps(self, steps: int) -> int:
        """Return how many of a round's steps train what travels: of two halves the first is longer.

        A single step is of either half in turn.

        >>> LocalRule().shared_steps(5), LocalRule(second="ditto").shared_steps(5)
        (5, 3)
        >>> LocalRule(decoder_first=True).shared_steps(5)
        2
        """
        if steps < 2 or not (self.second or self.decoder_first):
            return steps
        return (steps + 1) // 2 if self.second else steps // 2


PLAIN = LocalRule()


def split_controls(arrays: Arrays) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return weights and control variates, the latter under the names of their weights.

    >>> weights, controls = split_controls({"w": np.ones(1), "control:w": np.zeros(1)})
    >>> list(weights), list(controls)
    (['w'], ['w'])
    """
    weights = {name: arrays[name] for name in arrays if not name.startswith(CONTROL)}
    controls = {
        name.removeprefix(CONTROL): arrays[name] for name in arrays if name.startswith(CONTROL)
    }
    return weights, controls


def with_controls(weights: Arrays, controls: Arrays) -> dict[str, np.ndarray]:
    """Return both in one mapping, as they travel; `split_controls` undoes it."""
    return dict(weights) | {f"{CONTROL}{name}": array for name, array in controls.items()}


Private = Callable[[Arrays], frozenset[str]]
"""Names of the arrays of a whole model that never leave the client."""


def nothing_private(arrays: Arrays) -> frozenset[str]:
    """Return no name: every array travels."""
    del arrays
    return frozenset()


def norm_layers(arrays: Arrays) -> frozenset[str]:
    """Return the arrays of normalisation layers: their weight is a vector, a convolution's is not.

    >>> names = ["norm.weight", "norm.bias", "norm.running_mean", "conv.weight", "conv.bias"]
    >>> shapes = [(3,), (3,), (3,), (3, 1, 2, 2), (3,)]
    >>> sorted(norm_layers({n: np.zeros(s) for n, s in zip(names, shapes)}))
    ['norm.bias', 'norm.running_mean', 'norm.weight']
    """
    layers = {
        name.rpartition(".")[0]
        for name in arrays
        if name.endswith(".running_mean") or (name.endswith(".weight") and arrays[name].ndim == 1)
    }
    return frozenset(name for name in arrays if name.rpartition(".")[0] in layers)


DECODER = ("upsamples", "output_block", "deep_supervision_heads", "decoder", "head")
DECODER_STARTS = ("up", "decode")
"""Names of a network's parts behind its deepest layer; ``up0`` and ``decode0`` of DenseNet."""
DECODER_LEVELS = ("upsamples", "decoder")
"""Those with a number for each level, the last the largest; that of DenseNet's last is 0."""


def decoder(arrays: Arrays) -> frozenset[str]:
    """Return the arrays of a network's decoder and head.

    >>> sorted(decoder({n: np.zeros(1) for n in ("network.stem.weight", "network.head.bias")}))
    ['network.head.bias']
    """
    return frozenset(name for name in arrays if _is_decoder(name))


def last_levels(arrays: Arrays) -> frozenset[str]:
    """Return the arrays of the later half of a network's decoder, and of its heads.

    They draw what the levels before have understood.

    >>> names = [f"upsamples.{n}.norm.weight" for n in range(4)]
    >>> known = [*names, "output_block.bias", "bottleneck.conv.weight"]
    >>> sorted(last_levels({name: np.zeros(1) for name in known}))
    ['output_block.bias', 'upsamples.2.norm.weight', 'upsamples.3.norm.weight']
    >>> names = [f"network.{part}.weight" for part in ("up1", "decode1.0", "up0", "decode0.0")]
    >>> sorted(last_levels({name: np.zeros(1) for name in names}))
    ['network.decode0.0.weight', 'network.up0.weight']
    """
    levels = {name: _level(name) for name in arrays if _is_decoder(name)}
    known = sorted({level for level in levels.values() if level is not None})
    late = set(known[len(known) // 2 :])
    return frozenset(name for name, level in levels.items() if level is None or level in late)


def _level(name: str) -> int | None:
    """Return the level of an array of a decoder, later ones larger; None for those of a head."""
    part, following, *_ = [part for part in name.split(".") if part != "network"] + [""]
    if part in DECODER_LEVELS and following.isdigit():
        return int(following)
    start = part.rstrip("0123456789")
    return -int(part[len(start) :]) if start in DECODER_STARTS and start != part else None


def _is_decoder(name: str) -> bool:
    part = next((part for part in name.split(".") if part != "network"), "")
    return part in DECODER or part.rstrip("0123456789") in DECODER_STARTS

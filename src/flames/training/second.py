"""A client's second model: its own, beside the one that travels (Ditto, APFL)."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import nn

from flames.models.weights import (
    load_arrays,
    model_arrays,
    optimizer_arrays,
    save_arrays,
    set_model_arrays,
    set_optimizer_arrays,
)
from flames.strategies.rules import LocalRule
from flames.training.local import Batches, Mixture, Stretch, proximal
from flames.training.loop import TrainResult, make_optimizer

Arrays = Mapping[str, np.ndarray]
WEIGHTS, OPTIMIZER = "second.safetensors", "second-optimizer.safetensors"
MIXED = "second-mixed.safetensors"
"""What APFL's second model and the common one are together; Ditto's second model needs none."""


def keep_second(before: Path, place: Path, *, trained: bool) -> None:
    """Carry the second model's state on through a round without training."""
    for name in (WEIGHTS, OPTIMIZER, MIXED):
        if not trained and (before / name).exists():
            shutil.copyfile(before / name, place / name)


def second_arrays(place: Path) -> dict[str, np.ndarray]:
    """Return the personal weights of the second model as a round left them."""
    mixed = place / MIXED
    return load_arrays(mixed if mixed.exists() else place / WEIGHTS)


def train_second(
    network: nn.Module,
    batches: Batches,
    stretch: Stretch,
    *,
    rule: LocalRule,
    received: Arrays,
    shared: Arrays,
    before: Path,
    place: Path,
) -> tuple[TrainResult, dict[str, np.ndarray]]:
    """Train the second model on from ``before``, save it in ``place``; return its personal weights.

    Args:
        network: Lends its layers; its weights are lost.
        batches: The client's batches.
        stretch: Which steps.
        rule: Ditto or APFL, and how strongly.
        received: What the client began the round with: Ditto is held near it.
        shared: The common weights after the client's training: APFL mixes with them.
        before: The client's folder of the round before; in the first there is none.
        place: The client's folder of this round.
    """
    known = load_arrays(before / WEIGHTS) if (before / WEIGHTS).exists() else dict(received)
    model, penalty = network, None
    if rule.second == "apfl":
        alpha = float(known.pop("alpha", np.float32(rule.second_strength)))
        set_model_arrays(network, shared)  # buffers too
        model = Mixture(network, own=known, shared=shared, alpha=alpha)
    else:
        set_model_arrays(network, known)
        if rule.second_strength:
            penalty = proximal(received, rule.second_strength, network)
    optimizer = make_optimizer(model, stretch.config)
    if (before / OPTIMIZER).exists():
        set_optimizer_arrays(optimizer, load_arrays(before / OPTIMIZER))
    result = stretch.run(model, optimizer, batches, penalty=penalty)
    save_arrays(place / OPTIMIZER, optimizer_arrays(optimizer))
    if isinstance(model, Mixture):
        mixed = model.mixed_arrays()
        save_arrays(place / WEIGHTS, model.own_arrays())
        save_arrays(place / MIXED, mixed)
        return result, mixed
    save_arrays(place / WEIGHTS, model_arrays(network))
    return result, model_arrays(network)

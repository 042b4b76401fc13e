"""What server and client say to each other in a round, and what the server checks of an update.

Nothing here needs torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flames.errors import FlamesError
from flames.strategies import Download
from flames.strategies.rules import split_controls, with_controls

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Task:
    """What the server asks of a client in one round."""

    server_round: int
    """From 1; one more than the last round asks only to receive the last weights."""
    steps: range
    """Numbers of the optimiser steps to do, out of `total_steps`."""
    total_steps: int
    download: Download


@dataclass(frozen=True)
class Reply:
    """What leaves the hospital besides its weights: counts, scores and times, no image."""

    client: str
    modality: str
    num_examples: int
    validation: dict[str, float]
    """Mean validation Dice of what was tried: own, model, mixture."""
    alpha: float | None
    chosen: str | None
    """What the client began the round with."""
    best: float | None
    """Validation Dice of the weights it would keep today; None where nothing is selected."""
    best_round: int
    loss: float | None
    learning_rate: float
    seconds: dict[str, float]
    validation_cases: int
    curves: dict[str, Any] = field(default_factory=dict)
    """What each presence threshold makes of the validation Dice of what was tried, and of ``kept``
    weights: sums and counts over its cases. See `flames.metrics.presence.operating_curve`."""


def derive_seed(*parts: object) -> int:
    """Return a seed that depends on every part and on nothing else."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


def check_update(arrays: Arrays, like: Arrays, client: str) -> None:
    """Refuse an update whose names, shapes or numbers cannot be of this run.

    Control variates must be of weights in ``like``.

    Raises:
        FlamesError: An array is missing, new, of another shape or dtype, or not finite.
    """
    arrays, controls = split_controls(arrays)
    extra = {name: like[name] for name in controls if name in like}
    like = with_controls(like, extra)
    arrays = with_controls(arrays, controls)
    for name in sorted(set(arrays) ^ set(like)):
        raise FlamesError(
            f"the update of {client} and the server's model differ in array {name!r}",
            "let every client run the same version and configuration",
        )
    for name, array in arrays.items():
        if array.shape != like[name].shape or array.dtype != like[name].dtype:
            raise FlamesError(
                f"array {name!r} of {client} is {array.dtype}{array.shape}, expected "
                f"{like[name].dtype}{like[name].shape}",
                "let every client run the same version and configuration",
            )
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise FlamesError(
                f"the update of {client} holds NaN or infinity in {name!r}",
                "lower training.learning-rate, or look for damaged images with 'flames data check'",
            )

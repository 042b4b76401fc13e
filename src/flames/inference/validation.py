"""What validation says of a set of weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flames.metrics.presence import Curve, operating_curve


@dataclass(frozen=True)
class Validation:
    """How good a set of weights is on validation cases."""

    dice: float
    """Mean over cases, nothing silenced."""
    curve: Curve
    """What each presence threshold would make of it."""


def validation_of(
    scores: Sequence[float], tumour: Sequence[bool], presence: Sequence[float]
) -> Validation:
    """Return what the cases say together.

    Where no case's Dice is defined it is 1 if there are cases: nothing was there, nothing was
    found.

    Args:
        scores: Dice of each case, NaN where label and prediction are empty.
        tumour: Whether each case has one.
        presence: Presence score of each case.
    """
    defined = [score for score in scores if not math.isnan(score)]
    return Validation(
        float(np.mean(defined)) if defined else float(len(scores) > 0),
        operating_curve(scores, tumour, presence),
    )

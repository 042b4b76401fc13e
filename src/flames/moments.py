"""Adam's moments, which friends that hand a model on hand on with it.

In turns of few steps an optimiser of one's own is out of date: since it last saw the model, all
others of the circle have moved it. One that goes from client to client with the model works as if
all steps were taken at one place. It takes both moments for that, and the count of steps; either
alone is worth nothing.

As named arrays: ``first:NAME`` and ``second:NAME``, float32 and of the shape of the weights
``NAME``, and ``steps``, a single number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from flames.errors import FlamesError

Arrays = Mapping[str, np.ndarray]
FIRST, SECOND, STEPS = "first:", "second:", "steps"
DECAYS = (0.9, 0.999)
"""Of Adam's first and second moment; torch's defaults, which every optimiser here has."""
MOST_STEPS = 1e7
"""Steps that anybody believes; float32 counts up to 16,777,216."""


def most_ratio() -> float:
    """Return how many times the root of its second moment Adam's first moment can be.

    ``m = (1 - β1) Σ β1^i g_i`` and ``v = (1 - β2) Σ β2^i g_i²``, so by Cauchy and Schwarz
    ``m² / v ≤ (1 - β1)² / (1 - β2) / (1 - β1² / β2)``, whatever the gradients.

    >>> round(most_ratio(), 2)
    7.27
    """
    one, two = DECAYS
    return (1 - one) / math.sqrt((1 - two) * (1 - one**2 / two))


def check_moments(arrays: Arrays, like: Arrays, client: str, *, longest: float = math.inf) -> None:
    """Refuse moments that cannot be of these weights, or of no optimiser at all.

    So nobody can send moments by which a step of another's training would go far: no weight moves
    more than `most_ratio` times the learning rate a step. Adam's correction of its first steps only
    makes them shorter here.

    Args:
        arrays: The moments.
        like: The weights, by name.
        client: Whose they are, for messages.
        longest: L2 norm that gradients are clipped to, so that all second moments together are at
            most its square: larger ones would make the steps of all who follow too short.

    Raises:
        FlamesError: Names, shapes or dtypes are not those of the weights, or the numbers cannot be.
    """
    remedy = "let every client run the same version and configuration"
    wanted = {f"{prefix}{name}" for name in like for prefix in (FIRST, SECOND)} | {STEPS}
    for name in sorted(set(arrays) ^ wanted):
        raise FlamesError(
            f"the optimiser's moments of {client} and the weights differ in {name!r}", remedy
        )
    steps = np.asarray(arrays[STEPS])
    if steps.shape != () or steps.dtype != np.float32 or not 1 <= float(steps) <= MOST_STEPS:
        raise FlamesError(f"the optimiser of {client} counts impossible steps", remedy)
    total = 0.0
    for name, weights in like.items():
        first, second = np.asarray(arrays[FIRST + name]), np.asarray(arrays[SECOND + name])
        if {first.shape, second.shape} != {weights.shape} or {first.dtype, second.dtype} != {
            np.dtype(np.float32)
        }:
            raise FlamesError(f"the moments of {name!r} of {client} do not fit the weights", remedy)
        if not _possible(first, second):
            raise FlamesError(
                f"the moments of {name!r} of {client} are of no optimiser",
                "lower training.learning-rate, or look for damaged images with 'flames data check'",
            )
        total += float(second.sum(dtype=np.float64))
    if total > 1.01 * longest**2:
        raise FlamesError(
            f"the second moments of {client} are of gradients longer than {longest:g}", remedy
        )


def _possible(first: np.ndarray, second: np.ndarray) -> bool:
    """Return whether both are finite, and the first is no larger than the second lets it be.

    A hundredth is left to rounding, and what squares of float32 cannot hold counts as nothing.
    """
    if not (np.isfinite(first).all() and np.isfinite(second).all()) or (second < 0).any():
        return False
    most = 1.01 * most_ratio() * np.sqrt(second.astype(np.float64)) + 1e-17
    return bool((np.abs(first) <= most).all())

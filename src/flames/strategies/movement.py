"""How far an update moved from where its client began, and shortening of it."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from flames.strategies.arrays import Arrays
from flames.strategies.mixture import STATISTICS
from flames.strategies.rules import CONTROL

Part = Literal["weights", "statistics", "controls"]


def part_of(name: str) -> Part:
    """Return what an array is: a weight, a statistic of batch norm, or a control variate."""
    if name.startswith(CONTROL):
        return "controls"
    return "statistics" if name.endswith(STATISTICS) else "weights"


def movement(arrays: Arrays, begun: Arrays) -> dict[Part, float]:
    """Return ``‖θ − θ_begun‖₂`` of each part, over its floating-point arrays; one at a time.

    An array that ``begun`` lacks counts from 0, as control variates do in a first round.

    >>> begun = {"w": np.array([1.0, 1.0]), "n.running_mean": np.array([0.0])}
    >>> movement({"w": np.array([4.0, 5.0]), "n.running_mean": np.array([2.0])}, begun)
    {'weights': 5.0, 'statistics': 2.0}
    """
    squares: dict[Part, float] = {}
    for name in arrays:
        array = np.asarray(arrays[name])
        if np.issubdtype(array.dtype, np.floating):
            moved = array.astype(np.float64)
            if name in begun:
                moved -= begun[name]
            part = part_of(name)
            squares[part] = squares.get(part, 0.0) + float(np.sum(moved * moved))
    return {part: math.sqrt(square) for part, square in squares.items()}


def shortened(arrays: Arrays, begun: Arrays, most: float) -> dict[str, np.ndarray]:
    """Return ``θ_begun + min(1, most / ‖θ − θ_begun‖) (θ − θ_begun)`` for weights.

    Statistics, control variates, counters and arrays that ``begun`` lacks stay as they are. What is
    no longer than ``most`` comes back bit for bit.

    >>> short = shortened({"w": np.array([3.0, 4.0])}, {"w": np.array([0.0, 0.0])}, 2.5)
    >>> short["w"].tolist()  # length 5, halved
    [1.5, 2.0]
    """
    names = [
        name
        for name in arrays
        if name in begun
        and part_of(name) == "weights"
        and np.issubdtype(np.asarray(arrays[name]).dtype, np.floating)
    ]
    length = movement({name: arrays[name] for name in names}, begun).get("weights", 0.0)
    if length <= most:
        return dict(arrays)
    factor = most / length
    short = dict(arrays)
    for name in names:
        start = np.asarray(begun[name], np.float64)
        short[name] = (start + factor * (arrays[name] - start)).astype(arrays[name].dtype)
    return short

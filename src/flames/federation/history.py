"""How far updates of a group moved in its last rounds, and which movement is believed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from flames.federation.exchange import UpdateSetAside
from flames.strategies.movement import movement

Arrays = Mapping[str, np.ndarray]
PAST = "norms.json"
ROUNDS = 5
"""Last rounds of a group that count, of those in which an update of it was accepted."""


def lengths(arrays: Arrays, begun: Arrays | None, steps: int) -> dict[str, float]:
    """Return how far an update moved by part, its weights by the steps that it took.

    Empty where nobody knows what it began with.
    """
    found = {} if begun is None else movement(arrays, begun)
    return {
        part: length / max(1, steps) if part == "weights" else length
        for part, length in found.items()
    }


def read_past(folder: Path) -> list[dict[str, Any]]:
    """Return the records in a round's folder; none before the first round."""
    path = folder / PAST
    return list(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else []


def believed(
    client: str,
    moved: Mapping[str, float],
    past: Sequence[Mapping[str, Any]],
    *,
    group: str,
    limit: float,
) -> None:
    """Refuse a movement more than ``limit`` times the median of what its group moved before.

    Each part is held against its own median: weights (a step), batch-norm statistics and control
    variates. Where the group moved nothing before, as in the first round, all is believed.

    Args:
        client: Whose update it is.
        moved: Length by part, see `flames.strategies.movement.movement`.
        past: Records of accepted updates: ``group`` and ``moved``.
        group: Of the client.
        limit: Times the median; 0 believes all.

    Raises:
        UpdateSetAside: It moved too far.
    """
    for part, length in moved.items():
        known = [record["moved"].get(part, 0.0) for record in past if record["group"] == group]
        usual = median(known) if known else 0.0
        if limit and usual > 0 and length > limit * usual:
            raise UpdateSetAside(
                f"the {part} of {client} moved {length:.3g}, {length / usual:.0f} times the median "
                f"{usual:.3g} of {len(known)} updates of {group}; wire.norm-limit is {limit:g}",
                "look for damaged images or another scanner at that site, or raise wire.norm-limit",
            )


def with_round(
    past: Sequence[Mapping[str, Any]], server_round: int, added: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return the records of each group's last rounds, with those of a round just finished.

    A round in which nothing of a group was accepted does not count: however often its updates are
    set aside, what it moved before is remembered.

    >>> known = [{"round": n, "group": "MR"} for n in range(1, 6)]
    >>> [r["round"] for r in with_round(known, 9, [{"group": "US"}])]
    [1, 2, 3, 4, 5, 9]
    >>> [r["round"] for r in with_round(known, 9, [{"group": "MR"}])]
    [2, 3, 4, 5, 9]
    """
    records = [dict(record) for record in past]
    records += [{"round": server_round, **record} for record in added]
    rounds: dict[str, set[int]] = {}
    for record in records:
        rounds.setdefault(record["group"], set()).add(record["round"])
    last = {group: sorted(numbers)[-ROUNDS:] for group, numbers in rounds.items()}
    return [record for record in records if record["round"] in last[record["group"]]]

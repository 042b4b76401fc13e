"""Clients outside their group's largest circle whom its model suits after all."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from flames.federation.exchange import Reply
from flames.strategies.affinity import fitting
from flames.strategies.relay import SETTLED

APART = SETTLED + 2
"""First round in which a circle's model has nothing of a stranger: it is the mean of what clients
sent in the round before, and began that with nothing of his either."""


def new_guests(
    records: Sequence[Mapping[str, Any]],
    group: str,
    circle: Collection[str],
    received: Mapping[str, Reply],
) -> set[str]:
    """Return who is not of a circle of two or more, and whom its model suits. See `fitting`.

    Args:
        records: Of all finished rounds.
        group: Whose clients.
        circle: Who the model is of that clients received in the open round.
        received: Replies of the group's clients in the open round.
    """
    outside = set(received) - set(circle)
    if len(circle) < 2 or not outside:
        return set()
    return outside & fitting(_scores_outside(records, group, circle, received))


def _scores_outside(
    records: Sequence[Mapping[str, Any]],
    group: str,
    circle: Collection[str],
    received: Mapping[str, Reply],
) -> Iterator[tuple[str, Mapping[str, float]]]:
    """Yield what clients measured of a model of two or more others, from `APART` on."""
    whose = {r["round"]: r["circle"] or () for r in records if r.get("group") == group}
    for record in records:
        others = whose.get(record["round"] - 1, ())
        outside = record.get("site") in received and record["site"] not in others
        if outside and len(others) > 1 and record["round"] >= APART:
            yield record["site"], record["validation"]
    for name, reply in received.items():
        if name not in circle:
            yield name, reply.validation

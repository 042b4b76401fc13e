"""What `rounds.jsonl` says of a site and of a server model in a round."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from flames.federation.exchange import Reply
from flames.metrics.presence import PresenceRule


def group_score(replies: Iterable[Reply], *, alike: bool = False) -> float | None:
    """Return the mean of clients' scores of their group's model, weighted by cases or ``alike``.

    A lone client that keeps its own weights has the group's model in them. None where nobody scored
    it, as when those whose model it is are all away.
    """
    weight, total = 0, 0.0
    for reply in replies:
        score = reply.validation.get("model", reply.validation.get("own"))
        if score is not None:
            share = 1 if alike else reply.num_examples
            weight += share
            total += share * score
    return round(total / weight, 6) if weight else None


def group_rule(replies: Iterable[Reply]) -> PresenceRule:
    """Return the presence rule that suits a group's model, all clients together."""
    found = [reply.curves.get("model", reply.curves.get("own")) for reply in replies]
    return PresenceRule.of([curve for curve in found if curve])


def site_record(
    reply: Reply, server_round: int, steps: range, travelled: tuple[int, int]
) -> dict[str, Any]:
    """Return one line about a site.

    Args:
        reply: What came beside its weights.
        server_round: From 1.
        steps: Optimiser steps of the round, counted from the run's start.
        travelled: Bytes down and up.
    """
    return {
        "kind": "site",
        "round": server_round,
        "site": reply.client,
        "modality": reply.modality,
        "steps": steps.stop,
        "loss": reply.loss,
        "learning_rate": reply.learning_rate,
        "num_examples": reply.num_examples,
        "validation": dict(reply.validation),
        "alpha": reply.alpha,
        "chosen": reply.chosen,
        "best": reply.best,
        "best_round": reply.best_round,
        "seconds": reply.seconds,
        "bytes_up": travelled[1],
        "bytes_down": travelled[0],
    }


def learned_from(
    history: Iterable[Mapping[str, Any]], group: str, sites: Iterable[str]
) -> list[str]:
    """Return which of a group's sites its model may have learned from: who was ever of its circle.

    Args:
        history: Records of the run.
        group: Whose model.
        sites: Every site of the group.

    >>> known = [
    ...     {"kind": "server", "group": "MR", "circle": ["a", "b"]},
    ...     {"kind": "server", "group": "MR", "circle": ["a"]},
    ... ]
    >>> learned_from(known, "MR", ["a", "b", "c"])
    ['a', 'b']
    >>> learned_from([known[0] | {"circle": None}], "MR", ["a", "b", "c"])  # the whole group
    ['a', 'b', 'c']
    """
    circles = [r.get("circle") for r in history if r["kind"] == "server" and r["group"] == group]
    if not circles or None in circles:
        return list(sites)
    members = {name for circle in circles for name in circle or ()}
    return [site for site in sites if site in members]


def best_so_far(
    history: Iterable[Mapping[str, Any]],
    group: str,
    circle: list[str] | None,
    present: Collection[str],
) -> float | None:
    """Return the score of the server model that is kept, None where a round begins anew.

    A model of other clients was judged by other clients: once a client that is still there is no
    longer of the group's circle, or one comes to it that was there before, earlier scores cannot be
    compared. One that is away for a round, or joins the federation, changes nothing.

    Args:
        history: Earlier records of the run.
        group: Whose model.
        circle: The clients that the model is a mean of; None where that is the whole group.
        present: Every client with an update.

    >>> known = [
    ...     {
    ...         "kind": "server",
    ...         "group": "MR",
    ...         "sites": ["a", "b", "c"],
    ...         "circle": ["a", "b"],
    ...         "best": 0.5,
    ...     }
    ... ]
    >>> best_so_far(known, "MR", ["a"], {"a", "c"})  # b is away
    0.5
    >>> best_so_far(known, "MR", ["a", "b", "new"], {"a", "b", "c", "new"})
    0.5
    >>> best_so_far(known, "MR", ["a"], {"a", "b", "c"}) is None
    True
    >>> best_so_far(known, "MR", ["a", "b", "c"], {"a", "b", "c"}) is None
    True
    """
    found = [r for r in history if r["kind"] == "server" and r["group"] == group]
    if not found:
        return None
    before = found[-1].get("circle")
    if circle is not None and before is not None:
        left = (set(before) & set(present)) - set(circle)
        came = (set(circle) - set(before)) & set(found[-1]["sites"])
        if left or came:
            return None
    return found[-1]["best"]

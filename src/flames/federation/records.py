"""What `rounds.jsonl` says of a site and of a server model in a round."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from flames.federation.exchange import Reply


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


def best_so_far(
    history: Iterable[Mapping[str, Any]],
    group: str,
    circle: list[str] | None,
    present: Collection[str],
) -> float | None:
    """Return the score of the server model that is kept, None where a round begins anew.

    A model of other clients was judged by other clients: once a client that is still there is no
    longer of the group's circle, earlier scores cannot be compared. One that is away for a round,
    or comes to the circle, changes nothing.

    Args:
        history: Earlier records of the run.
        group: Whose model.
        circle: The clients that the model is a mean of; None where that is the whole group.
        present: Every client with an update.

    >>> known = [{"kind": "server", "group": "MR", "circle": ["a", "b"], "best": 0.5}]
    >>> best_so_far(known, "MR", ["a"], {"a", "c"})  # b is away
    0.5
    >>> best_so_far(known, "MR", ["a", "c"], {"a", "b", "c"}) is None
    True
    """
    found = [r for r in history if r["kind"] == "server" and r["group"] == group]
    if not found:
        return None
    before = found[-1].get("circle")
    if circle is not None and before is not None and (set(before) & set(present)) - set(circle):
        return None
    return found[-1]["best"]

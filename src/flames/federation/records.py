"""What `rounds.jsonl` says of a site in a round."""

from __future__ import annotations

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

"""Tasks and replies as messages: what is asked of a site, and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

import numpy as np

from flames.errors import FlamesError
from flames.federation.exchange import Reply, Task
from flames.federation.network.messages import Arrays, MessageError, encode
from flames.metrics.presence import PRESENCE_GRID
from flames.strategies import Download

PROTOCOL = 1
"""Changes when sites and server of different versions can no longer talk."""


def encode_task(task: Task, company: Mapping[str, int]) -> bytes:
    """Return the message that asks a site to do a task, with how many peers it has."""
    download = task.download
    facts = {
        "do": "train",
        "round": task.server_round,
        "steps": [task.steps.start, task.steps.stop],
        "total_steps": task.total_steps,
        "use": download.use,
        "alpha": download.alpha,
        "peers": download.peers,
        "own_share": download.own_share,
        "company": dict(company),
    }
    return encode(facts, {"arrays": download.arrays, "model": download.model})


def as_task(facts: dict[str, Any], sections: dict[str, dict[str, np.ndarray]]) -> Task:
    """Return the task of a message.

    Raises:
        MessageError: A fact is missing.
    """
    try:
        start, stop = facts["steps"]
        download = Download(
            sections.get("arrays"),
            facts["use"],
            facts["alpha"],
            facts["peers"],
            facts["own_share"],
            sections.get("model"),
        )
        return Task(facts["round"], range(start, stop), facts["total_steps"], download)
    except (KeyError, TypeError, ValueError) as error:
        raise MessageError(f"its task is wrong ({error})") from error


def encode_update(reply: Reply, server_round: int, weights: Arrays) -> bytes:
    """Return the message that answers a task."""
    return encode({"round": server_round, "reply": asdict(reply)}, {"weights": weights})


def as_reply(content: Any, *, client: str, modality: str) -> Reply:
    """Return the reply of a message, as the site that the consortium knows it comes from.

    Raises:
        FlamesError: A field is missing, unknown, or cannot be.
    """
    names = {field.name for field in fields(Reply)}
    if not isinstance(content, dict) or set(content) != names:
        raise MessageError("its reply has other fields")
    numbers = [content["num_examples"], content["validation_cases"], content["best_round"]]
    scores = content["validation"]
    optional = [content["alpha"], content["best"], content["loss"]]
    right = (
        all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in numbers)
        and content["num_examples"] > 0
        and isinstance(scores, dict)
        and all(_finite(score) for score in scores.values())
        and all(value is None or _finite(value) for value in optional)
        and _finite(content["learning_rate"])
        and _are_curves(content["curves"])
        and isinstance(content["seconds"], dict)
        and all(_finite(seconds) for seconds in content["seconds"].values())
        and (content["chosen"] is None or isinstance(content["chosen"], str))
    )
    if not right:
        raise MessageError("its reply holds values that cannot be")
    if content["modality"] != modality:
        raise FlamesError(
            f"{client} says it is {content['modality']!r}, the consortium says {modality}",
            "start the site with the store of its own modality",
        )
    return Reply(**{**content, "client": client})


def _are_curves(content: Any) -> bool:
    """Return whether these are presence curves: by name, a row of sums and counts a threshold."""
    return isinstance(content, dict) and all(
        curve is None
        or (
            isinstance(curve, list)
            and len(curve) == len(PRESENCE_GRID)
            and all(isinstance(row, list) and len(row) == 6 for row in curve)
            and all(_finite(number) for row in curve for number in row)
        )
        for curve in content.values()
    )


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and bool(np.isfinite(value))

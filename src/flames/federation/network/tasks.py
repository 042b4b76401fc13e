"""Tasks and replies as messages: what is asked of a site, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from flames.config import WireConfig
from flames.federation.exchange import Reply, Task
from flames.federation.network.messages import Arrays, MessageError, encode
from flames.strategies import Download
from flames.wire.coding import Coded, restore

PROTOCOL = 5
"""Changes when sites and server of different versions can no longer talk."""

UPDATE = ("weights", "weights.scales", "weights.masks", "weights.moments")
"""Sections of an update."""
BESIDE = ("scales", "masks", "moments")
"""Parts of coded arrays that have sections of their own."""


def encode_task(
    task: Task, coded: Mapping[str, Coded], wire: WireConfig, company: Mapping[str, int]
) -> bytes:
    """Return the message that asks a site to do a task.

    Args:
        task: Its arrays do not matter here.
        coded: They, as they travel, by their field.
        wire: How.
        company: How many peers the site has.
    """
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
        "own_head": download.own_head,
        "wants_moments": download.wants_moments,
        "company": dict(company),
        "held": task.held,
        "letters": {name: one.letters for name, one in coded.items()},
    }
    sections: dict[str, Arrays | None] = {}
    for name, one in coded.items():
        sections |= _sections(name, one)
    return encode(facts, sections, wire.compression)


def as_task(
    facts: dict[str, Any],
    sections: dict[str, dict[str, np.ndarray]],
    held_arrays: Callable[[int], Arrays | None],
) -> Task:
    """Return the task of a message.

    Args:
        facts: Of the message.
        sections: Of the message.
        held_arrays: Returns the client's own update of a round, as it left.

    Raises:
        MessageError: A fact is missing, or its arrays cannot be restored.
    """
    try:
        start, stop = facts["steps"]
        held = int(facts["held"])
        base = held_arrays(held)
        arrays = {
            name: restore(_as_coded(name, letters, sections), base)
            for name, letters in facts["letters"].items()
        }
        download = Download(
            arrays.get("arrays"),
            facts["use"],
            facts["alpha"],
            facts["peers"],
            facts["own_share"],
            arrays.get("model"),
            facts["own_head"],
            arrays.get("best"),
            arrays.get("moments"),
            facts["wants_moments"],
        )
        return Task(facts["round"], range(start, stop), facts["total_steps"], download, held)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MessageError(f"its task is wrong ({error})") from error


def encode_update(
    reply: Reply, server_round: int, coded: Coded, digest: str, wire: WireConfig
) -> bytes:
    """Return the message that answers a task; ``digest`` is of what differences count from."""
    facts = {
        "round": server_round,
        "reply": asdict(reply),
        "letters": coded.letters,
        "base": digest,
    }
    return encode(facts, _sections("weights", coded), wire.compression)


def as_update(
    facts: dict[str, Any], sections: dict[str, dict[str, np.ndarray]]
) -> tuple[Coded, str]:
    """Return the coded arrays of an update, and the digest of what they count from.

    Raises:
        MessageError: A fact is missing or of the wrong kind.
    """
    letters, digest = facts.get("letters"), facts.get("base")
    if not isinstance(letters, str) or not isinstance(digest, str):
        raise MessageError("it does not say how its arrays are coded")
    return _as_coded("weights", letters, sections), digest


def as_holds(content: Any) -> dict[str, str]:
    """Return what a site says that it still has: digests by round; odd entries are left out."""
    if not isinstance(content, dict):
        return {}
    return {str(k): v for k, v in content.items() if isinstance(v, str)}


def _sections(name: str, coded: Coded) -> dict[str, Arrays | None]:
    parts: dict[str, Arrays | None] = {name: coded.values}
    for part in BESIDE:
        parts[f"{name}.{part}"] = getattr(coded, part) or None
    return parts


def _as_coded(name: str, letters: str, sections: dict[str, dict[str, np.ndarray]]) -> Coded:
    beside = {part: sections.get(f"{name}.{part}", {}) for part in BESIDE}
    return Coded(letters, sections.get(name, {}), **beside)

"""What a run tells whoever watches it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """Progress of a run, for whoever shows it."""

    stage: str
    """``train``, ``round`` or ``score``."""
    server_round: int
    rounds: int
    client: str = ""
    done: int = 0
    total: int = 0
    text: str = ""


OnEvent = Callable[[Event], None]


def sentence(record: dict[str, object]) -> str:
    """Return what a person wants to read of one training record."""

    def number(value: object) -> str:
        return f"{value:.3f}" if isinstance(value, float) else "–"

    if record["kind"] == "server":
        return f"{record['group']:>24}  server model of round {record['round']}: validation " + (
            number(record["validation"])
        )
    scores = record["validation"]
    assert isinstance(scores, dict)
    parts = ", ".join(f"{key} {number(value)}" for key, value in scores.items())
    return f"{record['site']:>24}  loss {number(record['loss'])}  {parts}".rstrip()

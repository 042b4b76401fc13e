"""The seats of a run at the server: one a site, with what it said last and when."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from flames.federation.network.consortium import Member
from flames.federation.network.facts import SiteFacts

Status = Literal["awaited", "here", "waiting", "refused", "away"]


@dataclass
class Seat:
    """One site of a run, as the server sees it."""

    name: str
    member: Member
    status: Status = "away"
    """``awaited`` before its first word in this job, ``waiting`` while its own policy holds it
    back, ``refused`` when it does not take part."""
    wants_peers: bool = False
    """Whether it waits for others of its modality."""
    reason: str = ""
    heard: float = 0.0
    facts: SiteFacts | None = None
    failed_round: int = 0
    done: int = 0
    total: int = 0
    loss: float | None = None
    down: int = 0
    """Bytes of the last task sent to it."""
    aside: int = 0
    """Updates of the open round that were set aside."""
    unbelieved: int = 0
    """Last round whose update was whole and not believed."""
    notes: list[str] = field(default_factory=list)

    @property
    def modality(self) -> str:
        """Return its modality, by the consortium's record."""
        return self.member.modality

    def hear(self, moment: float) -> None:
        """Note a sign of life."""
        self.heard = moment
        if self.status == "away" and self.facts is not None:
            self.status = "here"

    def is_out_of(self, server_round: int) -> bool:
        """Return whether nobody waits for it in a round."""
        return self.status == "refused" or self.failed_round == server_round

    def describe(self) -> dict[str, Any]:
        """Return what a person wants to know of it."""
        return {
            "modality": self.modality,
            "organ": self.member.organ,
            "status": self.status,
            "reason": self.reason,
            "done": self.done,
            "total": self.total,
            "loss": self.loss,
        }


@dataclass(frozen=True)
class Standing:
    """How a round stands for one group of seats."""

    busy: list[Seat]
    """Here, and still working."""
    away: list[Seat]
    """Not here, or waiting by their own policy."""
    answered: list[Seat]
    failed: list[Seat]
    queued: list[Seat]
    """Here, and not yet their turn."""

    @property
    def complete(self) -> bool:
        """Return whether nobody is left to wait for."""
        return not self.busy and not self.away and not self.queued

    def enough(self, quorum: float) -> bool:
        """Return whether a quorum of those who could answer did."""
        waited_for = self.busy, self.away, self.answered, self.failed, self.queued
        total = sum(map(len, waited_for))
        return bool(self.answered) and len(self.answered) >= quorum * total


def company(seat: Seat, seats: list[Seat], known: AbstractSet[str]) -> dict[str, int]:
    """Return how many others of a site's modality take part now, and how many ever may.

    Args:
        seat: The site's.
        seats: All of the run.
        known: Sites that answered a round.
    """
    others = [
        other
        for other in seats
        if other is not seat and other.modality == seat.modality and other.status != "refused"
    ]
    now = [
        other
        for other in others
        if other.status == "here"
        or (other.status == "waiting" and other.wants_peers)
        or other.name in known
    ]
    return {"now": len(now), "ever": len(others)}


def standing(
    seats: list[Seat],
    answered: frozenset[str],
    server_round: int,
    waits: Callable[[Seat], bool] = lambda _: False,
) -> Standing:
    """Return how a round stands for ``seats``; the refused do not count.

    Args:
        seats: Whose.
        answered: Names of those who did.
        server_round: Its number.
        waits: Whether a seat's turn has not come.
    """
    groups: dict[str, list[Seat]] = {field.name: [] for field in fields(Standing)}
    for seat in seats:
        if seat.name in answered:
            groups["answered"].append(seat)
        elif seat.is_out_of(server_round):
            if seat.status != "refused":
                groups["failed"].append(seat)
        else:
            absent = seat.status in ("away", "waiting")
            groups["away" if absent else "queued" if waits(seat) else "busy"].append(seat)
    return Standing(**groups)

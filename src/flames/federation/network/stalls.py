"""Whose work stands still, though its signs of life come: a hung disk or card, not a hung line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from flames.federation.network.seats import Seat

DEADLINES = 4.0
"""How many deadlines work may go on without a step: validation between steps tells nothing."""


@dataclass
class _Work:
    server_round: int
    done: int
    since: float
    """When it last grew."""


class Stalls:
    """How the work of busy sites grows, as one job sees it."""

    def __init__(self) -> None:
        """Have seen nobody yet."""
        self._works: dict[str, _Work] = {}

    def look(self, busy: Iterable[Seat], server_round: int, moment: float) -> None:
        """Note who got further since the last look; who was not busy meanwhile begins anew.

        Steps beyond those of the task are no progress, nor are steps done again.
        """
        known, self._works = self._works, {}
        for seat in busy:
            done = min(seat.done, seat.total) if seat.total else seat.done
            work = known.get(seat.name)
            if work is None or work.server_round != server_round or done > work.done:
                work = _Work(server_round, done, moment)
            self._works[seat.name] = work

    def still(self, seats: Iterable[Seat], moment: float, deadline: float) -> list[str]:
        """Return the names of those whose work has not grown for `DEADLINES` deadlines."""
        return [
            seat.name
            for seat in seats
            if (work := self._works.get(seat.name)) is not None
            and moment - work.since > DEADLINES * deadline
        ]

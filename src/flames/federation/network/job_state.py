"""What a job of a run stands on at the server: its seats, its rounds, its journal, its verdict.

`Desk` talks with the sites and `Watch` moves the rounds on; both work on one `JobState`.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Literal

from flames.federation.budget import Member as Participant
from flames.federation.network.consortium import Record
from flames.federation.network.journal import Journal
from flames.federation.network.run_state import RunState
from flames.federation.network.scores import Scores
from flames.federation.network.seats import Seat, company
from flames.federation.network.sharing import told_to_all
from flames.federation.server import Server

Verdict = Literal["next", "finished", "failed"]
JOIN_SECONDS = 60.0
MOST_LINES = 50
"""Lines that one site may cause in the journals in a round; it takes a handful."""


class JobState:
    """One job of a run: who sits where, which round is open, and why it ends."""

    def __init__(
        self,
        state: RunState,
        server: Server,
        record: Record,
        job_sites: list[str],
        *,
        house: Journal,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Seat the sites of the run.

        Args:
            state: The run folder with what the network needs beside.
            server: The rounds, from the last finished one.
            record: What the consortium knows of its sites.
            job_sites: Those that the engine started this job at.
            house: The server's own journal, which hears of refused sites too.
            clock: Seconds since 1970.
        """
        self.state = state
        self.config = state.config
        self.server = server
        self.scores = Scores(state)
        self.clock = clock
        self.house = house
        self.journal = Journal(state.events)
        self.verdict: tuple[Verdict, str] | None = None
        self.started = clock()
        self._lines: Counter[str] = Counter()
        self._lines_of = 0
        names = state.site_names(record)
        self.seats = {name: Seat(name, record.sites[name]) for name in names}
        for name, seat in self.seats.items():
            if seat.member.revoked:
                seat.status, seat.reason = "refused", f"revoked {seat.member.revoked}"
            elif name in job_sites:
                seat.status, seat.heard = "awaited", self.started
            steps = self.config.steps_of(name)
            server.members[name] = Participant(name, seat.modality, 1, steps)
        if not state.events.exists():
            taking = {n: s.modality for n, s in self.seats.items() if s.status != "refused"}
            for text in told_to_all(state.config, server.strategy, taking):
                self.tell("sharing", text)
        for told in server.folders.damaged:
            self.tell("server-trouble", told)

    @property
    def number(self) -> int:
        """Return the open round; one after the last while the sites score."""
        return self.server.finished + 1

    @property
    def closing(self) -> bool:
        """Return whether all rounds are done, and the sites score their models."""
        return self.server.finished >= self.server.last_round

    def joining(self) -> bool:
        """Return whether the job still waits for the first word of its sites."""
        awaited = [seat for seat in self.seats.values() if seat.status == "awaited"]
        if awaited and self.clock() - self.started > JOIN_SECONDS:
            for seat in awaited:
                seat.status = "away"
            awaited = []
        return bool(awaited)

    def trained(self) -> set[str]:
        """Return the sites that answered at least one round."""
        return {*self.server.replies(), *self.server.away()}

    def late(self) -> bool:
        """Return whether the deadline of the open round, or of the turn in it, is over.

        Time in which no job ran does not count.
        """
        since = self.state.turn_since(self.number)
        return since is not None and self.clock() - since > self.config.network.deadline

    def waits_its_turn(self, seat: Seat) -> bool:
        """Return whether a site hands its model on to this one first; after the deadline nobody
        waits for that."""
        expected = {name for name, known in self.seats.items() if not known.is_out_of(self.number)}
        turn = self.server.turns.may_begin(seat.name, self.server.answered, expected)
        return not turn and not self.late()

    def company(self, seat: Seat) -> dict[str, int]:
        """Return how many others of a site's modality take part now, and how many ever may."""
        known = self.trained() | self.server.answered
        return company(seat, list(self.seats.values()), known)

    def refuse(self, seat: Seat, reason: str) -> None:
        """Note in both journals that a site does not take part."""
        seat.status, seat.reason = "refused", reason
        text = f"{seat.name} does not take part: {reason}"
        if self.tell("refused", text, site=seat.name):
            self.house.write("refused", text, who=seat.name, why="run", run=self.state.path.name)

    def end(self, verdict: Verdict, why: str) -> None:
        """Pass the verdict on this job."""
        self.verdict = (verdict, why)
        self.tell(f"job-{verdict}", why)

    def tell(self, event: str, text: str, **facts: Any) -> bool:
        """Write a line into the run's journal; return whether its site may cause it."""
        may = self._may_cause(facts.get("site"))
        if may:
            self.journal.write(event, text, **facts)
        return may

    def _may_cause(self, site: str | None) -> bool:
        """Return whether a site may cause one more line in the open round; tell once of the end."""
        if site is None:
            return True
        if self._lines_of != self.number:
            self._lines, self._lines_of = Counter(), self.number
        self._lines[site] += 1
        if self._lines[site] == MOST_LINES:
            text = f"{site} caused {MOST_LINES} lines in round {self.number}: no more are written"
            self.journal.write("too-many", text, site=site)
        return self._lines[site] < MOST_LINES

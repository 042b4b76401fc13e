"""The watch over a run's rounds: it waits, goes on without those who are away, and ends the job.

A round waits for every site of the run. One that is away may come back until the deadline; it can
only come in with a next job, for which this one ends as soon as nobody works any more. After the
deadline each modality goes on with those who answered, if they are a quorum; a site whose work has
not grown for four times as long is waited for no more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flames.federation.network.consortium import Record
from flames.federation.network.facts import too_many
from flames.federation.network.job_state import JobState
from flames.federation.network.seats import Seat, Standing, standing
from flames.federation.network.stalls import Stalls
from flames.federation.progress import sentence
from flames.runs import save_lines

ALIVE_SECONDS = 30.0
"""How often it is written down that the job runs."""


class Watch:
    """Moves one job from round to round, and passes its verdict."""

    def __init__(
        self,
        job: JobState,
        *,
        returned: Callable[[], Mapping[str, float]],
        news: Callable[[], Record],
    ) -> None:
        """Begin with the round that is open.

        Args:
            job: What the job stands on.
            returned: Which sites are connected now, and since when.
            news: The consortium's record as it is now.
        """
        self.job = job
        self.returned = returned
        self.news = news
        self.first_round = job.server.finished
        self.since = job.state.round_since(job.number, job.started)
        """When the open round began, in seconds since 1970, less the time in which no job ran."""
        self.stalls = Stalls()
        self._still: list[str] = []
        self._noted = job.started
        self._unwritten: Callable[[], None] | None = self._write_rounds

    def step(self) -> None:
        """Look once at all sites, and do what is due."""
        job = self.job
        self._catch_up()
        if job.clock() - self._noted > ALIVE_SECONDS:
            job.state.note_alive(job.clock())
            self._noted = job.clock()
        self._note_record()
        self._note_silence()
        if job.verdict is None and not job.joining():
            (self._step_scores if job.closing else self._step_round)()

    def _catch_up(self) -> None:
        """Write what the disk could not take at once; again and again, until it does."""
        if self._unwritten is not None:
            self._unwritten()
            self._unwritten = None

    def _write_rounds(self) -> None:
        save_lines(self.job.state.run.rounds, self.job.server.records())

    def _note_record(self) -> None:
        """Leave out who is revoked since the job began, or has more cases than now agreed."""
        sites = self.news().sites
        for seat in self.job.seats.values():
            member = sites.get(seat.name)
            if seat.member.revoked:
                continue
            if member is None or member.revoked:
                when = member.revoked if member is not None else "it left the record"
                seat.member = seat.member.model_copy(update={"revoked": when})
                self._leave_out(seat, f"revoked {when}")
            elif member.cases != seat.member.cases:
                seat.member = seat.member.model_copy(update={"cases": member.cases})
                reason = too_many(seat.facts, member) if seat.facts is not None else None
                if reason:
                    self._leave_out(seat, reason)

    def _leave_out(self, seat: Seat, reason: str) -> None:
        self.job.refuse(seat, reason)
        self._withdraw(seat.name)

    def _withdraw(self, site: str) -> None:
        """Take a site's update out of the open round, and what others made of it."""
        job = self.job
        if site not in job.server.answered:
            return
        followers = job.server.turns.began_from(site)
        job.server.withdraw([site])
        job.tell("withdrawn", f"the update of {site} counts not in round {job.number}", site=site)
        if followers:
            job.end("next", f"{', '.join(followers)} went on from the update of {site}")

    def _note_silence(self) -> None:
        limit = self.job.clock() - self.job.config.network.silence
        for seat in self.job.seats.values():
            if seat.status in ("here", "waiting") and seat.heard < limit:
                seat.status = "away"
                self.job.tell("silent", f"{seat.name} gives no sign of life", site=seat.name)

    def _step_round(self) -> None:
        job = self.job
        seats = list(job.seats.values())
        every = standing(seats, job.server.answered, job.number, job.waits_its_turn)
        self._note_progress(every.busy)
        if not (every.busy or every.away or every.answered or every.queued):
            self._nobody_left(every)
        elif every.complete and every.answered:
            self._close()
        elif job.late():
            self._after_deadline(every)
        else:
            self._call_back(every)

    def _after_deadline(self, every: Standing) -> None:
        """Go on with every modality that has a quorum; wait where somebody works for one."""
        job = self.job
        quorum = job.config.network.quorum
        without: list[str] = []
        for modality in sorted({seat.modality for seat in job.seats.values()}):
            seats = [seat for seat in job.seats.values() if seat.modality == modality]
            here = standing(seats, job.server.answered, job.number, job.waits_its_turn)
            if here.complete or here.enough(quorum):
                continue
            if self._working(here.busy):
                return
            without += [seat.name for seat in here.answered]
        if len(without) < len(every.answered):
            if without:
                job.server.withdraw(without)
                job.tell("quorum", f"no quorum with {', '.join(without)}: the round counts not")
            self._close()
        elif not self._working(every.busy) and not self._somebody("waiting"):
            job.end("next", "no modality has a quorum of its sites")

    def _close(self) -> None:
        job = self.job
        number = job.number
        missing = sorted(
            seat.name
            for seat in job.seats.values()
            if seat.name not in job.server.answered and seat.status != "refused"
        )
        still = [name for name in self._still if name in missing]
        records = job.server.close_round()
        for seat in job.seats.values():
            seat.done, seat.total, seat.loss, seat.aside = 0, 0, None, 0
            if seat.status not in ("refused", "waiting"):
                seat.reason = ""  # it was of this round
        self._unwritten = lambda: self._write_closed(number, records, missing, still)
        self._catch_up()

    def _write_closed(
        self, number: int, records: list[dict[str, Any]], missing: list[str], still: list[str]
    ) -> None:
        """Write and tell of a round that is closed; done again where the disk is full."""
        job = self.job
        self._write_rounds()
        self.since = job.state.round_since(job.number, job.clock())
        for record in records:
            job.tell("record", sentence(record), round=number, rounds=job.config.rounds)
        ending = f", without {', '.join(missing)}" if missing else ""
        job.tell("round", f"round {number} is finished{ending}", round=number)
        if still:
            job.end("next", f"{', '.join(still)} stood still")
        elif job.server.finished - self.first_round >= job.config.network.rounds_per_job:
            job.end("next", "the job did its rounds")

    def _step_scores(self) -> None:
        job = self.job
        trained = job.trained()
        wanted = [seat for seat in job.seats.values() if seat.name in trained]
        scored = frozenset(seat.name for seat in wanted if job.scores.has(seat.name))
        every = standing(wanted, scored, job.server.last_round + 1)
        self._note_progress(every.busy)
        if every.complete and not every.answered:
            self._nobody_left(every)
        elif every.complete or (job.late() and every.answered and not self._working(every.busy)):
            job.scores.finish(job.server)
            job.end("finished", "the run is finished")
        else:
            self._call_back(every)

    def _call_back(self, every: Standing) -> None:
        """End the job, once nobody works, for the sake of those who came back."""
        if self._working(every.busy):
            return
        connected = self.returned()
        back = [s.name for s in every.away if s.status == "away" and s.name in connected]
        if back:
            self.job.end("next", f"{', '.join(sorted(back))} came back")
        elif not self._somebody("here", "waiting"):
            self.job.end("next", "every site is away")

    def _note_progress(self, busy: list[Seat]) -> None:
        """Note who gets on with its work, and tell once of whom it stands still."""
        job, moment = self.job, self.job.clock()
        self.stalls.look(busy, job.number, moment)
        still = self.stalls.still(busy, moment, job.config.network.deadline)
        for name in still:
            if name not in self._still:
                job.tell("still", f"{name} is there, but its work stands still", site=name)
        self._still = still

    def _working(self, busy: Iterable[Seat]) -> bool:
        return any(seat.name not in self._still for seat in busy)

    def _somebody(self, *status: str) -> bool:
        return any(seat.status in status for seat in self.job.seats.values())

    def _nobody_left(self, every: Standing) -> None:
        seats = list(self.job.seats.values())
        reasons = [seat for seat in seats if seat.reason and seat in every.failed]
        reasons += [seat for seat in seats if seat.status == "refused"]
        cause = f"{reasons[0].name}: {reasons[0].reason}" if reasons else "no site takes part"
        self.job.end("failed", cause)

"""The server's desk: sites come with messages, and a run goes on from round to round.

It knows no engine: it takes bytes from a site whose name somebody else has made sure of, and gives
bytes back. `step` is called again and again and says when the job should end, and why. Everything
that must survive is in the run folder, so the next job's desk goes on where this one stopped. A
site asked twice for one round answers with what it did.

A round waits for every site of the run. One that is away may come back until the deadline; it can
only come in with a next job, for which this one ends as soon as nobody works any more. After the
deadline each modality goes on with those who answered, if they are a quorum.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

from flames.errors import FlamesError, NotWritten
from flames.federation.exchange import UpdateSetAside
from flames.federation.network.consortium import Record
from flames.federation.network.facts import SiteFacts, digest, mismatch
from flames.federation.network.journal import Journal
from flames.federation.network.messages import decode, encode
from flames.federation.network.run_state import RunState
from flames.federation.network.scores import Scores
from flames.federation.network.seats import Seat, Standing, company, standing
from flames.federation.network.tasks import as_holds, as_reply, as_update, encode_task
from flames.federation.progress import sentence
from flames.federation.server import Member as Participant
from flames.federation.server import Server
from flames.runs import save_lines

Verdict = Literal["next", "finished", "failed"]
JOIN_SECONDS = 60.0
REST_SECONDS = 5.0
"""How long the desk waits for space on its disk before it writes again."""
TRIES = 3
"""Updates of one site that may be set aside in a round before the round goes on without it."""


class Desk:
    """One job of a run, at the server."""

    def __init__(
        self,
        state: RunState,
        server: Server,
        record: Record,
        job_sites: list[str],
        *,
        returned: Callable[[], Mapping[str, float]],
        clock: Callable[[], float] = time.time,
        news: Callable[[], Record] | None = None,
        house: Journal | None = None,
    ) -> None:
        """Take the run's place up.

        Args:
            state: The run folder with what the network needs beside.
            server: The rounds, from the last finished one.
            record: What the consortium knows of its sites.
            job_sites: Those that the engine started this job at.
            returned: Which sites are connected now, and since when.
            clock: Seconds since 1970.
            news: The record as it is now; sites may be shut out while the job runs.
            house: The server's own journal, which hears of refused sites too.
        """
        self.state = state
        self.config = state.config
        self.server = server
        self.scores = Scores(state)
        self.returned = returned
        self.clock = clock
        self.news = news or (lambda: record)
        self.house = house
        self.journal = Journal(state.events)
        self.verdict: tuple[Verdict, str] | None = None
        self.started = clock()
        self.first_round = server.finished
        self.lock = threading.RLock()
        names = state.site_names(record)
        self.seats = {name: Seat(name, record.sites[name]) for name in names}
        for name in names:
            seat = self.seats[name]
            if seat.member.revoked:
                seat.status, seat.reason = "refused", f"revoked {seat.member.revoked}"
            elif name in job_sites:
                seat.status, seat.heard = "awaited", self.started
            server.members[name] = Participant(name, seat.modality, 1)
        self.since = state.round_since(server.finished + 1, self.started)
        self._written = ""
        self._rests = 0.0
        self._no_room = ""

    def handle(self, site: str, topic: str, message: bytes) -> bytes:
        """Return the answer to one message of a site whose name is made sure of."""
        with self.lock:
            seat = self.seats.get(site)
            if seat is None or seat.member.revoked:
                self._tell("refused", f"{site} is no site of this run", site=site)
                return encode({"do": "leave", "reason": "it is no site of this run"})
            seat.hear(self.clock())
            if self.verdict is not None:
                return encode({"do": "end", "reason": self.verdict[1]})
            answer = self._answers.get(topic)
            if answer is None:
                return self._set_aside(seat, f"nothing called {topic[:40]!r} is known here")
            try:
                facts, sections = decode(message)
                return answer(self, seat, facts, sections, len(message))
            except NotWritten as error:
                self._rest(error)
                return encode({"do": "later"})
            except FlamesError as error:
                return self._set_aside(seat, error.found)

    def step(self) -> tuple[Verdict, str] | None:
        """Let time pass; return why the job ends, once it does."""
        with self.lock:
            if self.clock() < self._rests:
                return self.verdict
            try:
                if self.verdict is None:
                    self._note_revoked()
                    self._note_silence()
                    if not self._joining():
                        closing = self.server.finished >= self.server.last_round
                        (self._step_scores if closing else self._step_round)()
                self._write()
            except NotWritten as error:
                self._rest(error)
            else:
                self._write_again()
            return self.verdict

    def _hello(self, seat: Seat, content: dict[str, Any], *_: object) -> bytes:
        try:
            facts = SiteFacts.model_validate(content.get("facts"))
        except ValueError:
            return self._refuse(seat, "what it says of itself cannot be read")
        try:
            self.config.plan_for(seat.modality)
        except FlamesError as error:
            return self._refuse(seat, error.found)
        reason = mismatch(
            facts,
            config=digest(self.state.config_text),
            modality=seat.modality,
            organ=seat.member.organ,
            known_digest=self.state.known_digest(seat.name),
        )
        if reason:
            return self._refuse(seat, reason)
        if seat.status != "here":
            self._tell("joined", f"{seat.name} takes part", site=seat.name)
        seat.facts, seat.status, seat.reason = facts, "here", ""
        self.state.save_facts(seat.name, facts)
        return encode({"do": "go"})

    def _refused_there(self, seat: Seat, content: dict[str, Any], *_: object) -> bytes:
        return self._refuse(seat, str(content.get("reason"))[:500])

    def _waits(self, seat: Seat, content: dict[str, Any], *_: object) -> bytes:
        """Note that a site's own policy holds it back for now; it comes in by saying hello."""
        if seat.status == "refused":
            return encode({"do": "leave", "reason": seat.reason})
        reason = str(content.get("reason"))[:500]
        if (seat.status, seat.reason) != ("waiting", reason):
            self._tell("waits", f"{seat.name} waits: {reason}", site=seat.name)
        seat.status, seat.reason = "waiting", reason
        seat.wants_peers = content.get("for") == "peers"
        return encode({"do": "wait", "company": self._company(seat)})

    def _company(self, seat: Seat) -> dict[str, int]:
        known = self._trained() | self.server.answered
        return company(seat, list(self.seats.values()), known)

    def _ask(self, seat: Seat, content: dict[str, Any], *_: object) -> bytes:
        if seat.status != "here":
            return encode({"do": "hello"})
        if self._joining():
            return encode({"do": "wait"})
        if self.server.finished >= self.server.last_round:
            return self._ask_scores(seat)
        number = self.server.finished + 1
        done = seat.name in self.server.answered or seat.failed_round == number
        if done or self._waits_its_turn(seat):
            return encode({"do": "wait"})
        task, coded = self.server.dispatch(seat.name, as_holds(content.get("holds")))
        seat.done, seat.total = 0, len(task.steps)
        message = encode_task(task, coded, self.config.wire, self._company(seat))
        seat.down = len(message)
        return message

    def _ask_scores(self, seat: Seat) -> bytes:
        done = self.scores.has(seat.name) or seat.failed_round > self.server.last_round
        if done or seat.name not in self._trained():
            return encode({"do": "wait"})
        models = self.state.best_models(self.server, seat.modality)
        rules = self.server.presence_rules()
        facts = {
            "do": "score",
            "round": self.server.finished,
            "company": self._company(seat),
            "groups": sorted(models),
            "silence": {g: rules[g].threshold if g in rules else 0.0 for g in models},
        }
        return encode(facts, models)

    def _progress(self, seat: Seat, content: dict[str, Any], *_: object) -> bytes:
        if content.get("round") is None:
            return encode({"do": "go"})
        seat.done = int(content.get("done", 0))
        loss = content.get("loss")
        seat.loss = float(loss) if isinstance(loss, int | float) else None
        number = self.server.finished + 1
        current = content.get("round") == number or self.server.finished >= self.server.last_round
        return encode({"do": "go" if current else "drop"})

    def _update(
        self, seat: Seat, content: dict[str, Any], sections: dict[str, Any], size: int
    ) -> bytes:
        number = self.server.finished + 1
        if content.get("round") != number or seat.status != "here":
            late = f"round {str(content.get('round'))[:20]} is over"
            self._tell("late", f"an update of {seat.name} is not used: {late}", site=seat.name)
            return encode({"do": "drop", "reason": late})
        reply = as_reply(content.get("reply"), client=seat.name, modality=seat.modality)
        if seat.facts is not None and reply.num_examples != seat.facts.cases["train"]:
            raise FlamesError(f"{seat.name} counts other training cases than when it joined")
        coded, base = as_update(content, sections)
        try:
            self.server.receive(reply, coded, base, (seat.down, size))
        except UpdateSetAside as error:
            return self._go_on_without(seat, error.found)
        seat.done = seat.total
        if self.server.turns.takes_turns(seat.name):
            self.state.note_turn(self.clock())
        self._tell("update", f"{seat.name} answered round {number}", site=seat.name, bytes=size)
        return encode({"do": "go"})

    def _scored(
        self, seat: Seat, content: dict[str, Any], sections: dict[str, Any], _: int
    ) -> bytes:
        personal = self.server.strategy.personal
        like = self.server.start(seat.modality)
        self.scores.accept(
            seat.name, content, sections.get("kept"), like=like if personal else None
        )
        self._tell("scored", f"{seat.name} sent its scores", site=seat.name)
        return encode({"do": "go"})

    def _failed(self, seat: Seat, content: dict[str, Any], *_: object) -> bytes:
        seat.failed_round = self.server.finished + 1
        seat.reason = str(content.get("cause"))[:1000]
        self._tell("trouble", f"{seat.name}: {seat.reason}", site=seat.name)
        return encode({"do": "wait"})

    def _leave(self, seat: Seat, content: dict[str, Any], *_: object) -> bytes:
        seat.status, seat.reason = "away", str(content.get("reason"))[:200]
        seat.facts = None
        self._tell("left", f"{seat.name} left: {seat.reason}", site=seat.name)
        return encode({"do": "end", "reason": ""})

    _answers: Mapping[str, Callable[..., bytes]] = {
        "hello": _hello,
        "refuse": _refused_there,
        "waits": _waits,
        "ask": _ask,
        "progress": _progress,
        "update": _update,
        "scores": _scored,
        "failed": _failed,
        "leave": _leave,
    }

    def _joining(self) -> bool:
        """Return whether the job still waits for the first word of its sites."""
        awaited = [seat for seat in self.seats.values() if seat.status == "awaited"]
        if awaited and self.clock() - self.started > JOIN_SECONDS:
            for seat in awaited:
                seat.status = "away"
            awaited = []
        return bool(awaited)

    def _note_revoked(self) -> None:
        sites = self.news().sites
        for seat in self.seats.values():
            member = sites.get(seat.name)
            if seat.member.revoked or (member is not None and not member.revoked):
                continue
            when = member.revoked if member is not None else "it left the record"
            seat.member = seat.member.model_copy(update={"revoked": when})
            self._refuse(seat, f"revoked {when}")

    def _note_silence(self) -> None:
        limit = self.clock() - self.config.network.silence
        for seat in self.seats.values():
            if seat.status in ("here", "waiting") and seat.heard < limit:
                seat.status = "away"
                self._tell("silent", f"{seat.name} gives no sign of life", site=seat.name)

    def _waits_its_turn(self, seat: Seat) -> bool:
        """Return whether a site hands its model on to this one first; after the deadline nobody
        waits for that."""
        server = self.server
        number = server.finished + 1
        expected = {name for name, known in self.seats.items() if not known.is_out_of(number)}
        turn = server.turns.may_begin(seat.name, server.answered, expected)
        return not turn and not self._late()

    def _step_round(self) -> None:
        number = self.server.finished + 1
        seats = list(self.seats.values())
        every = standing(seats, self.server.answered, number, self._waits_its_turn)
        if not (every.busy or every.away or every.answered or every.queued):
            self._nobody_left(every)
        elif every.complete and every.answered:
            self._close(number)
        elif self._late():
            self._after_deadline(number, every)
        else:
            self._call_back(every)

    def _after_deadline(self, number: int, every: Standing) -> None:
        """Go on with every modality that has a quorum; wait where somebody works for one."""
        quorum = self.config.network.quorum
        without: list[str] = []
        for modality in sorted({seat.modality for seat in self.seats.values()}):
            seats = [seat for seat in self.seats.values() if seat.modality == modality]
            here = standing(seats, self.server.answered, number, self._waits_its_turn)
            if here.complete or here.enough(quorum):
                continue
            if here.busy:
                return
            without += [seat.name for seat in here.answered]
        if len(without) < len(every.answered):
            if without:
                self.server.withdraw(without)
                self._tell("quorum", f"no quorum with {', '.join(without)}: the round counts not")
            self._close(number)
        elif not every.busy and not self._somebody("waiting"):
            self._end("next", "no modality has a quorum of its sites")

    def _close(self, number: int) -> None:
        missing = sorted(
            seat.name
            for seat in self.seats.values()
            if seat.name not in self.server.answered and seat.status != "refused"
        )
        records = self.server.close_round()
        save_lines(self.state.run.rounds, self.server.records())
        for record in records:
            self._tell("record", sentence(record), round=number, rounds=self.config.rounds)
        ending = f", without {', '.join(missing)}" if missing else ""
        self._tell("round", f"round {number} is finished{ending}", round=number)
        self.since = self.state.round_since(self.server.finished + 1, self.clock())
        for seat in self.seats.values():
            seat.done, seat.total, seat.loss, seat.aside = 0, 0, None, 0
        if self.server.finished - self.first_round >= self.config.network.rounds_per_job:
            self._end("next", "the job did its rounds")

    def _step_scores(self) -> None:
        wanted = [seat for seat in self.seats.values() if seat.name in self._trained()]
        number = self.server.last_round + 1
        scored = frozenset(seat.name for seat in wanted if self.scores.has(seat.name))
        every = standing(wanted, scored, number)
        if every.complete and not every.answered:
            self._nobody_left(every)
        elif every.complete or (self._late() and every.answered and not every.busy):
            self.scores.finish(self.server)
            self._end("finished", "the run is finished")
        else:
            self._call_back(every)

    def _trained(self) -> set[str]:
        """Return the sites that answered at least one round."""
        return {*self.server.replies(), *self.server.away()}

    def _call_back(self, every: Standing) -> None:
        """End the job, once nobody works, for the sake of those who came back."""
        if every.busy:
            return
        connected = self.returned()
        back = [s.name for s in every.away if s.status == "away" and s.name in connected]
        if back:
            self._end("next", f"{', '.join(sorted(back))} came back")
        elif not self._somebody("here", "waiting"):
            self._end("next", "every site is away")

    def _somebody(self, *status: str) -> bool:
        return any(seat.status in status for seat in self.seats.values())

    def _nobody_left(self, every: Standing) -> None:
        reasons = [seat for seat in self.seats.values() if seat.reason and seat in every.failed]
        reasons += [seat for seat in self.seats.values() if seat.status == "refused"]
        cause = f"{reasons[0].name}: {reasons[0].reason}" if reasons else "no site takes part"
        self._end("failed", cause)

    def _late(self) -> bool:
        since = self.state.turn_since(self.server.finished + 1)
        return self.clock() - since > self.config.network.deadline

    def _refuse(self, seat: Seat, reason: str) -> bytes:
        seat.status, seat.reason = "refused", reason
        text = f"{seat.name} does not take part: {reason}"
        self._tell("refused", text, site=seat.name)
        if self.house is not None:
            self.house.write("refused", text, who=seat.name, why="run", run=self.state.path.name)
        return encode({"do": "leave", "reason": reason})

    def _set_aside(self, seat: Seat, reason: str) -> bytes:
        seat.aside += 1
        self._tell("aside", f"a message of {seat.name} is set aside: {reason}", site=seat.name)
        if seat.aside >= TRIES:
            seat.failed_round, seat.reason = self.server.finished + 1, reason
            return encode({"do": "wait"})
        return encode({"do": "again", "reason": reason})

    def _go_on_without(self, seat: Seat, reason: str) -> bytes:
        """Close the round without a site whose update is whole but not believed."""
        seat.failed_round, seat.reason = self.server.finished + 1, reason
        self._tell("aside", f"the update of {seat.name} is set aside: {reason}", site=seat.name)
        return encode({"do": "drop", "reason": reason})

    def _rest(self, error: NotWritten) -> None:
        """Wait for space on the server's own disk: no site is to blame, and nothing is lost."""
        if not self._no_room:
            self._tell("server-trouble", f"{error.found}; it waits for space")
        self._no_room = error.found
        self._rests = self.clock() + REST_SECONDS

    def _write_again(self) -> None:
        if self._no_room:
            self._tell("server-goes-on", f"there is space again after: {self._no_room}")
            self._no_room = ""

    def _end(self, verdict: Verdict, why: str) -> None:
        self.verdict = (verdict, why)
        self._tell(f"job-{verdict}", why)

    def _tell(self, event: str, text: str, **facts: Any) -> None:
        self.journal.write(event, text, **facts)

    def _write(self) -> None:
        """Write where the job stands, when it changed."""
        content = {
            "round": min(self.server.finished + 1, self.server.last_round),
            "finished_rounds": self.server.finished,
            "rounds": self.config.rounds,
            "since": self.since,
            "verdict": list(self.verdict) if self.verdict else None,
            "sites": {name: seat.describe() for name, seat in self.seats.items()},
        }
        text = json.dumps(content)
        if text != self._written:
            self.state.save_desk(content)
            self._written = text

"""The server's desk: sites come with messages, and a run goes on from round to round.

It knows no engine: it takes bytes from a site whose name somebody else has made sure of, and gives
bytes back. `step` is called again and again and says when the job should end, and why; what is due
when is the business of `Watch`. Everything that must survive is in the run folder, so the next
job's desk goes on where this one stopped. A site asked twice for one round answers with what it
did.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from flames.errors import FlamesError, NotWritten
from flames.federation.exchange import UpdateSetAside
from flames.federation.network.facts import SiteFacts, check_counts, digest, mismatch
from flames.federation.network.job_state import Verdict
from flames.federation.network.limits import MODELS
from flames.federation.network.messages import MessageError, decode, encode
from flames.federation.network.replies import as_progress, as_reply
from flames.federation.network.said import place, plain
from flames.federation.network.score_rows import Scorer
from flames.federation.network.seats import Seat
from flames.federation.network.tasks import UPDATE, as_holds, as_update, encode_task
from flames.federation.network.watch import Watch

REST_SECONDS = 5.0
"""How long the desk waits for space on its disk before it writes again."""
TRIES = 3
"""Updates of one site that may be set aside in a round before the round goes on without it."""
ARRAYS = {"update": UPDATE, "scores": ("kept",)}
"""Sections of arrays that messages hold; other messages hold none."""


class Desk:
    """One job of a run, at the server."""

    def __init__(self, watch: Watch) -> None:
        """Take the place up of the job that ``watch`` moves on."""
        self.watch = watch
        self.job = watch.job
        self.lock = threading.RLock()
        self._written = ""
        self._rests = 0.0
        self._no_room = ""

    @property
    def verdict(self) -> tuple[Verdict, str] | None:
        """Return why the job ends, once it does."""
        return self.job.verdict

    def handle(self, site: str, topic: str, message: bytes) -> bytes:
        """Return the answer to one message of a site whose name is made sure of."""
        with self.lock:
            seat = self.job.seats.get(site)
            if seat is None or seat.member.revoked:
                self.job.tell("refused", f"{site} is no site of this run", site=site)
                return encode({"do": "leave", "reason": "it is no site of this run"})
            seat.hear(self.job.clock())
            if self.verdict is not None:
                return encode({"do": "end", "reason": self.verdict[1]})
            answer = self._answers.get(topic)
            if answer is None:
                return self._set_aside(seat, f"nothing called {topic[:40]!r} is known here")
            try:
                facts, sections = self._decode(seat, topic, message)
                return answer(self, seat, facts, sections, len(message))
            except NotWritten as error:
                self._rest(error)
                return encode({"do": "later"})
            except FlamesError as error:
                return self._set_aside(seat, error.found)
            except Exception as error:
                # Whatever it is, one site's message must not end the run of all others.
                what = f"a message {topic!r} of {seat.name} could not be used"
                logging.getLogger(__name__).error(what, exc_info=error)
                return self._set_aside(seat, f"unexpected {type(error).__name__} in {topic}")

    def step(self) -> tuple[Verdict, str] | None:
        """Let time pass; return why the job ends, once it does."""
        with self.lock:
            if self.job.clock() < self._rests:
                return self.verdict
            try:
                if self.verdict is None:
                    self.watch.step()
                self._write()
            except NotWritten as error:
                self._rest(error)
            else:
                self._write_again()
            return self.verdict

    def _decode(
        self, seat: Seat, topic: str, message: bytes
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        sections, most = ARRAYS.get(topic, ()), 0
        if sections:
            model = self.job.server.start(seat.modality)
            most = MODELS["server"] * sum(array.nbytes for array in model.values())
        return decode(message, sections=sections, most_bytes=most)

    def _hello(self, seat: Seat, content: dict[str, Any], *_: object) -> bytes:
        job = self.job
        try:
            facts = SiteFacts.model_validate(content.get("facts"))
        except ValidationError as error:
            where = place(error) or "all of it"
            return self._refuse(seat, f"what it says of itself cannot be, at {where}")
        try:
            job.config.plan_for(seat.modality)
        except FlamesError as error:
            return self._refuse(seat, error.found)
        reason = mismatch(
            facts,
            config=digest(job.state.config_text),
            member=seat.member,
            known=job.state.facts().get(seat.name),
        )
        if reason:
            return self._refuse(seat, reason)
        if seat.status != "here":
            job.tell("joined", f"{seat.name} takes part", site=seat.name)
        seat.facts, seat.status, seat.reason = facts, "here", ""
        job.state.save_facts(seat.name, facts)
        return encode({"do": "go"})

    def _refused_there(self, seat: Seat, content: dict[str, Any], *_: object) -> bytes:
        return self._refuse(seat, plain(content.get("reason"), 500))

    def _waits(self, seat: Seat, content: dict[str, Any], *_: object) -> bytes:
        """Note that a site's own policy holds it back for now; it comes in by saying hello."""
        if seat.status == "refused":
            return encode({"do": "leave", "reason": seat.reason})
        reason = plain(content.get("reason"), 500)
        if (seat.status, seat.reason) != ("waiting", reason):
            self.job.tell("waits", f"{seat.name} waits: {reason}", site=seat.name)
        seat.status, seat.reason = "waiting", reason
        seat.wants_peers = content.get("for") == "peers"
        return encode({"do": "wait", "company": self.job.company(seat)})

    def _ask(self, seat: Seat, content: dict[str, Any], *_: object) -> bytes:
        job = self.job
        if seat.status != "here":
            return encode({"do": "hello"})
        if job.joining():
            return encode({"do": "wait"})
        if job.closing:
            return self._ask_scores(seat)
        done = seat.name in job.server.answered or seat.failed_round == job.number
        if done or job.waits_its_turn(seat):
            return encode({"do": "wait"})
        task, coded = job.server.dispatch(seat.name, as_holds(content.get("holds")))
        seat.done, seat.total = 0, len(task.steps)
        message = encode_task(task, coded, job.config.wire, job.company(seat))
        seat.down = len(message)
        return message

    def _ask_scores(self, seat: Seat) -> bytes:
        job, server = self.job, self.job.server
        done = job.scores.has(seat.name) or seat.failed_round > server.last_round
        if done or seat.name not in job.trained():
            return encode({"do": "wait"})
        models = job.state.best_models(server, seat.modality)
        rules = server.presence_rules()
        facts = {
            "do": "score",
            "round": server.finished,
            "company": job.company(seat),
            "groups": sorted(models),
            "silence": {g: rules[g].threshold if g in rules else 0.0 for g in models},
        }
        return encode(facts, models)

    def _progress(self, seat: Seat, content: dict[str, Any], *_: object) -> bytes:
        said = as_progress(content)
        if said.round is None:
            return encode({"do": "go"})
        seat.done, seat.loss = said.done, said.loss
        current = said.round == self.job.number or self.job.closing
        return encode({"do": "go" if current else "drop"})

    def _update(
        self, seat: Seat, content: dict[str, Any], sections: dict[str, Any], size: int
    ) -> bytes:
        job, number = self.job, self.job.number
        if content.get("round") != number or seat.status != "here":
            over = f"round {plain(content.get('round'), 20)} is over"
            late = seat.reason if seat.status == "refused" else over
            job.tell("late", f"an update of {seat.name} is not used: {late}", site=seat.name)
            aside = content.get("round") == seat.unbelieved
            return encode({"do": "drop", "reason": late, "aside": aside})
        reply = as_reply(content.get("reply"), client=seat.name, modality=seat.modality)
        if seat.facts is not None:
            check_counts(reply, seat.facts, number)
        coded, base = as_update(content, sections)
        try:
            job.server.receive(reply, coded, base, (seat.down, size))
        except UpdateSetAside as error:
            return self._go_on_without(seat, error.found)
        seat.done = seat.total
        if job.server.turns.takes_turns(seat.name):
            job.state.note_turn(job.clock())
        job.tell("update", f"{seat.name} answered round {number}", site=seat.name, bytes=size)
        return encode({"do": "go"})

    def _scored(
        self, seat: Seat, content: dict[str, Any], sections: dict[str, Any], _: int
    ) -> bytes:
        server = self.job.server
        if not self.job.closing or seat.status != "here":
            raise MessageError("its scores come before the last round is over")
        like = server.start(seat.modality) if server.strategy.personal else None
        group = server.strategy.group_of(seat.modality)
        most = seat.facts.cases["test"] if seat.facts is not None else 0
        scorer = Scorer(seat.name, seat.modality, seat.member.organ, group, most)
        self.job.scores.accept(scorer, content, sections.get("kept"), like=like)
        missing = self._unscored(seat, content)
        without = f", without those of {missing}" if missing else ""
        self.job.tell("scored", f"{seat.name} sent its scores{without}", site=seat.name)
        return encode({"do": "go"})

    def _unscored(self, seat: Seat, content: dict[str, Any]) -> str:
        """Return the server's models that a site has no score of, though it has test cases."""
        if seat.facts is None or not seat.facts.cases["test"]:
            return ""
        rows = [*content["rows"], *content.get("aggregates", [])]
        sent = {f"server:{g}" for g in self.job.state.best_models(self.job.server, seat.modality)}
        return ", ".join(sorted(sent - {row["model"] for row in rows}))

    def _failed(self, seat: Seat, content: dict[str, Any], *_: object) -> bytes:
        seat.failed_round = self.job.number
        seat.reason = plain(content.get("cause"), 1000)
        self.job.tell("trouble", f"{seat.name}: {seat.reason}", site=seat.name)
        return encode({"do": "wait"})

    def _leave(self, seat: Seat, content: dict[str, Any], *_: object) -> bytes:
        seat.status, seat.reason = "away", plain(content.get("reason"), 200)
        seat.facts = None
        self.job.tell("left", f"{seat.name} left: {seat.reason}", site=seat.name)
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

    def _refuse(self, seat: Seat, reason: str) -> bytes:
        self.job.refuse(seat, reason)
        return encode({"do": "leave", "reason": reason})

    def _set_aside(self, seat: Seat, reason: str) -> bytes:
        reason = plain(reason, 500)
        seat.aside += 1
        self.job.tell("aside", f"a message of {seat.name} is set aside: {reason}", site=seat.name)
        if seat.aside >= TRIES:
            seat.failed_round, seat.reason = self.job.number, reason
            return encode({"do": "wait"})
        return encode({"do": "again", "reason": reason})

    def _go_on_without(self, seat: Seat, reason: str) -> bytes:
        """Close the round without a site whose update is whole but not believed."""
        seat.failed_round = seat.unbelieved = self.job.number
        seat.reason = reason
        text = f"the update of {seat.name} is set aside: {reason}"
        self.job.tell("aside", text, site=seat.name)
        return encode({"do": "drop", "reason": reason, "aside": True})

    def _rest(self, error: NotWritten) -> None:
        """Wait for space on the server's own disk: no site is to blame, and nothing is lost."""
        if not self._no_room:
            self.job.tell("server-trouble", f"{error.found}; it waits for space")
        self._no_room = error.found
        self._rests = self.job.clock() + REST_SECONDS

    def _write_again(self) -> None:
        if self._no_room:
            self.job.tell("server-goes-on", f"there is space again after: {self._no_room}")
            self._no_room = ""

    def _write(self) -> None:
        """Write where the job stands, when it changed."""
        job = self.job
        content = {
            "round": min(job.number, job.server.last_round),
            "finished_rounds": job.server.finished,
            "rounds": job.config.rounds,
            "since": self.watch.since,
            "verdict": list(self.verdict) if self.verdict else None,
            "sites": {name: seat.describe() for name, seat in job.seats.items()},
        }
        text = json.dumps(content)
        if text != self._written:
            job.state.save_desk(content)
            self._written = text

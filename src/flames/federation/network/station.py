"""A site's station: it asks the server what to do, does it with the site's own client, answers.

It knows no engine: it sends bytes through a function that may fail, and asks again until the
server is gone for good. Before it says what the site is, before each round and before it scores, it
asks the site's guard; whatever leaves passes the site's gate. All that it needs for the next round
is on the site's own disk, so a station that died does its round again from where that began.
"""

from __future__ import annotations

import errno
import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from flames.data.store import MORE_PATIENTS, SPLITS, missing_sides
from flames.errors import FlamesError, NotWritten
from flames.federation.client import Client
from flames.federation.exchange import Task
from flames.federation.network.facts import facts_of
from flames.federation.network.gate import Gate
from flames.federation.network.guard import Guard, Refusal
from flames.federation.network.journal import Journal, now
from flames.federation.network.kits import SCORED_FILE
from flames.federation.network.limits import MODELS, network_bytes
from flames.federation.network.messages import decode, encode, peek
from flames.federation.network.said import plain
from flames.federation.network.scoring import FINISHED, aggregates, score_models
from flames.federation.network.sharing import received_by_others
from flames.federation.network.tasks import as_task, encode_update
from flames.federation.network.trained_store import check_new_to, check_store, note_store
from flames.files import save_json

POLL_SECONDS = 0.3
UNREACHABLE_SECONDS = 120.0
WAIT_SECONDS = 10.0
"""How often a site that waits says so, at most; never slower than the run's silence allows."""
GROUP = re.compile(r"^[A-Za-z0-9][A-Za-z0-9-]{0,59}$")
"""Names of server models, which become names of files here."""
BEAT_SECONDS = 1.0
IDLE_BEAT_SECONDS = 5.0
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
Sections = dict[str, dict[str, np.ndarray]]


class Stopped(BaseException):
    """The job is over while something was going on."""


class Station:
    """One job of a run, at a site."""

    def __init__(
        self,
        client: Client,
        config_text: str,
        gate: Gate,
        *,
        guard: Guard,
        stopped: Callable[[], bool],
        journal: Journal,
        folder: Path,
    ) -> None:
        """Prepare to take part.

        Args:
            client: The same client as in a simulation.
            config_text: The run's configuration, as it arrived.
            gate: The one way to the server.
            guard: Says what the site allows.
            stopped: Whether the job was ended from outside.
            journal: The site's own.
            folder: The site's own folder of this run.
        """
        self.client = client
        self.config_text = config_text
        self.gate = gate
        self.guard = guard
        self.stopped = stopped
        self.journal = journal
        self.folder = folder
        self.store = client.stores[0]
        self.beat = _Beat(self)

    def run(self) -> str:
        """Take part until the job ends; return why it ended.

        Raises:
            NotWritten: The site's disk is full; it can be tried again.
        """
        for told in self.client.rounds.damaged:
            self.journal.write("damaged", told)
        self.beat.start()
        try:
            check_store(self.folder, self.store)
            if (start := self.client.config.start) is not None:
                check_new_to(self.folder.parent / start.name, self.store)
            while True:
                facts, sections = self._call("ask", {"holds": self.client.rounds.holds()})
                if facts["do"] in ("end", "leave"):
                    return plain(facts.get("reason", ""), 500)
                self._do(facts, sections)
        except Refusal as refusal:
            return self._refuse(refusal.found)
        except Stopped:
            return "the job was stopped"
        finally:
            self.beat.stop()
            self.guard.leave()

    def _do(self, facts: dict[str, Any], sections: Sections) -> None:
        """Do what the server asks, where the site allows it now."""
        if facts["do"] not in ("hello", "train", "score"):
            self._pause(POLL_SECONDS)
            return
        company = None if facts["do"] == "hello" else _company(facts)
        if self._waited(company):
            return
        if facts["do"] == "hello":
            self._hello()
        elif facts["do"] == "train":
            self._train(as_task(facts, sections, self.client.rounds.held))
        else:
            self._score(facts, sections)

    def _waited(self, company: Mapping[str, Any] | None) -> bool:
        """Wait until the site allows to go on; return whether it had to, and must ask again.

        Raises:
            Refusal: It never will.
        """
        told, said = 0.0, ""
        every = min(WAIT_SECONDS, self.client.config.network.silence / 4)
        while True:
            self.guard.check()
            if company is not None:
                self.guard.check_peers(company)
            waiting = self.guard.waits(company)
            if waiting is None:
                return bool(said)
            if waiting.reason != said:
                self.journal.write("waits", f"waits: {waiting.reason}", run=self.gate.run)
            if waiting.reason != said or time.monotonic() - told > every:
                content = {"for": waiting.what, "reason": waiting.reason}
                answer, _ = self._call("waits", content)
                if answer["do"] in ("end", "leave"):
                    raise Stopped
                company = None if company is None else _company(answer)
                told, said = time.monotonic(), waiting.reason
            self._pause(POLL_SECONDS)

    def _refuse(self, reason: str) -> str:
        """Tell the server why the site takes no part, and return that."""
        self.journal.write("refuses", f"takes no part in {self.gate.run}: {reason}")
        try:
            self._call("refuse", {"reason": reason})
        except Stopped:
            return reason
        return reason

    def _hello(self) -> None:
        missing = missing_sides({side: len(self.store.split(side)) for side in SPLITS})
        if missing:
            raise Refusal(f"its store has {missing}: {MORE_PATIENTS}", MORE_PATIENTS)
        show_cases = self.guard.policy.scores == "cases"
        facts = facts_of(self.store, self.config_text, show_cases=show_cases)
        answer, _ = self._call("hello", {"facts": facts.model_dump(mode="json")})
        if answer["do"] == "leave":
            self.journal.write("refused", f"the server refuses: {plain(answer['reason'], 500)}")
            raise Stopped
        others = received_by_others(self.client.config)
        self.journal.write("sharing", f"in {self.gate.run} {others}")

    def _train(self, task: Task) -> None:
        self.guard.check_task(task, self.client.name)
        note_store(self.folder, self.store)
        number = task.server_round
        self.journal.write("train", f"round {number} begins: {len(task.steps)} steps", round=number)
        self.beat.work_on(number)
        self.guard.begin()
        try:
            reply, _ = self.client.answer(task, self._progress)
        except (Refusal, NotWritten):
            raise
        except Exception as error:
            self._failed(error)
            return
        finally:
            self.beat.work_on(None)
            self.guard.end()
        coded, base = self.client.rounds.outgoing(number)
        message = encode_update(reply, number, coded, base, self.client.config.wire)
        answer = self._deliver("update", message, f"update of round {number}")
        if answer.get("aside") and task.steps:
            self.client.rounds.take_back(number)
            self.journal.write(
                "aside", f"round {number} is not believed: {plain(answer['reason'], 500)}"
            )

    def _score(self, facts: dict[str, Any], models: Sections) -> None:
        for group in models:
            if not GROUP.fullmatch(group):
                raise Refusal(f"the server names a model {group[:40]!r}, which names no file")
        self.journal.write("score", "the finished models are scored on the test cases")
        self.beat.work_on(int(facts["round"]) + 1)
        self.guard.begin()
        try:
            scored = score_models(
                self.client,
                models,
                {str(k): float(v) for k, v in facts["silence"].items()},
                self.folder / FINISHED,
                self._scored_case,
            )
        except (Refusal, NotWritten):
            raise
        except Exception as error:
            self._failed(error)
            return
        finally:
            self.beat.work_on(None)
            self.guard.end()
        if self.client.strategy.personal and scored.kept is None:
            self.journal.write("lost", f"no model of its own is in {self.client.rounds.folder}")
        for why in scored.left_out:
            self.journal.write("left-out", f"a server's model is left out of the scores: {why}")
        policy, config = self.guard.policy, self.client.config
        content: dict[str, Any] = {
            "round": facts["round"],
            "rows": scored.rows,
            "calibration": scored.calibration,
            "seconds": scored.seconds,
        }
        if policy.scores == "aggregates":
            content |= {"rows": [], "aggregates": aggregates(scored.rows, config)}
        message = encode(content, {"kept": scored.kept if policy.personal_weights else None})
        answer = self._deliver("scores", message, "scores")
        if answer["do"] == "go":
            save_json(self.folder / SCORED_FILE, {"time": now(), "bytes": len(message)})

    def _deliver(self, topic: str, message: bytes, what: str) -> dict[str, Any]:
        """Send until the server has it, or wants it no more; return what it said.

        Raises:
            Refusal: A person at the site, or its policy, does not let it leave.
        """
        while True:
            self.guard.check()
            facts, _ = self._call(topic, message)
            if facts["do"] != "again":
                break
            why = plain(facts["reason"], 500)
            self.journal.write("again", f"the server could not use the {what}: {why}")
        self.journal.write("sent", f"{what}: {len(message)} bytes", bytes=len(message))
        return facts

    def _failed(self, error: Exception) -> None:
        if isinstance(error, OSError) and error.errno in FULL:
            raise NotWritten(f"cannot write: {error.strerror}", "free some space") from error
        found = error.found if isinstance(error, FlamesError) else f"unexpected: {error!r}"
        remedy = error.remedy if isinstance(error, FlamesError) else "see log.txt in the kit"
        logging.getLogger(__name__).error("the client failed", exc_info=error)
        self.journal.write("trouble", found, remedy=remedy)
        self._call("failed", {"cause": self.guard.cause(error)})

    def _progress(self, done: int, loss: float) -> None:
        self.beat.note(done, loss)
        self._alive()

    def _scored_case(self) -> None:
        self.beat.note(int(self.beat.content.get("done", 0)) + 1, None)
        self._alive()

    def _alive(self) -> None:
        if self.beat.over or self.stopped():
            raise Stopped
        self.guard.tick()

    def _call(self, topic: str, content: dict[str, Any] | bytes) -> tuple[dict[str, Any], Sections]:
        """Return the server's answer, asked for until it comes.

        Raises:
            Stopped: The job ended, or the server cannot be reached any more.
            Refusal: The policy does not let the message leave.
            NotWritten: The log of what leaves cannot be written.
        """
        message = content if isinstance(content, bytes) else encode(content)
        since, pause = time.monotonic(), POLL_SECONDS
        while True:
            if self.stopped():
                raise Stopped
            answer = self.gate(topic, message)
            since = max(since, self.beat.heard)
            if answer is not None:
                try:
                    facts, sections = self._read(topic, answer)
                    if facts["do"] != "later":
                        return facts, sections
                    since = time.monotonic()
                except FlamesError as error:
                    self.journal.write("damaged", error.found)
            if time.monotonic() - since > UNREACHABLE_SECONDS:
                self.journal.write("unreachable", "the server gives no answer; leaving this job")
                raise Stopped
            self._pause(pause)
            pause = min(2 * pause, 5.0)

    def _read(self, topic: str, answer: bytes) -> tuple[dict[str, Any], Sections]:
        """Return what an answer says; only who asks for work gets arrays."""
        if topic != "ask" or not peek(answer)[1]:
            return decode(answer, sections=(), most_bytes=0)
        return decode(answer, most_bytes=self._most_bytes)

    @cached_property
    def _most_bytes(self) -> int:
        config = self.client.config
        return MODELS["client"] * network_bytes(config, config.plan_for(self.store.modality))

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self.stopped():
                raise Stopped
            time.sleep(min(0.1, seconds))


def _company(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return how many peers the server counts; none where it does not say."""
    company = facts.get("company")
    return company if isinstance(company, Mapping) else {}


class _Beat:
    """Signs of life, with how far the client's work is: often while it works, else now and then."""

    def __init__(self, station: Station) -> None:
        self.station = station
        self.over = False
        self.content: dict[str, Any] = {"round": None}
        self.heard = 0.0
        """When the server last answered; a line may carry these words and break off others."""
        self.quiet = threading.Event()
        self.thread = threading.Thread(target=self._go, daemon=True)

    def start(self) -> None:
        self.thread.start()

    def work_on(self, number: int | None) -> None:
        self.over = False
        self.content = {"round": number, "done": 0, "loss": None}

    def note(self, done: int, loss: float | None) -> None:
        self.content = self.content | {"done": done, "loss": loss}

    def stop(self) -> None:
        self.quiet.set()
        self.thread.join(timeout=15)

    def _go(self) -> None:
        idle = min(IDLE_BEAT_SECONDS, self.station.client.config.network.silence / 4)
        told = time.monotonic()
        while not self.quiet.wait(BEAT_SECONDS):
            content = self.content
            if content["round"] is None and time.monotonic() - told < idle:
                continue
            told = time.monotonic()
            try:
                answer = self.station.gate("progress", encode(content))
            except FlamesError as error:
                logging.getLogger(__name__).error("no sign of life: %s", error.found)
                continue
            if answer is not None:
                self.heard = time.monotonic()
            if answer is not None and content["round"] == self.content["round"]:
                self._hear(answer)

    def _hear(self, answer: bytes) -> None:
        try:
            facts, _ = decode(answer, sections=(), most_bytes=0)
        except FlamesError:
            return
        if facts.get("do") in ("end", "leave", "drop"):
            self.over = True

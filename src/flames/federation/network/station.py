"""A site's station: it asks the server what to do, does it with the site's own client, answers.

It knows no engine: it sends bytes through a function that may fail, and asks again until the
server is gone for good. All that it needs for the next round is on the site's own disk, so a
station that died does its round again from where that began.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from flames.errors import FlamesError
from flames.federation.client import Client
from flames.federation.exchange import Task
from flames.federation.network.facts import facts_of
from flames.federation.network.journal import Journal
from flames.federation.network.messages import decode, encode
from flames.federation.network.scoring import score_models
from flames.federation.network.tasks import as_task, encode_update

POLL_SECONDS = 0.3
UNREACHABLE_SECONDS = 120.0
Sections = dict[str, dict[str, np.ndarray]]


class Stopped(BaseException):
    """The job is over while something was going on."""


class Send(Protocol):
    """Send one message to the server and return its answer, or None when none came."""

    def __call__(self, topic: str, message: bytes) -> bytes | None:
        """Return the answer."""


class Station:
    """One job of a run, at a site."""

    def __init__(
        self,
        client: Client,
        config_text: str,
        send: Send,
        *,
        stopped: Callable[[], bool],
        journal: Journal,
        folder: Path,
    ) -> None:
        """Prepare to take part.

        Args:
            client: The same client as in a simulation.
            config_text: The run's configuration, as it arrived.
            send: Sends one message.
            stopped: Whether the job was ended from outside.
            journal: The site's own.
            folder: The site's own folder of this run.
        """
        self.client = client
        self.config_text = config_text
        self.send = send
        self.stopped = stopped
        self.journal = journal
        self.folder = folder
        self.store = client.stores[0]
        self.beat = _Beat(self)

    def run(self) -> str:
        """Take part until the job ends; return why it ended."""
        self.beat.start()
        try:
            while True:
                facts, sections = self._call("ask", {})
                action = facts["do"]
                if action == "hello":
                    self._hello()
                elif action == "train":
                    self._train(as_task(facts, sections))
                elif action == "score":
                    self._score(facts, sections)
                elif action in ("end", "leave"):
                    return str(facts.get("reason", ""))
                else:
                    self._pause(POLL_SECONDS)
        except Stopped:
            return "the job was stopped"
        finally:
            self.beat.stop()

    def _hello(self) -> None:
        facts = facts_of(self.store, self.config_text, show_cases=True)
        answer, _ = self._call("hello", {"facts": facts.model_dump(mode="json")})
        if answer["do"] == "leave":
            self.journal.write("refused", f"the server refuses: {answer['reason']}")
            raise Stopped

    def _train(self, task: Task) -> None:
        number = task.server_round
        self.journal.write("train", f"round {number} begins: {len(task.steps)} steps", round=number)
        self.beat.work_on(number)
        try:
            reply, weights = self.client.answer(task, self._progress)
        except Exception as error:
            self._failed(error)
            return
        finally:
            self.beat.work_on(None)
        message = encode_update(reply, number, weights)
        self._deliver("update", message, f"update of round {number}")

    def _score(self, facts: dict[str, Any], models: Sections) -> None:
        self.journal.write("score", "the finished models are scored on the test cases")
        self.beat.work_on(int(facts["round"]) + 1)
        try:
            scored = score_models(
                self.client,
                models,
                {str(k): float(v) for k, v in facts["silence"].items()},
                self.folder / "finished",
                self._alive,
            )
        except Exception as error:
            self._failed(error)
            return
        finally:
            self.beat.work_on(None)
        message = encode(
            {
                "round": facts["round"],
                "rows": scored.rows,
                "calibration": scored.calibration,
                "seconds": scored.seconds,
            },
            {"kept": scored.kept},
        )
        self._deliver("scores", message, "scores")

    def _deliver(self, topic: str, message: bytes, what: str) -> None:
        """Send until the server has it, or wants it no more."""
        while True:
            facts, _ = self._call(topic, message)
            if facts["do"] != "again":
                break
            self.journal.write("again", f"the server could not use the {what}: {facts['reason']}")
        self.journal.write("sent", f"{what}: {len(message)} bytes", bytes=len(message))

    def _failed(self, error: Exception) -> None:
        found = error.found if isinstance(error, FlamesError) else f"unexpected: {error!r}"
        remedy = error.remedy if isinstance(error, FlamesError) else "see log.txt in the kit"
        logging.getLogger(__name__).error("the client failed", exc_info=error)
        self.journal.write("trouble", found, remedy=remedy)
        self._call("failed", {"cause": found})

    def _progress(self, done: int, loss: float) -> None:
        self.beat.note(done, loss)
        self._alive()

    def _alive(self) -> None:
        if self.beat.over or self.stopped():
            raise Stopped

    def _call(self, topic: str, content: dict[str, Any] | bytes) -> tuple[dict[str, Any], Sections]:
        """Return the server's answer, asked for until it comes.

        Raises:
            Stopped: The job ended, or the server cannot be reached any more.
        """
        message = content if isinstance(content, bytes) else encode(content)
        since, pause = time.monotonic(), POLL_SECONDS
        while True:
            if self.stopped():
                raise Stopped
            answer = self.send(topic, message)
            if answer is not None:
                try:
                    return decode(answer)
                except FlamesError as error:
                    self.journal.write("damaged", error.found)
            if time.monotonic() - since > UNREACHABLE_SECONDS:
                self.journal.write("unreachable", "the server gives no answer; leaving this job")
                raise Stopped
            self._pause(pause)
            pause = min(2 * pause, 5.0)

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self.stopped():
                raise Stopped
            time.sleep(min(0.1, seconds))


class _Beat:
    """A sign of life every second, with how far the client's work is."""

    def __init__(self, station: Station) -> None:
        self.station = station
        self.over = False
        self.content: dict[str, Any] = {"round": None}
        self.quiet = threading.Event()
        self.thread = threading.Thread(target=self._go, daemon=True)

    def start(self) -> None:
        self.thread.start()

    def work_on(self, number: int | None) -> None:
        self.over = False
        self.content = {"round": number, "done": 0, "loss": None}

    def note(self, done: int, loss: float) -> None:
        self.content = self.content | {"done": done, "loss": loss}

    def stop(self) -> None:
        self.quiet.set()
        self.thread.join(timeout=15)

    def _go(self) -> None:
        while not self.quiet.wait(1.0):
            content = self.content
            answer = self.station.send("progress", encode(content))
            if answer is not None and content["round"] == self.content["round"]:
                self._hear(answer)

    def _hear(self, answer: bytes) -> None:
        try:
            facts, _ = decode(answer)
        except FlamesError:
            return
        if facts.get("do") in ("end", "leave", "drop"):
            self.over = True

"""The guard of one run at a site: policy, approval and hours of work, asked before anything begins.

It belongs to the site. The server's messages go through it, not around it: the station asks it
before it says what the site is, before each round, and before it scores.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from flames.config import RunConfig
from flames.errors import FlamesError
from flames.federation.exchange import Task
from flames.federation.network.approval import (
    WAITS_FOR_APPROVAL,
    decision,
    note_order,
    note_waiting,
)
from flames.federation.network.facts import digest
from flames.federation.network.policy import Policy
from flames.files import save_json

KEEP_SECONDS = 30.0
"""How often the time spent is written while a round goes on."""


class Refusal(FlamesError):
    """The site does not do what it was asked; the reason is for the server too."""


@dataclass(frozen=True)
class Waiting:
    """Why a site does not begin yet."""

    what: Literal["approval", "hours", "peers"]
    reason: str


class Guard:
    """What one run may do at a site."""

    def __init__(
        self,
        policy: Policy,
        *,
        run: str,
        config: RunConfig,
        config_text: str,
        folder: Path,
        clock: Callable[[], datetime] = datetime.now,
    ) -> None:
        """Note that the run is here.

        Args:
            policy: The site's.
            run: Name of the run.
            config: Its configuration.
            config_text: The same as it arrived.
            folder: The site's own folder of this run.
            clock: The site's local time.
        """
        self.policy = policy
        self.config = config
        self.digest = digest(config_text)
        self.folder = folder
        self.clock = clock
        self.spent = self._read_spent()
        self._since: float | None = None
        self._kept = 0.0
        note_order(folder, run, config_text, config)

    def check(self) -> None:
        """Let the run go on, or not.

        Raises:
            Refusal: The policy or a person at the site does not allow it.
        """
        decided = decision(self.folder, self.digest)
        if decided is not None and decided["decision"] == "denied":
            why = f": {decided['reason']}" if decided["reason"] else ""
            raise Refusal(f"a person at the site denied the run{why}")
        reason = self.policy.refuses(self.config)
        if reason:
            raise Refusal(reason)
        if self.hours >= self.policy.most_hours:
            raise Refusal(
                f"its policy allows {self.policy.most_hours:g} hours of work for a run "
                "(most-hours), which are spent"
            )

    def check_task(self, task: Task, site: str) -> None:
        """Let a round of ``site`` begin, or not.

        Raises:
            Refusal: It asks for more than the run's configuration.
        """
        reason = self.policy.refuses_task(task, self.config, site)
        if reason:
            raise Refusal(reason)

    def check_peers(self, company: Mapping[str, Any]) -> None:
        """Let a run go on that enough peers can still come to, or not.

        Raises:
            Refusal: There will not be enough.
        """
        ever, fewest = _count(company, "ever"), self.policy.fewest_peers
        if ever < fewest:
            raise Refusal(
                f"its policy wants {fewest} peers of its modality (fewest-peers), "
                f"the run has {ever}"
            )

    def waits(self, company: Mapping[str, Any] | None) -> Waiting | None:
        """Return why the site does not begin yet, or None; a person at the site can see it.

        Args:
            company: Peers of its modality, as the server counts them: those who take part ``now``,
                and those who may ``ever``; None where nothing is asked that depends on them.
        """
        found = self._waits(company)
        note_waiting(self.folder, found.reason if found else "")
        return found

    def _waits(self, company: Mapping[str, Any] | None) -> Waiting | None:
        if self.policy.approval and decision(self.folder, self.digest) is None:
            return Waiting("approval", WAITS_FOR_APPROVAL)
        if not self.policy.is_open(self.clock().time()):
            return Waiting("hours", f"it works at {self.policy.working_hours} only")
        if company is not None and _count(company, "now") < self.policy.fewest_peers:
            reason = (
                f"its policy wants {self.policy.fewest_peers} peers of its modality, "
                f"{_count(company, 'now')} take part"
            )
            return Waiting("peers", reason)
        return None

    def leave(self) -> None:
        """Note that the run waits for nothing here any more."""
        note_waiting(self.folder, "")

    def cause(self, error: Exception) -> str:
        """Return what the server may know of a failure: words can name files and cases."""
        if self.policy.scores == "aggregates":
            return f"its own journal says why ({type(error).__name__})"
        return error.found if isinstance(error, FlamesError) else f"unexpected: {error!r}"

    @property
    def hours(self) -> float:
        """Return the hours that the site worked for the run."""
        return (self.spent + self._running()) / 3600

    def begin(self) -> None:
        """Begin to count time."""
        self._since, self._kept = time.monotonic(), 0.0

    def tick(self) -> None:
        """Keep the time that went by, now and then; called after every step.

        Raises:
            Refusal: There is none left, or a person at the site denied the run.
        """
        if self._running() - self._kept > KEEP_SECONDS:
            self._kept = self._running()
            self._save(self.spent + self._kept)
        self.check()

    def end(self) -> None:
        """Stop counting time."""
        self.spent += self._running()
        self._since = None
        self._save(self.spent)

    def _running(self) -> float:
        return 0.0 if self._since is None else time.monotonic() - self._since

    def _save(self, seconds: float) -> None:
        # A full disk must not end a round; the time is still known while the job lasts.
        with suppress(FlamesError):
            save_json(self.folder / "spent.json", {"seconds": round(seconds, 3)})

    def _read_spent(self) -> float:
        path = self.folder / "spent.json"
        if not path.exists():
            return 0.0
        return float(json.loads(path.read_text(encoding="utf-8"))["seconds"])


def _count(company: Mapping[str, Any], key: str) -> int:
    value = company.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0

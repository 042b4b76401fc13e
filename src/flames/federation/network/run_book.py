"""What the keeper and the jobs of a run write down for each other, at the server.

::

    RUN/state/run.json     the job that carries the run, its status, who asked for it
    RUN/state/jobs/ID.json what a job said at its end
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from flames.config import RunConfig
from flames.errors import FlamesError
from flames.federation.network.journal import Journal, now
from flames.files import save_json

Status = Literal["running", "stopped", "failed", "finished"]
RUN_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9-]{0,99}$")
"""It names a folder, at the server and at every site."""
CONFIG_FILE = "federation.toml"
JOB_FILE = "run.json"


@dataclass(frozen=True)
class JobOrder:
    """What a job of the engine carries: configuration, never code."""

    run: str
    everybody: bool
    config_text: str


def read_job(folder: Path) -> JobOrder:
    """Return what the job in the engine's ``folder`` asks for.

    Raises:
        FlamesError: It is no job of FLAMES.
    """
    try:
        content = json.loads((folder / JOB_FILE).read_text(encoding="utf-8"))
        text = (folder / CONFIG_FILE).read_text(encoding="utf-8")
        run = str(content["run"])
        if not RUN_NAME.fullmatch(run):
            raise ValueError(f"{run!r} is no name of a run")
        return JobOrder(run, bool(content["everybody"]), text)
    except (OSError, ValueError, KeyError) as error:
        raise FlamesError(
            f"the job is none of flames: {error}", "start runs with 'flames run … --on'"
        ) from error


def refuse_files(config: RunConfig) -> None:
    """Refuse a configuration that names a file, without a look at it.

    It would be one of the server's machine, which whoever starts a run may not read.

    Raises:
        FlamesError: `model.weights` is set.
    """
    if config.model.weights is not None:
        raise FlamesError(
            "model.weights names a file, and a run over a network takes none",
            "leave it out: weights start at random, or pretrained from an installed package",
        )


@dataclass(frozen=True)
class RunBook:
    """The small files by which a run's jobs follow each other."""

    path: Path

    @property
    def events(self) -> Path:
        """Return the run's journal."""
        return self.path / "state" / "events.jsonl"

    @property
    def desk(self) -> Path:
        """Return where the running job says how it stands."""
        return self.path / "state" / "desk.json"

    def read(self) -> dict[str, Any]:
        """Return status, jobs and cause; empty for a run that has not begun."""
        return _read(self.path / "state" / "run.json")

    def read_desk(self) -> dict[str, Any]:
        """Return how the running job stands; empty before it said so."""
        return _read(self.desk)

    def finished_rounds(self) -> int:
        """Return how many rounds are finished."""
        found = (self.path / "state" / "server").glob("round-*")
        return max((int(path.name[6:]) for path in found), default=0)

    def begin(self, job_id: str, order: JobOrder, by: str) -> None:
        """Note that a job carries the run now; called by the job itself.

        Raises:
            FlamesError: The run is somebody else's, of another configuration, or was ended since
                the job was started.
        """
        known = self.read()
        if known.get("by", by) != by:
            raise FlamesError(
                f"the run {order.run} is {known['by']}'s, and {by or 'nobody'} handed this job in",
                "name a new --out",
            )
        config = self.path / "config.toml"
        if config.exists() and config.read_text(encoding="utf-8") != order.config_text:
            raise FlamesError(
                f"the run {order.run} was started with another configuration",
                "name a new --out",
            )
        jobs = [*known.get("jobs", [])]
        if job_id not in jobs:
            jobs.append(job_id)
        elif known["status"] != "running":
            raise FlamesError(
                f"the run {order.run} is {known['status']}: {known['cause']}",
                "go on with 'flames run … --on … --resume'",
            )
        save_json(
            self.path / "state" / "run.json",
            {"begun": now(), "by": by} | known | {"status": "running", "cause": "", "jobs": jobs},
        )
        if len(jobs) > 1 and jobs[-1] == job_id:
            Journal(self.events).write("job", f"job {len(jobs)} takes over", job=job_id)

    def set_status(self, status: Status, cause: str = "", **more: Any) -> None:
        """Change the run's status."""
        content = self.read() | {"status": status, "cause": cause, "changed": now()} | more
        save_json(self.path / "state" / "run.json", content)

    def note_verdict(self, job_id: str, verdict: str, why: str) -> None:
        """Write how a job ended by itself."""
        save_json(self._job(job_id), {"verdict": verdict, "why": why})

    def note_failure(self, job_id: str, why: str) -> None:
        """Write why a job could not go on at the server."""
        try:
            save_json(self._job(job_id), {"verdict": "broken", "why": why})
        except FlamesError:
            return

    def verdict(self, job_id: str) -> tuple[str, str]:
        """Return how a job ended; ``died`` when it could not say."""
        content = _read(self._job(job_id))
        return str(content.get("verdict", "died")), str(content.get("why", ""))

    def _job(self, job_id: str) -> Path:
        return self.path / "state" / "jobs" / f"{job_id}.json"


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}

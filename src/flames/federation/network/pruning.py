"""What a server or a site that is stopped needs no more: of jobs long ago, and of finished runs.

Results, a site's own model, decisions, journals and the log of what leaves stay. So does all of a
run that is not finished: it can go on.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from flames.federation.network.kits import SCORED_FILE, Kit
from flames.federation.network.processes import stopped
from flames.federation.network.run_book import RunBook
from flames.files import writing

DAY = 86400.0
JOB = re.compile(r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
"""Names of the engine's jobs and of their folders."""
WORK = ("server", "scores", "start*.safetensors")
"""What the next job of a run begins from, in its ``state``; results are beside that."""


@dataclass(frozen=True)
class Pruned:
    """A file or folder that is not needed any more."""

    path: Path
    size: int
    """Bytes of all that is in it."""


def prune(kit: Kit, *, days: float, dry_run: bool = False) -> list[Pruned]:
    """Delete what is not needed since ``days``; return it.

    Args:
        kit: A server's or a site's.
        days: How long ago a job or a finished run must have ended.
        dry_run: Delete nothing.

    Raises:
        FlamesError: The kit is in use, or something cannot be deleted.
    """
    with stopped(kit):
        before = time.time() - days * DAY
        unneeded = _of_server(kit, before) if kit.kind == "server" else _of_site(kit, before)
        found = [Pruned(path, _bytes(path)) for path in sorted(unneeded)]
        for one in found if not dry_run else ():
            with writing(one.path):
                shutil.rmtree(one.path) if one.path.is_dir() else one.path.unlink()
    return found


def _of_server(kit: Kit, before: float) -> Iterator[Path]:
    yield from _job_folders(kit, before)
    yield from (path for path in kit.path.glob("transfer/*") if _newest(path) < before)
    for run in kit.runs.glob("*"):
        content = RunBook(run).read()
        jobs = [kit.path / "jobs" / str(job) for job in content.get("jobs", [])]
        ended = content.get("status") == "finished" and "changed" in content
        over = ended and datetime.fromisoformat(content["changed"]).timestamp() < before
        if over:
            yield from (path for name in WORK for path in (run / "state").glob(name))
        # The last job of a run is the one that its next is made of, or that people fetch.
        for job in jobs if over else jobs[:-1]:
            if JOB.match(job.name) and job.exists() and _newest(job) < before:
                yield job


def _of_site(kit: Kit, before: float) -> Iterator[Path]:
    yield from _job_folders(kit, before)
    for run in kit.state.glob("*"):
        # Models lie in "finished" before they are scored, and its own is scored from "client".
        scored = (run / SCORED_FILE).exists() and (run / "client").exists()
        if scored and _newest(run) < before:
            yield run / "client"


def _job_folders(kit: Kit, before: float) -> Iterator[Path]:
    for path in kit.path.glob("*-*"):
        if JOB.match(path.name) and path.is_dir() and _newest(path) < before:
            yield path


def _newest(path: Path) -> float:
    return max(each.lstat().st_mtime for each in (path, *path.rglob("*")))


def _bytes(path: Path) -> int:
    files = (each for each in (path, *path.rglob("*")) if not each.is_dir())
    return sum(each.lstat().st_size for each in files)

"""The keeper lives in the server's engine: it chains jobs into runs and answers people.

A run is whatever ``runs/`` says is running. When the job that carries it has ended, however it
ended, the keeper starts the next one: the same signed job once more. So a server that died goes on
by being started again.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_context import FLContext
from nvflare.apis.job_def import JobMetaKey, RunStatus, get_job_meta_study
from nvflare.apis.storage import WORKSPACE
from nvflare.private.fed.server.job_cmds import CLONED_META_KEYS

from flames.federation.network.commands import PeoplesCommands
from flames.federation.network.door import OwnName
from flames.federation.network.journal import Journal
from flames.federation.network.kits import Kit
from flames.federation.network.run_book import RunBook
from flames.files import save_json

LOOK_SECONDS = 0.5
MOST_BROKEN_JOBS = 5
"""Jobs in a row that died or broke without finishing a round, before the run is given up."""
LAST = ("finished", "failed")
"""Verdicts after which a run has no next job."""
MOST_PAUSE_SECONDS = 300.0
"""How far apart jobs begin at most that finish no round, as while too many sites are away."""
SUBMITTER = (
    JobMetaKey.SUBMITTER_NAME.value,
    JobMetaKey.SUBMITTER_ORG.value,
    JobMetaKey.SUBMITTER_ROLE.value,
)


class RunKeeper(FLComponent):
    """Chains jobs; one at each server."""

    def __init__(self) -> None:
        """Wait for the engine."""
        super().__init__()
        self.ending = threading.Event()
        self.deciding = threading.Lock()
        """Held while it is decided whether a run goes on: people stop runs in other threads."""
        self.engine: Any = None
        self.thread: threading.Thread | None = None
        self.seen: dict[str, float] = {}
        self.next_look: dict[str, float] = {}

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Begin and end with the engine."""
        if event_type == EventType.SYSTEM_START and self.thread is None:
            self.engine = fl_ctx.get_engine()
            self.thread = threading.Thread(target=self._keep, daemon=True)
            self.thread.start()
        elif event_type == EventType.SYSTEM_END:
            self.ending.set()

    def _keep(self) -> None:
        from pathlib import Path

        while (
            not self.ending.is_set() and getattr(self.engine.server, "admin_server", None) is None
        ):
            time.sleep(0.05)
        kit = Kit.open(Path(str(self.engine.args.workspace)), "server")
        journal = Journal(kit.events)
        registry = self.engine.server.admin_server.cmd_reg
        registry.register_module(PeoplesCommands(kit, self))
        registry.add_filter(OwnName(self.engine.server.porter))
        registry.cmd_map = {}
        registry.finalize()
        journal.write("ready", f"the server of {kit.consortium} is ready at {kit.server}")
        while not self.ending.wait(LOOK_SECONDS):
            try:
                self.engine.server.put_out()
                self._note_sites(kit, journal)
                for book in [RunBook(path) for path in sorted(kit.runs.glob("*"))]:
                    self._look_after(book)
            except Exception as error:
                journal.write("keeper", f"the keeper stumbled: {error!r}")
                self.ending.wait(5.0)

    def _note_sites(self, kit: Kit, journal: Journal) -> None:
        """Write who is connected, for the desks, and tell of changes."""
        names = {str(client.name) for client in self.engine.get_clients()}
        if names == set(self.seen) and kit.present.exists():
            return
        for name in sorted(names - set(self.seen)):
            self.seen[name] = time.time()
            self.next_look.clear()
            journal.write("connected", f"{name} is connected", site=name)
        for name in sorted(set(self.seen) - names):
            del self.seen[name]
            journal.write("disconnected", f"{name} is not connected any more", site=name)
        save_json(kit.present, self.seen)

    def _look_after(self, book: RunBook) -> None:
        with self.deciding:
            self._decide(book)

    def _decide(self, book: RunBook) -> None:
        content = book.read()
        if content.get("status") != "running" or not content.get("jobs"):
            return
        job_id = content["jobs"][-1]
        paused = time.monotonic() < self.next_look.get(book.path.name, 0.0)
        if paused and not self._got_on(book, content) and book.verdict(job_id)[0] not in LAST:
            return
        with self.engine.new_context() as fl_ctx:
            job = self.engine.job_def_manager.get_job(job_id, fl_ctx)
            if job is None:
                book.set_status("failed", f"the engine lost job {job_id}")
            elif self._is_over(job):
                self._next_job(book, content, job, fl_ctx)

    @staticmethod
    def _got_on(book: RunBook, content: dict[str, Any]) -> bool:
        """Return whether a round was finished since the running job was made."""
        return book.finished_rounds() > int(content.get("rounds_before", 0))

    def _is_over(self, job: Any) -> bool:
        status = str(job.meta.get(JobMetaKey.STATUS.value))
        if status.startswith("FINISHED"):
            return True
        working = (RunStatus.RUNNING.value, RunStatus.DISPATCHED.value)
        known = (*self.engine.run_processes, *self.engine.job_runner.running_jobs)
        return status in working and job.job_id not in known and self._settled(job.job_id)

    def _settled(self, job_id: str) -> bool:
        """Return whether a job has been unknown to the engine for a while, not just for now."""
        since = self.next_look.setdefault(f"unknown {job_id}", time.monotonic())
        return time.monotonic() - since > 10.0

    def _next_job(
        self, book: RunBook, content: dict[str, Any], job: Any, fl_ctx: FLContext
    ) -> None:
        verdict, why = book.verdict(job.job_id)
        if verdict == "finished" and self._can_be_fetched(job.job_id, fl_ctx):
            book.set_status("finished")
            return
        if verdict == "failed":
            book.set_status("failed", why)
            return
        if self._record_is_damaged():
            return
        rounds, progress = book.finished_rounds(), self._got_on(book, content)
        idle = 0 if progress else int(content.get("idle", 0)) + 1
        # The job of a finished run did its work: where the disk is full it could not be kept.
        whole = verdict in ("next", "finished") or progress
        broken = 0 if whole else int(content.get("broken", 0)) + 1
        if broken >= MOST_BROKEN_JOBS:
            cause = why or "the server's job died without a word"
            book.set_status("failed", f"{broken} jobs in a row ended without a round: {cause}")
            return
        cloned = self._unnoted_clone(job.job_id, fl_ctx) or self._clone(job, fl_ctx)
        jobs = [*content["jobs"], cloned]
        book.set_status("running", jobs=jobs, broken=broken, idle=idle, rounds_before=rounds)
        pause = max(2.0**broken, 2.0 ** (min(idle, 20) - 1))
        self.next_look[book.path.name] = time.monotonic() + min(pause, MOST_PAUSE_SECONDS)

    def _can_be_fetched(self, job_id: str, fl_ctx: FLContext) -> bool:
        """Return whether the engine keeps what a job left; not where it died before that."""
        return WORKSPACE in self.engine.job_def_manager.list_components(job_id, fl_ctx)

    def _record_is_damaged(self) -> bool:
        """Return whether a job could not begin: it knows no record but the one on disk."""
        porter = self.engine.server.porter
        return porter.record() is None or bool(porter.latest.trouble)

    def _unnoted_clone(self, job_id: str, fl_ctx: FLContext) -> str | None:
        """Return the next job, where the server died before it noted that it had made it."""
        waiting = [RunStatus.SUBMITTED, RunStatus.DISPATCHED, RunStatus.RUNNING]
        for job in self.engine.job_def_manager.get_jobs_by_status(waiting, fl_ctx):
            if job.meta.get(JobMetaKey.CLONED_FROM.value) == job_id:
                return str(job.job_id)
        return None

    def _clone(self, job: Any, fl_ctx: FLContext) -> str:
        """Return the number of a job like another one, by the same person."""
        meta = {str(key): job.meta[key] for key in job.meta.keys() & CLONED_META_KEYS}
        meta |= {key: job.meta.get(key) for key in SUBMITTER}
        meta[JobMetaKey.CLONED_FROM.value] = job.job_id
        meta[JobMetaKey.STUDY.value] = get_job_meta_study(job.meta)
        cloned = self.engine.job_def_manager.clone(from_jid=job.job_id, meta=meta, fl_ctx=fl_ctx)
        return str(cloned[JobMetaKey.JOB_ID.value])

    def stop_run(self, book: RunBook, who: str) -> None:
        """End a run's job and start no other."""
        with self.deciding:
            content = book.read()
            book.set_status("stopped", f"stopped by {who}")
        Journal(book.events).write("stopped", f"stopped by {who}")
        for job_id in content.get("jobs", [])[-1:]:
            self.end_job(job_id)

    def end_job(self, job_id: str) -> None:
        """End one job of the engine, wherever it is."""
        with self.engine.new_context() as fl_ctx:
            job = self.engine.job_def_manager.get_job(job_id, fl_ctx)
            if job is None:
                return
            if job.meta.get(JobMetaKey.STATUS.value) == RunStatus.SUBMITTED.value:
                self.engine.job_def_manager.set_status(job_id, RunStatus.FINISHED_ABORTED, fl_ctx)
            else:
                self.engine.job_runner.stop_run(job_id, fl_ctx)

    def submitter(self, job_id: str) -> str | None:
        """Return who handed a job in; None where the engine knows no such job."""
        with self.engine.new_context() as fl_ctx:
            job = self.engine.job_def_manager.get_job(job_id, fl_ctx)
        return None if job is None else str(job.meta.get(JobMetaKey.SUBMITTER_NAME.value))

    def continue_run(self, book: RunBook) -> None:
        """Let a stopped or failed run go on, whatever its last job said of it."""
        with self.deciding:
            content = book.read()
            if content.get("status") in ("stopped", "failed"):
                for job_id in content.get("jobs", [])[-1:]:
                    book.note_verdict(job_id, "next", "a person lets the run go on")
                book.set_status("running", broken=0, idle=0)

    def job_status(self, job_id: str) -> str | None:
        """Return what the engine says of a job, with the reason it waits where it does."""
        with self.engine.new_context() as fl_ctx:
            job = self.engine.job_def_manager.get_job(job_id, fl_ctx)
        return None if job is None else str(job.meta.get(JobMetaKey.STATUS.value))

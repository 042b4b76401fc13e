"""The engine's job at the server: it opens the run folder and sits at the desk."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.impl.controller import Controller, Task
from nvflare.apis.job_def import JobMetaKey
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal

from flames.errors import FlamesError, NotWritten
from flames.federation.beginning import first_weights, make_strategy
from flames.federation.network.channel import listen
from flames.federation.network.consortium import Latest, load_record
from flames.federation.network.desk import REST_SECONDS, Desk
from flames.federation.network.job_state import JobState, Verdict
from flames.federation.network.journal import Journal
from flames.federation.network.kits import Kit
from flames.federation.network.run_book import RunBook, read_job
from flames.federation.network.run_state import RunState
from flames.federation.network.watch import Watch
from flames.federation.server import Server
from flames.files import writing

T = TypeVar("T")

STEP_SECONDS = 0.1
FAREWELL_SECONDS = 3.0
"""How long the server's job stays after the end, so that sites hear of it."""


class RoundController(Controller):
    """The workflow that a run's jobs name; FLAMES' own, installed at the server."""

    def start_controller(self, fl_ctx: FLContext) -> None:
        """Do nothing yet; all happens in `control_flow`, where a failure ends the job."""

    def stop_controller(self, fl_ctx: FLContext) -> None:
        """Do nothing: everything is on disk."""

    def control_flow(self, abort_signal: Signal, fl_ctx: FLContext) -> None:
        """Sit at the desk until the job ends."""
        workspace = fl_ctx.get_workspace()
        job_id = str(fl_ctx.get_job_id())
        kit = Kit.open(Path(workspace.get_root_dir()), "server")
        job = read_job(Path(workspace.get_app_config_dir(job_id)))
        book = RunBook(kit.runs / job.run)
        try:
            self._run(kit, job_id, book, abort_signal, fl_ctx)
        except FlamesError as error:
            book.note_failure(job_id, f"at the server: {error.found}")
            Journal(book.events).write("server-trouble", error.found, remedy=error.remedy)
            self.system_panic(error.found, fl_ctx)
        except Exception as error:
            logging.getLogger(__name__).error("the server's job failed", exc_info=error)
            found = f"unexpected: {error!r}"
            book.note_failure(job_id, f"at the server: {found}")
            Journal(book.events).write("server-trouble", found, remedy="see log.txt in the kit")
            self.system_panic(found, fl_ctx)

    def _run(
        self, kit: Kit, job_id: str, book: RunBook, abort_signal: Signal, fl_ctx: FLContext
    ) -> None:
        engine = fl_ctx.get_engine()
        job = read_job(Path(fl_ctx.get_workspace().get_app_config_dir(job_id)))
        meta = fl_ctx.get_prop(FLContextKey.JOB_META) or {}
        by = str(meta.get(JobMetaKey.SUBMITTER_NAME.value, ""))

        def open_desk() -> Desk:
            book.begin(job_id, job, by)
            state = RunState.claim(book.path, job.config_text, everybody=job.everybody)
            state.bring_earlier(by)
            server = Server(
                [],
                config=state.config,
                strategy=make_strategy(state.config),
                start=first_weights(state.config, state.run),
                folder=state.run.state / "server",
            )
            sites = [client.name for client in engine.get_clients()]
            job_state = JobState(
                state, server, load_record(kit.record), sites, house=Journal(kit.events)
            )
            news = Latest(kit.record).read
            return Desk(Watch(job_state, returned=lambda: _connected(kit.present), news=news))

        desk = with_space(book, open_desk, ended=lambda: bool(abort_signal.triggered))
        if desk is None:
            return
        listen(engine.get_cell(), job_id, desk.handle)
        self.broadcast(Task(name="flames", data=Shareable(), timeout=0), fl_ctx=fl_ctx)
        while desk.step() is None and not abort_signal.triggered:
            time.sleep(STEP_SECONDS)
        if desk.verdict is not None:
            folder = Path(fl_ctx.get_workspace().get_run_dir(job_id))
            leave_word(
                book,
                job_id,
                desk.verdict,
                folder=folder,
                ended=lambda: bool(abort_signal.triggered),
            )
            until = time.monotonic() + FAREWELL_SECONDS
            while time.monotonic() < until and not abort_signal.triggered:
                time.sleep(STEP_SECONDS)

    def process_result_of_unknown_task(self, *_: Any, **__: Any) -> None:
        """Ignore what the engine says of tasks: sites speak with the desk."""


def with_space(book: RunBook, do: Callable[[], T], *, ended: Callable[[], bool]) -> T | None:
    """Return what ``do`` returns, once the server's disk has space for what it writes.

    Until then it is tried again and again, and the run's journal says so. None when the job was
    ``ended`` from outside meanwhile.
    """
    waits_for = ""
    while True:
        try:
            done = do()
            break
        except NotWritten as error:
            if not waits_for:
                told = f"{error.found}; it waits for space"
                Journal(book.events).write("server-trouble", told)
            waits_for = error.found
        if ended():
            return None
        time.sleep(REST_SECONDS)
    if waits_for:
        told = f"there is space again after: {waits_for}"
        Journal(book.events).write("server-goes-on", told)
    return done


def leave_word(
    book: RunBook,
    job_id: str,
    verdict: tuple[Verdict, str],
    *,
    folder: Path,
    ended: Callable[[], bool],
) -> None:
    """Write how a job ended, and put a finished run into the engine's ``folder`` to be fetched."""

    def write() -> None:
        if verdict[0] == "finished":
            _leave_for_download(book.path, folder)
        book.note_verdict(job_id, *verdict)

    with_space(book, write, ended=ended)


def _leave_for_download(run: Path, folder: Path) -> None:
    """Put the finished run folder where the engine lets its person fetch it."""
    dest = folder / "finished"
    with writing(dest):
        shutil.copytree(run, dest, ignore=shutil.ignore_patterns("state"), dirs_exist_ok=True)


def _connected(path: Path) -> dict[str, float]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}

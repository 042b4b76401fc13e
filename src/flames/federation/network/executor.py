"""The engine's job at a site: it opens the site's own store and lets the station work."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal

from flames.config import RunConfig, load_config
from flames.data.folds import in_fold
from flames.data.store import SiteStore
from flames.errors import FlamesError, NotWritten
from flames.federation.beginning import make_strategy
from flames.federation.client import Client
from flames.federation.network.channel import sender
from flames.federation.network.gate import Gate
from flames.federation.network.guard import Guard, Refusal
from flames.federation.network.journal import Journal
from flames.federation.network.kits import Kit
from flames.federation.network.messages import encode
from flames.federation.network.outgoing import OutgoingLog
from flames.federation.network.run_book import CONFIG_FILE, read_job
from flames.federation.network.scoring import own_of_earlier
from flames.federation.network.settings import read_site_settings
from flames.federation.network.station import WAIT_SECONDS, Station
from flames.files import writing
from flames.models.precision import choose_precision

FULL_SECONDS = 5.0
"""How long a site waits for space on its disk before it tries again."""


class SiteExecutor(Executor):
    """The one component that a run's jobs may name at a site; FLAMES' own, installed there."""

    def execute(
        self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal
    ) -> Shareable:
        """Take part in the job until it ends."""
        del task_name, shareable
        workspace = fl_ctx.get_workspace()
        job_id = str(fl_ctx.get_job_id())
        kit = Kit.open(Path(workspace.get_root_dir()), "site")
        app = Path(workspace.get_app_config_dir(job_id))
        journal = Journal(kit.events)
        send = sender(fl_ctx.get_engine().get_cell(), job_id, abort_signal)
        gate = Gate(send, OutgoingLog(kit.outgoing))
        said = ""
        while not abort_signal.triggered:
            try:
                self._take_part(kit, app, journal, gate, abort_signal)
                break
            except NotWritten as error:
                if error.found != said:
                    journal.write("trouble", error.found, remedy=error.remedy)
                said = error.found
                _tell_full(gate)
                _wait_for(abort_signal, FULL_SECONDS)
            except FlamesError as error:
                journal.write("trouble", error.found, remedy=error.remedy)
                _tell_trouble(gate, error)
                _wait_for(abort_signal)
        return make_reply(ReturnCode.OK)

    @staticmethod
    def _take_part(kit: Kit, app: Path, journal: Journal, gate: Gate, abort_signal: Signal) -> None:
        order = read_job(app)
        settings = read_site_settings(kit)
        gate.run, gate.policy = order.run, settings.policy
        config = load_config(app / CONFIG_FILE)
        folder = kit.state / order.run
        lock = _hold(folder)
        try:
            guard = Guard(
                settings.policy,
                run=order.run,
                config=config,
                config_text=order.config_text,
                folder=folder,
            )
            with telling_that_it_reads(gate, every=min(WAIT_SECONDS, config.network.silence / 4)):
                client = _client(kit.name, settings.store, config, folder)
            journal.write("begin", f"a job of {order.run} is here", run=order.run)
            why = Station(
                client,
                order.config_text,
                gate,
                guard=guard,
                stopped=lambda: bool(abort_signal.triggered),
                journal=journal,
                folder=folder,
            ).run()
            journal.write("end", f"the job of {order.run} is over: {why}", run=order.run)
        finally:
            os.close(lock)


def _tell_trouble(gate: Gate, error: FlamesError) -> None:
    """Tell the server that the site takes no part, with the reason where that may leave."""
    reason = error.found
    if gate.policy.scores == "aggregates" and not isinstance(error, Refusal):
        reason = "its own journal says why"
    try:
        gate("refuse", encode({"reason": reason}))
    except FlamesError as another:
        logging.getLogger(__name__).error("the server was not told: %s", another.found)


@contextmanager
def telling_that_it_reads(gate: Gate, *, every: float) -> Iterator[None]:
    """Tell the server again and again that the site reads its store, where that takes long.

    Otherwise the server would take the site for one that is away and came back, and begin another
    job for it, in which it would have to read the store from the beginning.
    """
    done = threading.Event()

    def tell() -> None:
        while not done.wait(every):
            with suppress(FlamesError):
                gate("waits", encode({"for": "store", "reason": "it reads its store"}))

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _tell_full(gate: Gate) -> None:
    """Tell the server that the site waits for space, where that can be logged."""
    with suppress(FlamesError):
        gate("waits", encode({"for": "space", "reason": "its disk is full"}))


def _client(name: str, place: Path, config: RunConfig, folder: Path) -> Client:
    store = in_fold(SiteStore.open(place), config.data.folds, config.data.fold)
    store.verify()
    if config.threads:
        torch.set_num_threads(config.threads)
    return Client(
        name,
        [store],
        config=config,
        strategy=make_strategy(config),
        precision=choose_precision(config.training.precision),
        folder=folder / "client",
        earlier=own_of_earlier(folder, config),
    )


def _hold(folder: Path) -> int:
    """Return a lock on the site's state of a run; an older job that still holds it is ended.

    Such a job hangs: the server has given it up, or it would not have begun this one.

    Raises:
        NotWritten: The disk is full; it can be tried again.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(descriptor, folder)
        except BaseException:
            os.close(descriptor)
            raise
    return descriptor


def _lock(descriptor: int, folder: Path) -> None:
    for attempt in range(100):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(descriptor, 20).decode().strip()
            os.lseek(descriptor, 0, os.SEEK_SET)
            if attempt == 20 and holder.isdigit():
                with suppress(ProcessLookupError):
                    os.kill(int(holder), signal.SIGKILL)
            time.sleep(0.1)
            continue
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        return
    raise FlamesError(f"{folder} is in use by another job", "end it, or restart the site")


def _wait_for(abort_signal: Signal, seconds: float = float("inf")) -> None:
    """Stay until the job ends: leaving early would count as the job's failure."""
    until = time.monotonic() + seconds
    while not abort_signal.triggered and time.monotonic() < until:
        time.sleep(0.2)

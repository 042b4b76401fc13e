"""The engine's job at a site: it opens the site's own store and lets the station work."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import torch
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal

from flames.config import RunConfig, load_config
from flames.data.store import SiteStore
from flames.errors import FlamesError
from flames.federation.beginning import make_strategy
from flames.federation.client import Client
from flames.federation.network.channel import sender
from flames.federation.network.journal import Journal
from flames.federation.network.kits import Kit
from flames.federation.network.messages import encode
from flames.federation.network.run_book import CONFIG_FILE, read_job
from flames.federation.network.station import Station
from flames.models.precision import choose_precision


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
        try:
            self._take_part(kit, app, journal, send, abort_signal)
        except FlamesError as error:
            journal.write("trouble", error.found, remedy=error.remedy)
            send("refuse", encode({"reason": error.found}))
            _wait_for(abort_signal)
        return make_reply(ReturnCode.OK)

    @staticmethod
    def _take_part(kit: Kit, app: Path, journal: Journal, send: Any, abort_signal: Signal) -> None:
        order = read_job(app)
        config = load_config(app / CONFIG_FILE)
        folder = kit.state / order.run
        lock = _hold(folder)
        try:
            client = _client(kit, config, folder)
            journal.write("begin", f"takes part in {order.run}", run=order.run)
            why = Station(
                client,
                order.config_text,
                send,
                stopped=lambda: bool(abort_signal.triggered),
                journal=journal,
                folder=folder,
            ).run()
            journal.write("end", f"the job of {order.run} is over: {why}", run=order.run)
        finally:
            os.close(lock)


def _client(kit: Kit, config: RunConfig, folder: Path) -> Client:
    settings = json.loads(kit.settings.read_text(encoding="utf-8"))
    store = SiteStore.open(Path(settings["store"]))
    store.verify()
    if config.threads:
        torch.set_num_threads(config.threads)
    return Client(
        kit.name,
        [store],
        config=config,
        strategy=make_strategy(config),
        precision=choose_precision(config.training.precision),
        folder=folder / "client",
    )


def _hold(folder: Path) -> int:
    """Return a lock on the site's state of a run; an older job that still holds it is ended.

    Such a job hangs: the server has given it up, or it would not have begun this one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    for attempt in range(100):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(descriptor, 20).decode().strip()
            os.lseek(descriptor, 0, os.SEEK_SET)
            if attempt == 20 and holder.isdigit():
                os.kill(int(holder), signal.SIGKILL)
            time.sleep(0.1)
            continue
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        return descriptor
    os.close(descriptor)
    raise FlamesError(f"{folder} is in use by another job", "end it, or restart the site")


def _wait_for(abort_signal: Signal) -> None:
    """Stay until the job ends: leaving early would count as the job's failure."""
    while not abort_signal.triggered:
        time.sleep(0.2)

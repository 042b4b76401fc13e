"""How an engine starts its jobs: as forks of a process that has imported all they need.

A run is a chain of short jobs, and importing PyTorch for each would take longer than a short job.
The engine itself has threads and open lines and must not be forked; Python's fork server has none:
it imports, waits, and forks when it is asked to.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import shlex
import sys
import threading
import time
from multiprocessing import forkserver
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.job_launcher_spec import JobHandleSpec, JobReturnCode
from nvflare.app_common.job_launcher.process_launcher import (
    JOB_RETURN_CODE_MAPPING,
    ProcessJobLauncher,
)
from nvflare.utils.job_launcher_utils import (
    generate_client_command,
    generate_server_command,
    get_credential_env,
)

from flames.federation.network.connections import limit_frames, outlive_refusals
from flames.federation.network.limits import LIMIT, Side, limit_of

JOB_MODULES: dict[Side, str] = {
    "server": "nvflare.private.fed.app.server.runner_process",
    "client": "nvflare.private.fed.app.client.worker_process",
}
NEEDED: dict[Side, str] = {
    "server": "flames.federation.network.controller",
    "client": "flames.federation.network.executor",
}
LAST_WORDS_SECONDS = 10.0
"""How long a job that lost its engine may take to end by itself."""


class WarmLauncher(ProcessJobLauncher):
    """Starts the jobs of one engine."""

    def __init__(self, side: Side) -> None:
        """Import nothing yet.

        Args:
            side: ``server`` or ``client``.
        """
        super().__init__()
        self.side = side
        self.context = multiprocessing.get_context("forkserver")

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Warm up when the engine starts, so that the first job begins at once too."""
        if event_type == EventType.SYSTEM_START:
            self._warm_up()
        super().handle_event(event_type, fl_ctx)

    def launch_job(self, job_meta: dict[str, Any], fl_ctx: FLContext) -> JobHandleSpec:
        """Start a job and return the handle by which the engine follows it."""
        del job_meta
        words = shlex.split(self.get_command({}, fl_ctx), posix=True)
        module = JOB_MODULES[self.side]
        arguments = words[words.index(module) + 1 :]
        secrets = get_credential_env(fl_ctx.get_prop(FLContextKey.JOB_PROCESS_ARGS) or {})
        self._warm_up()
        job = self.context.Process(
            target=run_job, args=(self.side, arguments, secrets), name="job", daemon=True
        )
        job.start()
        return Handle(job)

    def get_command(self, job_meta: dict[str, Any], fl_ctx: FLContext) -> str:
        """Return the command with which the engine would start a job."""
        del job_meta
        command = generate_server_command if self.side == "server" else generate_client_command
        return str(command(fl_ctx))

    def _warm_up(self) -> None:
        self.context.set_forkserver_preload([JOB_MODULES[self.side], NEEDED[self.side]])
        forkserver.ensure_running()


class Handle(JobHandleSpec):
    """One job, as the engine follows it."""

    def __init__(self, job: ForkServerProcess) -> None:
        """Follow a started process."""
        super().__init__()
        self.job = job
        self.lock = threading.Lock()

    def terminate(self) -> None:
        """End the job at once."""
        self.job.kill()

    def poll(self) -> int:
        """Return how the job ended; `UNKNOWN` while it goes on."""
        with self.lock:  # the number can be read once
            code = self.job.exitcode
        if code is None:
            return int(JobReturnCode.UNKNOWN)
        return int(JOB_RETURN_CODE_MAPPING.get(abs(code), JobReturnCode.EXECUTION_ERROR))

    def wait(self) -> None:
        """Return when the job has ended."""
        while self.poll() == JobReturnCode.UNKNOWN:
            wait([self.job.sentinel], timeout=1.0)


def run_job(side: Side, arguments: list[str], secrets: dict[str, str]) -> None:
    """Run the engine's own job process here: in a fork, with its own arguments."""
    module = JOB_MODULES[side]
    sys.argv = [module, *arguments]
    os.environ.update(secrets)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    worker = importlib.import_module(module)
    given = worker.parse_arguments()
    folder = os.path.join(given.workspace, given.job_id)  # noqa: PTH118
    os.environ[LIMIT] = str(limit_of(side, Path(folder)))
    limit_frames()
    outlive_refusals()
    sys.exit(worker.mpm.run(main_func=worker.main, run_dir=folder, args=given))


def _end_with(parent: int) -> None:
    """End when the engine is gone; its own watch comes first and is kinder."""
    while os.getppid() == parent:
        time.sleep(0.5)
    time.sleep(LAST_WORDS_SECONDS)
    os._exit(1)

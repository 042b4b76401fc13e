from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flames.errors import FlamesError
from flames.processes import held

PARENT = """
import os, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from flames.processes import begin_worker

pool = ProcessPoolExecutor(2, mp_context=get_context("spawn"), initializer=begin_worker)
print(pool.submit(os.getpid).result(), flush=True)
pool.submit(time.sleep, 600)
pool.submit(time.sleep, 600)
time.sleep(600)
"""


def test_workers_end_with_a_killed_parent():
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        worker = int(parent.stdout.readline())
        os.kill(worker, 0)
        parent.send_signal(signal.SIGKILL)
    until = time.monotonic() + 10
    while _lives(worker):
        assert time.monotonic() < until, "a worker outlived its parent"
        time.sleep(0.05)


def _lives(process):
    stat = Path(f"/proc/{process}/stat")
    try:
        os.kill(process, 0)
        # One that has ended stays listed until somebody asks for its exit status.
        return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_a_folder_is_held_by_one_process_and_free_when_it_ends(tmp_path):
    with (
        held(tmp_path / "state"),
        pytest.raises(FlamesError, match=f"in use by process {os.getpid()}"),
        held(tmp_path / "state"),
    ):
        pass
    with held(tmp_path / "state"):
        pass

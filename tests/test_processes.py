from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flames.errors import FlamesError
from flames.processes import Workers, held

PARENT = """
import os, time
from flames.processes import Workers

pool = Workers(2)
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


def test_workers_end_at_once_when_their_parent_fails():
    began = time.monotonic()
    workers = []

    def interrupted():
        with Workers(1) as pool:
            workers.append(pool.submit(os.getpid).result())
            pool.submit(time.sleep, 600)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert time.monotonic() - began < 60
    assert not _lives(workers[0])


def test_workers_finish_what_they_were_given():
    with Workers(1, os.chdir, "/") as pool:
        done = [pool.submit(abs, -n) for n in range(3)] + [pool.submit(os.getcwd)]
    assert [future.result() for future in done] == [0, 1, 2, "/"]


def test_a_file_system_without_locks_keeps_nobody_out(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with held(tmp_path / "state"), held(tmp_path / "state"):
        assert (tmp_path / "state" / "lock").read_text() == str(os.getpid())


def test_a_folder_is_held_by_one_process_and_free_when_it_ends(tmp_path):
    with (
        held(tmp_path / "state"),
        pytest.raises(FlamesError, match=f"in use by process {os.getpid()}"),
        held(tmp_path / "state"),
    ):
        pass
    with held(tmp_path / "state"):
        pass

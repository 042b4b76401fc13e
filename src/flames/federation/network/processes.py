"""A server's or a site's process: the engine under a watch, which speaks calmly and restarts it."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from flames.errors import FlamesError
from flames.federation.network.engine_files import engine_environment, write_engine_files
from flames.federation.network.identity import check_identity
from flames.federation.network.journal import Journal
from flames.federation.network.kits import Kit

Say = Callable[[dict[str, Any]], None]
LOOK_SECONDS = 0.2
CALM_SECONDS = 60.0
"""An engine that ran this long and died is started again at once."""
GRACE_SECONDS = 8.0


def watch(kit: Kit, say: Say) -> None:
    """Run the engine of ``kit`` until the process is asked to end; start it again when it dies.

    Args:
        kit: A server's or a site's.
        say: Called with every event that is written to the kit's journal meanwhile.

    Raises:
        FlamesError: It runs already, or its identity cannot be used.
    """
    check_identity(kit)
    descriptor = _lock(kit)
    journal = Journal(kit.events)
    news = journal.follow()
    next(news)
    ending = _Ending()
    write_engine_files(kit)
    journal.write("start", f"{kit.name} of {kit.consortium} starts; its server is {kit.server}")
    engine, begun, pause = _start(kit), time.monotonic(), 1.0
    try:
        while not ending.asked:
            _tell(next(news), say)
            code = engine.poll()
            if code is not None:
                end_tree(engine)
                pause = 1.0 if time.monotonic() - begun > CALM_SECONDS else min(2 * pause, 30.0)
                journal.write("restart", f"the engine ended ({code}); again in {pause:.0f} s")
                _sleep(pause, ending)
                if ending.asked:
                    break
                engine, begun = _start(kit), time.monotonic()
            time.sleep(LOOK_SECONDS)
    finally:
        end_tree(engine)
        kit.present.unlink(missing_ok=True)
        journal.write("stop", f"{kit.name} is stopped")
        _tell(next(news), say)
        os.close(descriptor)


def is_running(kit: Kit) -> int | None:
    """Return the number of the process that runs the kit, or None."""
    try:
        descriptor = os.open(kit.lock, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        text = os.read(descriptor, 20).decode().strip()
        return int(text) if text.isdigit() else 0
    finally:
        os.close(descriptor)
    return None


@contextmanager
def stopped(kit: Kit) -> Iterator[None]:
    """Keep a server or site that is stopped from being started meanwhile.

    Raises:
        FlamesError: It runs.
    """
    descriptor = _lock(kit)
    try:
        yield
    finally:
        os.close(descriptor)


def end_tree(process: subprocess.Popen[bytes]) -> None:
    """End a process and everything that it started; kill what does not end in time."""
    import psutil

    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        try:
            process.wait(timeout=GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    # Jobs of an engine that died have no parent any more, but they are of its group.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    psutil.wait_procs(family, timeout=GRACE_SECONDS)


class _Ending:
    """Notes that somebody asked the process to end."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.asked = True


def _start(kit: Kit) -> subprocess.Popen[bytes]:
    side = "server" if kit.kind == "server" else "site"
    module = "flames.federation.network.engine_process"
    with (kit.path / "engine.out").open("ab") as out:
        return subprocess.Popen(
            [sys.executable, "-m", module, side, str(kit.path), str(os.getpid()), kit.name],
            cwd=kit.path,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=engine_environment(kit),
            start_new_session=True,
        )


def _lock(kit: Kit) -> int:
    descriptor = os.open(kit.lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise FlamesError(
            f"{kit.path} is running already", "stop that process first, with Ctrl-C or SIGTERM"
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor


def _tell(events: list[dict[str, Any]], say: Say) -> None:
    for event in events:
        say(event)


def _sleep(seconds: float, ending: _Ending) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and not ending.asked:
        time.sleep(0.1)

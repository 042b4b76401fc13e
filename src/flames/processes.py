"""What processes owe each other: a folder is one's at a time, and workers end with their parent."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import parent_process
from pathlib import Path
from threading import Thread

from flames.errors import FlamesError
from flames.files import writing


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keep other processes out of ``folder``, by a lock that ends with this one.

    Raises:
        FlamesError: Another process holds it.
        NotWritten: The disk is full or the folder cannot be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 20).decode().strip()
            raise FlamesError(
                f"{folder} is in use by process {holder or 'unknown'}",
                "wait until it has ended, or stop it; a stopped run continues with --resume",
            ) from None
        with writing(folder):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def begin_worker() -> None:
    """Let this process end when the one that started it does, and without a word at Ctrl-C.

    Else a killed command would go on in processes that nobody sees.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = parent_process()
    if parent is None:
        return

    def wait() -> None:
        parent.join()
        os._exit(1)

    Thread(target=wait, daemon=True).start()

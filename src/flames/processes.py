"""What processes owe each other: a folder is one's at a time, and workers end with their parent."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import Thread
from types import TracebackType

from flames.errors import FlamesError
from flames.files import writing

Failure = tuple[str, str]
"""What was found, and what to do: an error as it comes from another process."""
ENDED: Failure = (
    "its process ended, as when memory is full",
    "give a smaller --jobs; what was stopped continues",
)


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
                "wait until it has ended, or stop it; a stopped run continues with --resume, a "
                "study with the same command",
            ) from None
        except OSError:
            pass  # a file system without locks keeps nobody out
        with writing(folder):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _nothing() -> None:
    """Begin with nothing more."""


class Workers(ProcessPoolExecutor):
    """Processes that end with this one, and at once where it is interrupted or fails.

    They are spawned, not forked: the caller may hold threads, and every system does it alike.
    """

    def __init__(self, number: int, begin: Callable[..., None] = _nothing, *given: object) -> None:
        """Start processes as they are needed, ``number`` at most; each calls ``begin(*given)``."""
        super().__init__(
            number,
            mp_context=get_context("spawn"),
            initializer=partial(_begin_worker, begin, *given),
        )

    def kill(self) -> None:
        """End them in the middle of what they do."""
        for process in list((self._processes or {}).values()):
            process.kill()
        self.shutdown(cancel_futures=True)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait for what was submitted, but not after an error."""
        if kind is not None:
            self.kill()
        self.shutdown()


def _begin_worker(begin: Callable[..., None], *given: object) -> None:
    """Let this process end when the one that started it does, and without a word at Ctrl-C.

    Else a killed command would go on in processes that nobody sees.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if (parent := parent_process()) is not None:
        Thread(target=_end_with, args=(parent,), daemon=True).start()
    begin(*given)


def _end_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)

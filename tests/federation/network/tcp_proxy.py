"""A line between a site and its server that can be cut, slow, or lose what it carries."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress


class Proxy:
    """Forwards connections from a port of its own to ``port``, well or badly."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.delay = 0.0
        self.cut_after: int | None = None
        """Bytes after which a connection breaks in the middle of a message."""
        self.open = True
        """Whether connections are taken at all."""
        self.breaks = 0
        self.pairs: list[tuple[socket.socket, socket.socket]] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.own_port = self.listener.getsockname()[1]
        threading.Thread(target=self._listen, daemon=True).start()

    def drop(self) -> None:
        """Break every connection that is open."""
        for pair in list(self.pairs):
            self._close(pair)

    def stop(self) -> None:
        self.open = False
        self.listener.close()
        self.drop()

    def _listen(self) -> None:
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            if not self.open:
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self.port))
            except OSError:
                near.close()
                continue
            pair = (near, far)
            self.pairs.append(pair)
            for source, dest in (pair, (far, near)):
                threading.Thread(target=self._pump, args=(source, dest, pair), daemon=True).start()

    def _pump(
        self, source: socket.socket, dest: socket.socket, pair: tuple[socket.socket, socket.socket]
    ) -> None:
        carried = 0
        with suppress(OSError):
            while content := source.recv(65536):
                time.sleep(self.delay)
                carried += len(content)
                if self.cut_after is not None and carried > self.cut_after:
                    self.breaks += 1
                    dest.sendall(content[: len(content) // 2])
                    break
                dest.sendall(content)
        self._close(pair)

    def _close(self, pair: tuple[socket.socket, socket.socket]) -> None:
        for end in pair:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        with suppress(ValueError):
            self.pairs.remove(pair)

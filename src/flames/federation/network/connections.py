"""One connection a name: a second one under a name that is in use is turned away at its first word.

The engine keeps one connection for a cell's name and closes the older when a newer comes, before it
asks who that is: a copied kit would silence the original. Here the server keeps the first while
it is alive, and tells the second why; the site writes that into its journal.
"""

from __future__ import annotations

import time
from typing import Any

from nvflare.fuel.f3 import communicator
from nvflare.fuel.f3.cellnet import cell
from nvflare.fuel.f3.cellnet.fqcn import FQCN
from nvflare.fuel.f3.cellnet.identity import get_param, is_mtls_connection
from nvflare.fuel.f3.drivers import socket_conn
from nvflare.fuel.f3.drivers.driver_params import DriverParams
from nvflare.fuel.f3.sfm.conn_manager import ConnManager
from nvflare.fuel.f3.sfm.constants import HandshakeKeys, Types
from nvflare.fuel.f3.sfm.prefix import Prefix
from nvflare.fuel.f3.sfm.sfm_conn import SfmConnection

from flames.federation.network.consortium import RESERVED
from flames.federation.network.journal import Journal
from flames.federation.network.limits import ENGINE_BYTES
from flames.federation.network.porter import TELL_AGAIN_SECONDS, Knock, Porter
from flames.federation.network.said import plain

REFUSED = "flames_refused"
"""Key of the handshake's answer that says why a connection is closed."""
QUIET_SECONDS = 1.0
"""A connection that was silent this long is asked for a sign of life when its name is wanted."""


class GuardedConnections(ConnManager):
    """The server's connections; the porter says whether a second one under a name may be."""

    porter: Porter

    def process_frame_task(self, sfm_conn: SfmConnection, frame: Any) -> None:
        """Let every frame through but the first word of a connection whose name is in use."""
        if not self.stopped and Prefix.from_bytes(frame).type == Types.HELLO:
            why = self._refuses(sfm_conn, frame)
            if why is not None:
                self._close(sfm_conn, why)
                return
        super().process_frame_task(sfm_conn, frame)

    def _refuses(self, newer: SfmConnection, frame: Any) -> str | None:
        """Return why a connection is to be closed; nothing to say where it may come again."""
        data = self.get_dict_payload(Prefix.from_bytes(frame), frame)
        name = FQCN.normalize(str(data.get(HandshakeKeys.ENDPOINT_NAME, "")))
        site = FQCN.get_root(name)
        others = [kept for kept in self.get_connections(name) or () if kept is not newer]
        if site in RESERVED or not others or not self._is_of(newer, name):
            return None
        heard = max(other.last_activity for other in others)
        try:
            why = self.porter.connect(site, name, heard)
        except Knock:
            why = ""
        if why is not None:
            for other in others:
                self._ask(other)
        return why

    def _is_of(self, newer: SfmConnection, name: str) -> bool:
        """Return whether its certificate is of the name; where not, the engine closes it itself."""
        if not is_mtls_connection(newer.conn.connector.params):
            return True
        holder = get_param(newer.conn.get_conn_properties(), DriverParams.PEER_CN)
        try:
            self.identity_resolver.require_match(name, holder, f"connection {newer.get_name()}")
        except ValueError:
            return False
        return True

    def _ask(self, older: SfmConnection) -> None:
        """Ask for a sign of life; a line that takes no bytes is not waited for."""
        silent = time.time() - older.last_activity
        if silent > QUIET_SECONDS and older.get_send_stall_seconds() == 0:
            self.frame_mgr_executor.submit(older.send_heartbeat, Types.PING)

    def _close(self, newer: SfmConnection, why: str) -> None:
        if why:
            own = {HandshakeKeys.ENDPOINT_NAME: self.local_endpoint.name, REFUSED: why}
            newer.send_dict(Types.READY, 1, own)
        newer.conn.close()


class ToldConnections(ConnManager):
    """A site's connections; what the server says when it closes one is written down."""

    journal: Journal
    _told: tuple[str, float] = ("", 0.0)

    def update_endpoint(self, sfm_conn: SfmConnection, data: dict[str, Any]) -> None:
        """Take an answer to a first word, or tell why there is none."""
        why = data.get(REFUSED)
        if why is None:
            super().update_endpoint(sfm_conn, data)
            return
        text = plain(why, 500)
        before, when = self._told
        if text != before or time.monotonic() - when >= TELL_AGAIN_SECONDS:
            self._told = (text, time.monotonic())
            self.journal.write("refused", f"the server does not take this site in: {text}")


def guard_connections(porter: Porter) -> None:
    """Let the server of this process keep the first connection of a name, before it starts."""

    class Connections(GuardedConnections):
        """The connections with this kit's porter."""

    Connections.porter = porter
    communicator.ConnManager = Connections
    limit_frames()


def hear_refusals(journal: Journal) -> None:
    """Let the site of this process write down why the server closes a connection."""

    class Connections(ToldConnections):
        """The connections with this kit's journal."""

    Connections.journal = journal
    communicator.ConnManager = Connections
    limit_frames()


def limit_frames() -> None:
    """Let the lines of this process take no frame of more bytes than one can have.

    The engine reserves what the first 16 bytes of a frame say it has, up to 2 GB, before it knows
    who is at the other end of a line.
    """
    socket_conn.MAX_FRAME_SIZE = ENGINE_BYTES


def outlive_refusals() -> None:
    """Let the server's job in this process go on when a site refuses what it is sent as too large.

    The engine would end the job's process, so a site could end every run that it takes part in. The
    site hears nothing then, and asks again.
    """
    cell._is_server_job_cell = lambda _: False

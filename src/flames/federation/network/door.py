"""The porter built into the engine's server: registrations, messages, people's commands, TLS."""

from __future__ import annotations

from typing import Any

from nvflare.fuel.f3.cellnet.defs import IdentityChallengeKey, MessageHeaderKey, ReturnCode
from nvflare.fuel.f3.cellnet.utils import make_reply
from nvflare.fuel.f3.drivers import tcp_driver
from nvflare.fuel.hci.conn import Connection
from nvflare.fuel.hci.proto import InternalCommands
from nvflare.fuel.hci.server.constants import ConnProps
from nvflare.fuel.hci.server.reg import CommandFilter
from nvflare.private.defs import (
    CellChannel,
    CellChannelTopic,
    CellMessageHeaderKeys,
    ClientType,
)
from nvflare.private.fed.app.deployer import server_deployer
from nvflare.private.fed.server.fed_server import FederatedServer

from flames.federation.network.connections import guard_connections
from flames.federation.network.kits import Kit
from flames.federation.network.porter import Kind, Knock, Porter, Refusal

HANDSHAKE_SECONDS = 20.0
KINDS: dict[str, Kind] = {ClientType.REGULAR: "site", ClientType.ADMIN: "person"}
NO_TOKEN_YET = {CellMessageHeaderKeys.TOKEN: ""}
"""The engine's client asks again after two seconds."""
FIRST_WORDS = (CellChannelTopic.Register, CellChannelTopic.Challenge)


def hang_door(kit: Kit) -> None:
    """Let the engine of this process build its server with a porter, before it starts.

    The engine has no place to put a check of certificates that its authority signed, so its own
    server class is replaced by one that asks first.
    """
    porter = Porter(kit)

    class Server(GuardedServer):
        """The engine's server with this kit's porter."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.porter = porter
            super().__init__(*args, **kwargs)

    class Listener(GuardedListener):
        """The engine's listener with this kit's porter."""

    Listener.porter = porter
    server_deployer.FederatedServer = Server
    tcp_driver.TcpStreamServer = Listener
    guard_connections(porter)


class GuardedServer(FederatedServer):
    """The engine's server; the porter sees every registration and every message first."""

    porter: Porter

    def register_client(self, request: Any) -> Any:
        """Take a registration in that the porter lets through; the engine proves the rest."""
        name = str(request.get_header(CellMessageHeaderKeys.CLIENT_NAME))
        origin = str(request.get_header(MessageHeaderKey.ORIGIN))
        kind = KINDS.get(request.get_header(CellMessageHeaderKeys.CLIENT_TYPE))
        payload = request.payload if isinstance(request.payload, dict) else {}
        certificate = payload.get(IdentityChallengeKey.CERT)
        if kind is None:
            why: str | None = self.porter.refuse(name, Refusal("unknown", f"{name} is of no kind"))
        else:
            try:
                why = self.porter.register(kind, name, origin, certificate)
            except Knock:
                return make_reply(ReturnCode.OK, "", NO_TOKEN_YET)
        if why is not None:
            return make_reply(ReturnCode.UNAUTHENTICATED, why)
        reply = super().register_client(request)
        answer = reply.payload if isinstance(reply.payload, dict) else {}
        token = answer.get(CellMessageHeaderKeys.TOKEN)
        if token:
            self.porter.admit(name, origin, certificate, str(token))
        elif reply.get_header(MessageHeaderKey.RETURN_CODE) != ReturnCode.COMM_ERROR:
            unproven = Refusal("unproven", f"{name} did not prove that it holds its key")
            self.porter.refuse(name, unproven, origin=origin)
            return make_reply(ReturnCode.UNAUTHENTICATED, unproven.text)
        return reply

    def logout_client(self, token: str) -> Any:
        """Let a site go."""
        client = super().logout_client(token)
        if client is not None:
            self.porter.left(str(client.name))
        return client

    def put_out(self) -> None:
        """Let go of every connected site that the record shuts out."""
        for token in list(self.client_manager.get_clients()):
            if self.porter.shut_out(token) is not None:
                self.logout_client(token)

    def _validate_auth_headers(self, message: Any) -> Any:
        refusal = super()._validate_auth_headers(message) or self._ask_porter(message)
        if refusal:
            self._answer(message, refusal)
        return refusal

    def _answer(self, message: Any, refusal: Any) -> None:
        """Tell a site whose sign of life is refused; the engine drops what a filter refuses."""
        about = {
            key: message.get_header(key)
            for key in (MessageHeaderKey.CHANNEL, MessageHeaderKey.TOPIC)
        }
        request = message.get_header(MessageHeaderKey.REQ_ID)
        if about[MessageHeaderKey.TOPIC] != CellChannelTopic.HEART_BEAT or not request:
            return
        why = refusal.get_header(MessageHeaderKey.ERROR) or "its identity is not good any more"
        answer = make_reply(ReturnCode.UNAUTHENTICATED, str(why))
        answer.add_headers(about)
        origin = str(message.get_header(MessageHeaderKey.ORIGIN))
        self.cell.core_cell.send_reply(answer, origin, [request], optional=True)

    def _ask_porter(self, message: Any) -> Any:
        channel = message.get_header(MessageHeaderKey.CHANNEL)
        topic = message.get_header(MessageHeaderKey.TOPIC)
        name = message.get_header(CellMessageHeaderKeys.CLIENT_NAME)
        if name is None or (channel == CellChannel.SERVER_MAIN and topic in FIRST_WORDS):
            return None
        token = str(message.get_header(CellMessageHeaderKeys.TOKEN))
        why = self.porter.message(
            str(name), str(message.get_header(MessageHeaderKey.ORIGIN)), token
        )
        return None if why is None else make_reply(ReturnCode.UNAUTHENTICATED, why)


class OwnName(CommandFilter):
    """People act under the name by which they came in at the porter."""

    def __init__(self, porter: Porter) -> None:
        """Write refusals where the porter does."""
        self.porter = porter

    def pre_command(self, conn: Connection, args: list[str]) -> bool:
        """Return whether a command, or a login, is of the person who registered."""
        request = conn.get_prop(ConnProps.REQUEST)
        login = args[0] == InternalCommands.CERT_LOGIN
        acts_as = " ".join(args[1:]) if login else str(conn.get_prop(ConnProps.USER_NAME))
        # An upload comes without its messages; the session it names is what is known of it.
        came_as = acts_as
        if request is not None:
            came_as = str(request.get_header(CellMessageHeaderKeys.CLIENT_NAME))
        if acts_as != came_as:
            text = f"{came_as} wants to act as {acts_as[:100]}"
            why = self.porter.refuse(came_as, Refusal("foreign", text))
        else:
            why = self.porter.person(acts_as)
        if why is not None:
            conn.append_error(why)
        return why is None


class GuardedListener(tcp_driver.TcpStreamServer):
    """The engine's listener; what TLS turns away is told, and one slow greeting stops nobody."""

    porter: Porter

    def get_request(self) -> Any:
        """Accept a connection; its TLS handshake follows in a thread of its own."""
        if self.ssl_context:
            self.socket.do_handshake_on_connect = False
        return super().get_request()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Shake hands, then serve; tell whom TLS turned away."""
        if self.ssl_context:
            try:
                request.settimeout(HANDSHAKE_SECONDS)
                request.do_handshake()
                request.settimeout(None)
            except OSError as error:
                self._tell(str(client_address[0]), error)
                return
        super().finish_request(request, client_address)

    def _tell(self, address: str, error: OSError) -> None:
        cause = getattr(error, "verify_message", "") or getattr(error, "reason", "") or str(error)
        refusal = Refusal("tls", f"TLS turned away a connection from {address}: {cause}")
        self.porter.refuse(address, refusal)

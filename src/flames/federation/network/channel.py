"""The engine's cells as a way for bytes: from a site's job to the server's job, and an answer.

The engine checks at the server that a message's origin is the site whose token it carries, and that
the token was given to somebody who proved to hold the site's key. So the origin tells who speaks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nvflare.fuel.f3.cellnet.defs import MessageHeaderKey, ReturnCode
from nvflare.fuel.f3.cellnet.fqcn import FQCN
from nvflare.fuel.f3.cellnet.utils import make_reply, new_cell_message

CHANNEL = "flames"
SECONDS = 30.0
"""Without any progress, before a message counts as lost; a reply that broke off costs it twice."""
BYTES_A_SECOND = 1e6
"""At which the receiver at least reads a message."""
BUFFERS = (bytes, bytearray, memoryview)


def listen(cell: Any, job_id: str, handle: Callable[[str, str, bytes], bytes]) -> None:
    """Let ``handle(site, topic, message)`` answer every message of this job's sites."""

    def answer(request: Any) -> Any:
        origin = FQCN.split(str(request.get_header(MessageHeaderKey.ORIGIN)))
        topic = str(request.get_header(MessageHeaderKey.TOPIC))
        if len(origin) != 2 or origin[1] != job_id or not isinstance(request.payload, BUFFERS):
            return make_reply(ReturnCode.INVALID_REQUEST, "not of this job", None)
        return make_reply(ReturnCode.OK, "", handle(origin[0], topic, bytes(request.payload)))

    cell.register_request_cb(channel=CHANNEL, topic="*", cb=answer)


def sender(cell: Any, job_id: str, abort_signal: Any) -> Callable[[str, bytes], bytes | None]:
    """Return a function that sends one message to the server's job, and returns its answer."""
    target = FQCN.join([FQCN.ROOT_SERVER, job_id])

    def send(topic: str, message: bytes) -> bytes | None:
        reply = cell.send_request(
            channel=CHANNEL,
            target=target,
            topic=topic,
            request=new_cell_message({}, message),
            timeout=SECONDS + len(message) / BYTES_A_SECOND,
            optional=True,
            abort_signal=abort_signal,
        )
        if reply.get_header(MessageHeaderKey.RETURN_CODE) != ReturnCode.OK:
            return None
        return bytes(reply.payload) if isinstance(reply.payload, BUFFERS) else None

    return send

"""What only the engine hears and a person at a site should know, told in the site's journal."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_component import FLComponent
from nvflare.apis.fl_context import FLContext
from nvflare.fuel.f3.cellnet.defs import MessageHeaderKey, ReturnCode
from nvflare.private.defs import CellChannel, CellChannelTopic

from flames.federation.network.journal import Journal
from flames.federation.network.said import plain

REJECTED = "registration rejected: "


class JournalHandler(logging.Handler):
    """Picks the server's refusals out of the engine's log."""

    def __init__(self, path: str) -> None:
        """Write into the journal at ``path``."""
        super().__init__(logging.ERROR)
        self.journal = Journal(Path(path))

    def emit(self, record: logging.LogRecord) -> None:
        """Tell why the server does not take this site in."""
        text = record.getMessage()
        if REJECTED in text:
            why = plain(text.partition(REJECTED)[2], 500)
            self.journal.write("refused", f"the server does not take this site in: {why}")


class Exit(FLComponent):
    """Ends a site's engine that the server shut out; it would give signs of life for ever.

    It is started again and registers anew: then it is taken in, or told why not.
    """

    def __init__(self, path: str, leave: Callable[[int], object] = os._exit) -> None:
        """Listen to nothing yet.

        Args:
            path: Of the kit's journal.
            leave: Ends this process.
        """
        super().__init__()
        self.journal = Journal(Path(path))
        self.leave = leave

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Listen to the answers to signs of life."""
        if event_type == EventType.SYSTEM_START:
            cell = fl_ctx.get_engine().get_cell()
            cell.core_cell.add_incoming_reply_filter(
                CellChannel.SERVER_MAIN, CellChannelTopic.HEART_BEAT, self.hear
            )

    def hear(self, answer: Any) -> None:
        """Tell why the server refuses a sign of life, and leave."""
        if answer.get_header(MessageHeaderKey.RETURN_CODE) != ReturnCode.UNAUTHENTICATED:
            return
        why = plain(answer.get_header(MessageHeaderKey.ERROR), 500)
        self.journal.write("refused", f"the server shut this site out: {why}")
        self.leave(1)

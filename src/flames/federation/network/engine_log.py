"""What the engine only logs and a person at a site should know, told in the site's journal."""

from __future__ import annotations

import logging
from pathlib import Path

from flames.federation.network.journal import Journal

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
            why = text.partition(REJECTED)[2]
            self.journal.write("refused", f"the server does not take this site in: {why}")

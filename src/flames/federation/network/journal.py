"""What happened, one JSON object a line: for people, for machines, and for whoever looks later."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Journal:
    """An append-only file of events; several processes may write to it."""

    path: Path

    def write(self, event: str, text: str, **facts: Any) -> None:
        """Append one event: a word for machines, a sentence for people, and facts.

        A full disk must not end a run because it cannot be told: the line is then left out.
        """
        record = {"time": now(), "event": event, "text": text, **facts}
        line = json.dumps(record, ensure_ascii=False, default=str) + "\n"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                os.write(descriptor, line.encode())
            finally:
                os.close(descriptor)
        except OSError:
            return

    def read(self, since: int = 0) -> list[dict[str, Any]]:
        """Return the events after the first ``since``; a line cut by a crash is left out."""
        if not self.path.exists():
            return []
        events = []
        for line in self.path.read_bytes().splitlines()[since:]:
            try:
                events.append(json.loads(line))
            except json.JSONDecodeError:
                events.append({"time": "", "event": "damaged", "text": "a damaged line"})
        return events


def now() -> str:
    """Return the time as text, in UTC and to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")

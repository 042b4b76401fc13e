"""What happened, one JSON object a line: for people, for machines, and for whoever looks later."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
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
                os.write(descriptor, line.encode(errors="replace"))
            finally:
                os.close(descriptor)
        except OSError:
            return

    def read(self, since: int = 0) -> list[dict[str, Any]]:
        """Return the events after the first ``since``; a line cut by a crash is left out."""
        return self._events(0)[0][since:]

    def follow(self) -> Iterator[list[dict[str, Any]]]:
        """Return an endless iterator of what was added since the step before, from now on.

        Each step reads only what is new; a line that is still being written comes with a later one.
        """
        place = self.path.stat().st_size if self.path.exists() else 0
        while True:
            events, place = self._events(place, whole=True)
            yield events

    def _events(self, place: int, *, whole: bool = False) -> tuple[list[dict[str, Any]], int]:
        """Return events after byte ``place``, and where the next ones begin."""
        if not self.path.exists():
            return [], 0
        with self.path.open("rb") as file:
            file.seek(place)
            content = file.read()
        if whole:
            content = content[: content.rfind(b"\n") + 1]
        events = []
        for line in content.splitlines():
            try:
                events.append(json.loads(line))
            except json.JSONDecodeError:
                events.append({"time": "", "event": "damaged", "text": "a damaged line"})
        return events, place + len(content)


def now() -> str:
    """Return the time as text, in UTC and to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")

"""Where a server keeps its rounds: the last two finished ones, and the one that is open."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from flames.array_files import LazyArrays, load_arrays
from flames.errors import FlamesError
from flames.federation.exchange import Reply
from flames.federation.parcels import Held, read_held
from flames.federation.whole_rounds import (
    finish_round,
    round_place,
    rounds_in,
    set_damaged_aside,
)
from flames.metrics.presence import PresenceRule


class RoundFolders:
    """The rounds of one run under one folder; a finished one is renamed into place."""

    def __init__(self, folder: Path) -> None:
        """Continue from the last finished round in ``folder`` that can be read.

        Raises:
            FlamesError: None can, and there are more than the first.
        """
        self.folder = folder
        newest = max(rounds_in(folder), default=0)
        self.damaged = set_damaged_aside(folder)
        """What a person should hear of rounds that could not be read."""
        self.finished = max(rounds_in(folder), default=0)
        if newest > 1 and not self.finished:
            raise FlamesError(
                f"no round in {folder} can be read",
                "put a copy of it back, or name a new --out",
            )

    @property
    def last(self) -> Path:
        """Return the folder of the last finished round; it is missing before the first."""
        return self._of(self.finished)

    @property
    def open(self) -> Path:
        """Return the folder of the open round."""
        return self.folder / f".round-{self.finished + 1:04d}.partial"

    def close(self) -> None:
        """Make the open round the last finished one, in one step.

        The one before stays, in case that the disk loses the last; older ones go.
        """
        finish_round(self.open, self._of(self.finished + 1))
        for old in rounds_in(self.folder):
            if old < self.finished:
                shutil.rmtree(self._of(old), ignore_errors=True)
        self.finished += 1

    def sent(self, client: str) -> Path:
        """Return where what travels to a client in the open round is kept."""
        return self.open / "sent" / client

    def update(self, client: str) -> Path:
        """Return the file of a client's update of the open round."""
        return self.open / "updates" / f"{client}.safetensors"

    def moments(self, client: str, *, opened: bool = True) -> Path:
        """Return the file of the moments that a client sent in the open round, or the last one."""
        return (self.open if opened else self.last) / "moments" / f"{client}.safetensors"

    def held(self, client: str) -> Held | None:
        """Return a client's update of the last finished round, or the one carried since."""
        places = [self.last / place / f"{client}.safetensors" for place in ("updates", "away")]
        return next((held for place in places if (held := read_held(place))), None)

    def answers(self) -> dict[str, Reply]:
        """Return the replies of the last finished round, by client."""
        return self._replies("replies")

    def away(self) -> dict[str, Reply]:
        """Return the last replies of clients that did not answer in the last finished round."""
        return self._replies("away")

    def records(self) -> list[dict[str, Any]]:
        """Return the records of all finished rounds."""
        path = self.last / "records.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []

    def best_model(self, group: str) -> LazyArrays | None:
        """Return the group's model that validation preferred so far; None before the first."""
        place = self.last / "best" / f"{group}.safetensors"
        return LazyArrays(place) if place.exists() else None

    def best_models(self) -> dict[str, dict[str, np.ndarray]]:
        """Return the server's models by group, each from the round that validation preferred."""
        places = sorted((self.last / "best").glob("*.safetensors"))
        return {path.stem: load_arrays(path) for path in places}

    def presence_rules(self) -> dict[str, PresenceRule]:
        """Return the presence rule of each of `best_models`, chosen on validation cases."""
        return {
            path.stem: TypeAdapter(PresenceRule).validate_json(path.read_bytes())
            for path in sorted((self.last / "best").glob("*.json"))
        }

    def open_update(self, client: str) -> LazyArrays:
        """Return the weights that a client sent in the open round."""
        return LazyArrays(self.update(client))

    def _replies(self, name: str) -> dict[str, Reply]:
        path = self.last / f"{name}.json"
        if not path.exists():
            return {}
        content = json.loads(path.read_text(encoding="utf-8"))
        return {client: Reply(**reply) for client, reply in content.items()}

    def _of(self, server_round: int) -> Path:
        return round_place(self.folder, server_round)

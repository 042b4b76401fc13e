"""Where a client keeps its rounds: one subfolder each, renamed into place when it is complete."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flames.array_files import LazyArrays, load_arrays
from flames.federation.leaving import PARCEL, SENT, digests, unwrap
from flames.federation.summary import kept_rule
from flames.federation.whole_rounds import round_place, rounds_in, set_damaged_aside
from flames.metrics.presence import PresenceRule
from flames.strategies.rules import with_controls
from flames.wire.coding import Coded

Arrays = Mapping[str, np.ndarray]
MOMENTS = "moments.safetensors"
"""Of a round whose moments were asked for, as they leave with its weights."""


class ClientRounds:
    """The complete rounds of one client under one folder."""

    def __init__(self, folder: Path, private: Callable[[Arrays], frozenset[str]]) -> None:
        """Set aside what cannot be read; ``private`` says which arrays never leave the site."""
        self.folder = folder
        self.damaged = set_damaged_aside(folder)
        """What a person should hear of rounds that could not be read."""
        self._private = private

    def of(self, server_round: int) -> Path:
        """Return the folder of a round."""
        return round_place(self.folder, server_round)

    def before(self, server_round: int) -> int:
        """Return the last complete round before ``server_round``; it may have missed some."""
        return max((known for known in self._complete() if known < server_round), default=0)

    def forget(self, before: int, held: int) -> None:
        """Delete rounds older than ``before``, but not the one of which the server has numbers."""
        for old in self._complete():
            if old < before and old != held:
                shutil.rmtree(self.of(old), ignore_errors=True)

    def take_back(self, server_round: int) -> None:
        """Forget a round: one that the server set aside, or that is to be done otherwise.

        It is renamed first, so that no half of it counts where deleting it is cut short.
        """
        aside = self.folder / f".{self.of(server_round).name}.partial"
        shutil.rmtree(aside, ignore_errors=True)
        self.of(server_round).rename(aside)
        shutil.rmtree(aside, ignore_errors=True)

    def reply(self, place: Path) -> dict[str, Any]:
        """Return what was said of the round in a folder."""
        return dict(json.loads((place / "reply.json").read_text(encoding="utf-8")))

    def holds(self) -> dict[str, str]:
        """Return digests of the updates still here, by round, from which differences count.

        They are empty where weights travel as they are, which also tells that nothing was lost.
        """
        places = {number: self.of(number) for number in self._complete()}
        return dict.fromkeys(map(str, places), "") | digests(places)

    def held(self, server_round: int) -> Arrays | None:
        """Return what left in the update of a round, as the server reads it; None for round 0."""
        return LazyArrays(self.of(server_round) / SENT) if server_round else None

    def outgoing(self, server_round: int) -> tuple[Coded, str]:
        """Return the update of a finished round as it travels, and the digest of what its
        differences count from."""
        place = self.of(server_round)
        if (place / PARCEL).exists():
            return unwrap(place)
        arrays, moments = dict(self.sent(place)), place / MOMENTS
        beside = load_arrays(moments) if moments.exists() else {}
        return Coded("p" * len(arrays), arrays, moments=beside), ""

    def sent(self, place: Path) -> Arrays:
        """Return what leaves the site after a round: weights but for private ones, controls."""
        if (place / SENT).exists():
            return load_arrays(place / SENT)
        weights = load_arrays(place / "weights.safetensors")
        private = self._private(weights)
        shared = {name: array for name, array in weights.items() if name not in private}
        controls = place / "controls.safetensors"
        return with_controls(shared, load_arrays(controls)) if controls.exists() else shared

    @property
    def lost(self) -> bool:
        """Whether no finished round is here, so that nothing is kept."""
        return not self._complete()

    def kept_weights(self) -> Arrays:
        """Return the personal weights that the client keeps after its last round."""
        return load_arrays(self._last / "kept.safetensors")

    def kept_rule(self) -> PresenceRule:
        """Return the presence rule that suits those weights."""
        return kept_rule(self.reply(self._last)["curves"].get("kept"))

    @property
    def _last(self) -> Path:
        return self.of(max(self._complete()))

    def _complete(self) -> list[int]:
        return rounds_in(self.folder)

"""What a finished round says of who is alike: movements, tastes, and whom a circle invites."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flames.federation.exchange import Reply
from flames.federation.guests import new_guests
from flames.federation.likeness import Likeness
from flames.strategies import Update, cosines
from flames.strategies.affinity import misfits

Arrays = Mapping[str, np.ndarray]
Score = tuple[str, Mapping[str, float]]


@dataclass(frozen=True)
class Movements:
    """The updates of a round whose movements can be compared."""

    networks: Mapping[str, int]
    """Which network each client of the round trained, alike for alike ones."""
    handed: Collection[str]
    """Modalities in which models were handed on: from different starts movements tell nothing."""
    begun: Callable[[str], Arrays | None]
    """What a client began the round with; None where nobody knows."""

    def seen_by(self, known: Likeness, updates: Mapping[str, Update]) -> Likeness:
        """Return what is known after ``updates``; networks are not held against each other."""
        handing = [n for n, u in updates.items() if u.modality in self.handed]
        begun: dict[str, Arrays] = {}
        kinds: dict[int, dict[str, Update]] = {}
        for name, update in updates.items():
            if name not in handing and (found := self.begun(name)) is not None:
                begun[name] = found
                kinds.setdefault(self.networks[name], {})[name] = update
        beside = [[n for n in handing if self.networks[n] == network] for network in kinds]
        return known.after(*(cosines(kind, begun) for kind in kinds.values()), beside=beside)


@dataclass(frozen=True)
class Scores:
    """What clients measured on validation cases, from the first round to the open one."""

    records: Sequence[Mapping[str, Any]]
    """Of all finished rounds."""
    received: Mapping[str, Reply]
    """Replies of the open round."""

    def of(self, clients: Collection[str]) -> Scores:
        """Return the same with the replies of these clients alone."""
        return Scores(self.records, {name: self.received[name] for name in clients})

    def strangers(self) -> set[str]:
        """Return whom the mean of their peers does not suit. See `misfits`."""
        return misfits(self._all())

    def guests(self, known: Likeness, group: str, circle: list[str]) -> dict[str, list[str]]:
        """Return who of a group begins the next round with its circle's model, and who that is.

        Args:
            known: Who is alike, and who is or was a guest.
            group: Whose model it is; all replies are of its clients.
            circle: Who the model is of that clients received.
        """
        fit = new_guests(self.records, group, circle, self.received)
        return dict.fromkeys(sorted(fit - {*known.guests, *known.back}), circle)

    def _all(self) -> Iterator[Score]:
        yield from ((r["site"], r["validation"]) for r in self.records if r["kind"] == "site")
        yield from ((name, reply.validation) for name, reply in self.received.items())

"""Whom each client should learn from, as the rounds show it.

The first steps from random weights lead every client where any segmentation goes, so the first
round's verdict is provisional and the second round's replaces it. From then on friends stay
friends: clients that begin from the same mean pull it their own ways, and their movements would say
that they are strangers. Strangers go their own ways, so theirs can still show that they are alike.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from flames.files import save_json
from flames.strategies.affinity import Pairs, affinities

AFFINITY, SEEN, GUESTS = "affinity.json", "likeness.json", "guests.json"


@dataclass(frozen=True)
class Likeness:
    """What the finished rounds say of every pair of clients of one modality."""

    affinity: dict[str, dict[str, float]] = field(default_factory=dict)
    """How much each client should weigh each peer, 0 to 1."""
    seen: dict[str, dict[str, tuple[float, int]]] = field(default_factory=dict)
    """Sum and number of the cosines of their movements, from the second round on."""
    guests: dict[str, list[str]] = field(default_factory=dict)
    """Clients that begin the next round with the model of a circle, and who that is."""
    back: tuple[str, ...] = ()
    """Clients that were guests once, and that no taste makes strangers any more."""

    @classmethod
    def read(cls, folder: Path) -> Likeness:
        """Return what a round's folder holds; nothing before the first round."""
        affinity, seen, guests = (
            json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            for path in (folder / AFFINITY, folder / SEEN, folder / GUESTS)
        )  # runs of earlier versions lack the last two
        return cls(affinity, seen, guests.get("guests", {}), tuple(guests.get("back", ())))

    def save(self, folder: Path) -> None:
        """Write it into a round's folder."""
        save_json(folder / AFFINITY, self.affinity)
        save_json(folder / SEEN, self.seen)
        if self.guests or self.back:
            save_json(folder / GUESTS, {"guests": self.guests, "back": list(self.back)})

    @property
    def complete(self) -> bool:
        """Return whether no further round can change it: no two clients are strangers."""
        met = all(
            peer in self.seen.get(c, {}) for c, peers in self.affinity.items() for peer in peers
        )
        return met and all(w > 0 for peers in self.affinity.values() for w in peers.values())

    def without(self, clients: Collection[str]) -> Likeness:
        """Return the same with these clients strangers to everybody.

        >>> Likeness({"a": {"b": 1.0}, "b": {"a": 1.0}}).without(["b"]).affinity
        {'a': {'b': 0.0}, 'b': {'a': 0.0}}
        """
        affinity = {
            client: {
                peer: 0.0 if client in clients or peer in clients else weight
                for peer, weight in peers.items()
            }
            for client, peers in self.affinity.items()
        }
        return replace(self, affinity=affinity)

    def inviting(self, guests: Mapping[str, Sequence[str]]) -> Likeness:
        """Return the same with these guests of circles besides those who were invited before."""
        new = {guest: list(circle) for guest, circle in guests.items()}
        return replace(self, guests=self.guests | new)

    def welcoming(self, clients: Collection[str]) -> Likeness:
        """Return the same with guests among these clients friends of whom they were guests of.

        >>> alone = Likeness({"a": {"b": 0.0}, "b": {"a": 0.0}}).inviting({"b": ["a"]})
        >>> known = alone.welcoming(["a", "b"])
        >>> known.affinity, known.guests, known.back
        ({'a': {'b': 1.0}, 'b': {'a': 1.0}}, {}, ('b',))
        """
        came = {guest: circle for guest, circle in self.guests.items() if guest in clients}
        affinity = {client: dict(peers) for client, peers in self.affinity.items()}
        for guest, circle in came.items():
            for friend in circle:
                affinity.setdefault(guest, {})[friend] = 1.0
                affinity.setdefault(friend, {})[guest] = 1.0
        left = {guest: circle for guest, circle in self.guests.items() if guest not in came}
        back = tuple(sorted({*self.back, *came}))
        return replace(self, affinity=affinity, guests=left, back=back)

    def after(self, *kinds: Pairs, beside: Sequence[Collection[str]] = ()) -> Likeness:
        """Return what is known after one more round.

        Who was not there in the first round is nobody's stranger and is not judged.

        Args:
            kinds: Cosines of the movements in that round, by client and peer, symmetric; one for
                each network, whose movements are not held against another's.
            beside: For each of them the clients with that network who are not asked in this round,
                and whose likeness of before is still the measure of the others'.

        >>> first = Likeness().after({"a": {"b": 0.5, "c": 0.5}, "b": {"a": 0.5, "c": 0.0}})
        >>> first.affinity["a"]
        {'b': 1.0, 'c': 1.0}
        >>> second = first.after({"a": {"b": 0.5, "c": 0.0}, "b": {"a": 0.5, "c": 0.0}})
        >>> second.affinity["a"]  # c was no friend after all
        {'b': 1.0, 'c': 0.0}
        >>> third = second.after({"a": {"b": 0.0, "c": 0.25}, "b": {"a": 0.0, "c": 0.0}})
        >>> third.affinity["a"]  # means of two rounds: b 0.25, c 0.125
        {'b': 1.0, 'c': 0.5}
        """
        if not self.affinity:
            first = {c: peers for kind in kinds for c, peers in affinities(kind).items()}
            return replace(self, affinity=first)
        affinity = {client: dict(peers) for client, peers in self.affinity.items()}
        seen = {client: dict(peers) for client, peers in self.seen.items()}
        for number, kind in enumerate(kinds):
            others = beside[number] if number < len(beside) else ()
            means: dict[str, dict[str, float]] = {}
            for client, peer, cosine in self._known(kind):
                total, rounds = seen.setdefault(client, {}).get(peer, (0.0, 0))
                seen[client][peer] = (total + cosine, rounds + 1)
                means.setdefault(client, {})[peer] = (total + cosine) / (rounds + 1)
            before = [total / n for c in others for total, n in seen.get(c, {}).values()]
            for client, peer, weight in self._known(affinities(means, max(before, default=0.0))):
                if seen[client][peer][1] == 1 or affinity[client][peer] == 0:
                    affinity[client][peer] = weight
        return replace(self, affinity=affinity, seen=seen)

    def _known(self, pairs: Pairs) -> list[tuple[str, str, float]]:
        """Return the numbers of pairs that were there in the first round."""
        return [
            (client, peer, number)
            for client, peers in pairs.items()
            for peer, number in peers.items()
            if peer in self.affinity.get(client, {})
        ]

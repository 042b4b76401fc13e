"""Whom each client should learn from, as the rounds show it.

The first steps from random weights lead every client where any segmentation goes, so the first
round's verdict is provisional and the second round's replaces it. From then on friends stay
friends: clients that begin from the same mean pull it their own ways, and their movements would say
that they are strangers. Strangers go their own ways, so theirs can still show that they are alike.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from flames.files import save_json
from flames.strategies.affinity import Pairs, affinities

AFFINITY, SEEN = "affinity.json", "likeness.json"


@dataclass(frozen=True)
class Likeness:
    """What the finished rounds say of every pair of clients of one modality."""

    affinity: dict[str, dict[str, float]] = field(default_factory=dict)
    """How much each client should weigh each peer, 0 to 1."""
    seen: dict[str, dict[str, tuple[float, int]]] = field(default_factory=dict)
    """Sum and number of the cosines of their movements, from the second round on."""

    @classmethod
    def read(cls, folder: Path) -> Likeness:
        """Return what a round's folder holds; nothing before the first round."""
        files = [folder / AFFINITY, folder / SEEN]  # runs of earlier versions lack the second
        found = [json.loads(p.read_text(encoding="utf-8")) if p.exists() else {} for p in files]
        return cls(*found)

    def save(self, folder: Path) -> None:
        """Write it into a round's folder."""
        save_json(folder / AFFINITY, self.affinity)
        save_json(folder / SEEN, self.seen)

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
        return Likeness(affinity, self.seen)

    def after(self, *kinds: Pairs) -> Likeness:
        """Return what is known after one more round.

        Who was not there in the first round is nobody's stranger and is not judged.

        Args:
            kinds: Cosines of the movements in that round, by client and peer, symmetric; one for
                each network, whose movements are not held against another's.

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
            return Likeness({c: peers for kind in kinds for c, peers in affinities(kind).items()})
        affinity = {client: dict(peers) for client, peers in self.affinity.items()}
        seen = {client: dict(peers) for client, peers in self.seen.items()}
        for kind in kinds:
            means: dict[str, dict[str, float]] = {}
            for client, peer, cosine in self._known(kind):
                total, rounds = seen.setdefault(client, {}).get(peer, (0.0, 0))
                seen[client][peer] = (total + cosine, rounds + 1)
                means.setdefault(client, {})[peer] = (total + cosine) / (rounds + 1)
            for client, peer, weight in self._known(affinities(means)):
                if seen[client][peer][1] == 1 or affinity[client][peer] == 0:
                    affinity[client][peer] = weight
        return Likeness(affinity, seen)

    def _known(self, pairs: Pairs) -> list[tuple[str, str, float]]:
        """Return the numbers of pairs that were there in the first round."""
        return [
            (client, peer, number)
            for client, peers in pairs.items()
            for peer, number in peers.items()
            if peer in self.affinity.get(client, {})
        ]

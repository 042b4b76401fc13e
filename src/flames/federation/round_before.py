"""What a server knows from its last finished round, and makes of it for whoever was not there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from flames.array_files import load_arrays
from flames.federation.exchange import Reply
from flames.federation.likeness import Likeness
from flames.federation.round_folders import RoundFolders
from flames.federation.round_updates import known_updates, last_update
from flames.strategies import Download, Strategy, Update, Updates

Arrays = Mapping[str, np.ndarray]
MEMORY = "memory.safetensors"


class RoundBefore:
    """The last finished round on disk: its updates, who is alike, the strategy's memory."""

    def __init__(self, folders: RoundFolders, strategy: Strategy) -> None:
        """Look at whichever round is the last finished one when asked."""
        self.folders = folders
        self.strategy = strategy
        self._updates: tuple[int, dict[str, Update]] | None = None

    def updates(self) -> dict[str, Update]:
        """Return its updates, and the last ones of groups that were away."""
        finished = self.folders.finished
        if self._updates is None or self._updates[0] != finished:
            likes = self.likeness().affinity
            found = known_updates(self.folders, self.strategy.group_of, likes)
            self._updates = (finished, found)
        return dict(self._updates[1])

    def likeness(self) -> Likeness:
        """Return who is alike, as the rounds so far showed it."""
        return Likeness.read(self.folders.last)

    def memory(self) -> dict[str, np.ndarray]:
        """Return what the strategy remembers; nothing before the first round."""
        return load_arrays(self.folders.last / MEMORY) if self.folders.finished else {}

    def informed(self) -> Strategy:
        """Return the strategy with what it remembers of the finished rounds."""
        if self.strategy.recall is None or self.folders.finished == 0:
            return self.strategy
        return self.strategy.recall(self.memory())

    def common(self, modality: str, updates: Updates) -> Arrays:
        """Return what a client begins with that was never there: what all are sent, or its group's
        model where each is sent something of its own; nothing where neither is known."""
        strategy, group = self.informed(), self.strategy.group_of(modality)
        there = self._sent_alike(modality, updates)
        sent = strategy.download(min(there), updates) if there else None
        if sent is not None and sent.use == "replace":
            return sent.arrays or {}
        return {} if group is None else strategy.models(updates).get(group, {})

    def returning(self, reply: Reply, updates: Updates) -> Download:
        """Return what a client receives that was away in the last round, while others were there.

        What it is sent of its own is mixed with its last update; what all are sent is what the
        others get: an old update has no part in it.

        Args:
            reply: Its last one.
            updates: Of the others.
        """
        strategy, client = self.informed(), reply.client
        own = last_update(self.folders, reply, "away", updates, self.likeness().affinity)
        download = strategy.download(client, {**updates, client: own})
        group = self.strategy.group_of(reply.modality)
        there = self._sent_alike(reply.modality, updates)
        if download.use == "replace" and there:
            return strategy.download(min(there), updates)
        if download.model is None or not there:
            return download
        return replace(download, model=strategy.models(updates)[str(group)])

    def _sent_alike(self, modality: str, updates: Updates) -> list[str]:
        """Return the clients that are sent the same model as those of a modality."""
        return [n for n, u in updates.items() if self._are_alike(u.modality, modality)]

    def _are_alike(self, one: str, other: str) -> bool:
        if one == other:
            return True
        groups = {self.strategy.group_of(modality) for modality in (one, other)}
        return len(groups) == 1 and not self.strategy.name.startswith("modality-")

"""Which of a federation's models its server keeps: of every round's, what validation prefers."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flames.array_files import save_arrays
from flames.federation.exchange import Reply
from flames.federation.parcels import had_lost_all
from flames.federation.records import best_so_far, group_rule, group_score
from flames.federation.round_folders import RoundFolders
from flames.files import save_json
from flames.strategies import Strategy, Updates
from flames.strategies.mixture import leads

Models = Mapping[str, Mapping[str, np.ndarray]]


def by_group(strategy: Strategy, replies: Mapping[str, Reply]) -> dict[str, list[str]]:
    """Return who answered, by the group whose model they share; who has none is left out."""
    groups: dict[str, list[str]] = {}
    for name in sorted(replies):
        group = strategy.group_of(replies[name].modality)
        if group is not None:
            groups.setdefault(group, []).append(name)
    return groups


@dataclass(frozen=True)
class Keeping:
    """The server's models of a run, and when a newer one takes an older one's place."""

    strategy: Strategy
    folders: RoundFolders
    last_round: int

    def keep(
        self,
        received: Mapping[str, Reply],
        updates: Updates,
        models: Callable[[], Models],
        *,
        judged: bool,
    ) -> list[dict[str, Any]]:
        """Score the models that clients received in the open round; write the better ones there.

        A round that is not judged changes nothing, unless the models there are of other clients.

        Args:
            received: The open round's replies, by client.
            updates: What the models are made of.
            models: Makes them, by group; called once if at all.
            judged: Whether clients looked at the models.

        Returns:
            A record of each group for ``rounds.jsonl``.
        """
        if self.folders.finished == 0:
            return []
        if (self.folders.last / "best").exists():
            shutil.copytree(
                self.folders.last / "best", self.folders.open / "best", dirs_exist_ok=True
            )
        made: Models | None = None
        records = []
        served = {self.strategy.group_of(update.modality) for update in updates.values()}
        for group, members in by_group(self.strategy, received).items():
            if group not in served:
                continue
            circle = self.strategy.circle(group, updates)
            judges = [n for n in members if n in (updates if circle is None else circle)]
            judges = [n for n in judges if not had_lost_all(self.folders.sent(n))]
            replies = [received[name] for name in judges]
            score = self._score(replies) if judged else None
            known = best_so_far(self.folders.records(), group, circle, updates)
            takes = self._takes(score, known, replies)
            if takes:
                made = models() if made is None else made
                self._save(self.folders.open / "best", group, made[group], replies)
            best = score if takes else known
            records.append(
                {
                    "kind": "server",
                    "round": self.folders.finished,
                    "group": group,
                    "sites": members,
                    "circle": circle,
                    "validation": score if self.strategy.selects else None,
                    "best": best if self.strategy.selects else None,
                }
            )
        return records

    def _score(self, replies: list[Reply]) -> float | None:
        return group_score(replies, alike=self.strategy.counts_alike)

    def _takes(self, score: float | None, known: float | None, judges: list[Reply]) -> bool:
        """Return whether a model replaces the one that is kept, whose score is ``known``."""
        closing = self.folders.finished + 1 == self.last_round
        if not self.strategy.selects:
            return closing
        if known is None or score is None or not closing:
            return known is None or (score is not None and score > known)
        return not leads(known, score, sum(reply.validation_cases for reply in judges))

    @staticmethod
    def _save(
        place: Path, group: str, model: Mapping[str, np.ndarray], judges: list[Reply]
    ) -> None:
        save_arrays(place / f"{group}.safetensors", model)
        save_json(place / f"{group}.json", asdict(group_rule(judges)))

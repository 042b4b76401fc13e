"""How many steps a client takes in which round, which rounds are shared, and which are judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise

from flames.config import RunConfig
from flames.strategies.relay import SETTLED


@dataclass(frozen=True)
class Member:
    """A client as the server knows it."""

    name: str
    modality: str
    sites: int
    """Sites behind it: 1, or more where a modality is pooled."""
    local_steps: int | None = None
    """Optimiser steps a round; None means the run's, for each site behind it."""


class Budget:
    """The steps and rounds of one federation."""

    def __init__(
        self,
        members: Mapping[str, Member],
        config: RunConfig,
        schedule: Callable[[int, int, int], float] | None,
    ) -> None:
        """Deal out each member's steps in parts of ``schedule``; evenly where that is None."""
        self._members = members
        self._config = config
        self._schedule = schedule or (lambda _round, _rounds, _steps: 1)

    @property
    def last_round(self) -> int:
        """Return the number of the closing round, in which clients only receive and choose."""
        return self._config.rounds + 1

    @property
    def shared_rounds(self) -> float:
        """Return how many rounds clients share in."""
        return shared_rounds(self._config)

    def total(self, client: str) -> int:
        """Return a client's steps in the whole run."""
        member = self._members[client]
        steps = member.local_steps or self._config.training.local_steps * member.sites
        return self._config.rounds * steps

    def steps(self, client: str, server_round: int) -> range:
        """Return a client's steps of one round, counted from the run's start."""
        rounds, total = self._config.rounds, self.total(client)
        if server_round > rounds:
            return range(total, total)
        edges = self._edges(total)
        return range(edges[server_round - 1], edges[server_round])

    def fewest(self, client: str) -> int:
        """Return the steps of a client's shortest round in which it trains at all."""
        edges = self._edges(self.total(client))
        return min(stop - start for start, stop in pairwise(edges) if stop > start)

    def judges(self, server_round: int) -> bool:
        """Return whether a round's models are judged."""
        return is_judged(self._config, server_round)

    def tells_who_is_alike(self, server_round: int) -> bool:
        """Return whether a round is long enough for movements to tell who is alike.

        The first ones are, or are all that there is; later ones where no client has a shorter one.
        """
        steps = [self.total(name) // self._config.rounds for name in self._members]
        fewest = min(steps, default=self._config.training.local_steps)
        return fewest >= self._config.strategy.first_steps or server_round <= SETTLED

    def has_short_rounds(self, client: str) -> bool:
        """Return whether turns suit a client; one that is no member any more takes none."""
        return self._has_at_most(self._config.strategy.short_round, client)

    def hands_moments_on(self, client: str) -> bool:
        """Return whether a client's turns are so short that moments go on with the weights."""
        may = self._config.hands_moments_on
        return may and self._has_at_most(self._config.strategy.relay_moments, client)

    def _edges(self, total: int) -> list[int]:
        """Return the step at which each round begins, and that at which the last one ends."""
        rounds = self._config.rounds
        numbers = range(1, rounds + 1)
        parts = [self._schedule(number, rounds, total // rounds) for number in numbers]
        sums = list(accumulate(parts, initial=0.0))
        return [round(total * until / sums[-1]) for until in sums]

    def _has_at_most(self, steps: int, client: str) -> bool:
        return client not in self._members or self.total(client) <= self._config.rounds * steps


def shared_rounds(config: RunConfig) -> float:
    """Return how many of a run's rounds clients share in."""
    return config.strategy.sharing * config.rounds


def is_judged(config: RunConfig, server_round: int) -> bool:
    """Return whether clients judge on validation cases in a round what they receive and train.

    They do in the first rounds, which tell who is alike, in the last one and in the closing pass,
    and between them after every ``training.validation-steps`` steps, or each round if it has more:
    judging models can take longer than a round's training, and tells little new so soon.
    """
    training = config.training
    every = max(1, training.validation_steps // training.local_steps)
    return server_round <= SETTLED + 1 or server_round >= config.rounds or server_round % every == 0

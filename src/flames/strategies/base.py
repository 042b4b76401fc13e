"""What a strategy is: two pure functions over the updates of one round."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from flames.strategies.arrays import Arrays
from flames.strategies.rules import PLAIN, LocalRule, Private, nothing_private


@dataclass(frozen=True)
class Update:
    """What one client returned after its local training."""

    client: str
    modality: str
    arrays: Arrays
    """Its weights by name; may read from disk when asked."""
    num_examples: int
    """Training cases, never batches."""
    affinity: Mapping[str, float] | None = None
    """How much it should weigh each peer, 0 to 1, by `affinities`; None before that is known."""


Updates = Mapping[str, Update]
"""Updates of a round by client."""


@dataclass(frozen=True)
class Chain:
    """Clients that train one after another in a round, each from the weights of the one before."""

    clients: tuple[str, ...]
    before: tuple[str, ...] = ()
    """In which order they took turns in the round before, whose last hands on to this one's first;
    empty where the first begins as without a relay."""


@dataclass(frozen=True)
class Download:
    """What one client receives before it trains again."""

    arrays: Arrays | None
    """Weights from others, or None when the strategy sends none."""
    use: Literal["replace", "mix", "keep"]
    """``replace`` own weights by `arrays`; ``mix`` both with α; or ``keep`` one's own."""
    alpha: float | None = None
    """Own share in the mixture; None asks the client to tune it on its validation cases."""
    peers: int = 0
    """Other clients behind `arrays`."""
    own_share: float = 0.0
    """Own share by cases among the client and its n - 1 peers that it should weigh, at least 1/n; 1
    where there are none."""
    model: Arrays | None = None
    """The group's model, for clients that may prefer it to a mixture."""
    own_head: bool = False
    """Whether the last levels of its network stay the client's own in a mixture with an own share;
    see `flames.strategies.rules.last_levels`."""
    best: Arrays | None = None
    """The group's model that the server keeps so far, in the closing round."""
    moments: Arrays | None = None
    """The optimiser's moments that go with `arrays`, where another client hands both on; see
    `flames.moments`."""
    wants_moments: bool = False
    """Whether the client is to send its own moments back, for whoever goes on from its weights."""


@dataclass(frozen=True)
class Strategy:
    """How updates become server models and what each client receives.

    Both functions are pure: equal updates give equal results, whatever the order they came in.
    """

    name: str
    models: Callable[[Updates], dict[str, dict[str, np.ndarray]]]
    """Server models by group: a modality, ``"all"``, or none for `local`."""
    download: Callable[[str, Updates], Download]
    """What a client receives, given its name and the updates of its round."""
    group_of: Callable[[str], str | None]
    """The server model that serves clients of a modality; None where the server has none."""
    voters: Callable[[Updates], frozenset[str]] | None = None
    """Clients whose validation cases choose the round of the server models; None means all."""
    personal: bool = False
    """Whether each client ends with weights of its own, rather than its group's model."""
    counts_alike: bool = False
    """Whether clients count alike when validation chooses the round of a server model; else by
    their cases."""
    selects: bool = True
    """Whether validation chooses the round that is kept; the published recipe keeps the last."""
    keeps_optimizer: bool = True
    """Whether a client's optimiser goes on between rounds; the published recipe rebuilds it."""
    keeps_statistics: bool = False
    """Whether batch-norm statistics stay the client's own when others' weights arrive (FedBN)."""
    shares_first: bool = False
    """Whether the first rounds begin from the group's model, before clients go their own way."""
    chain: Callable[[str, Updates, int], Chain] | None = None
    """With whom a client trains in turn while it shares, each from the weights of the one before:
    ``(client, updates of the last round, rounds in turn before) -> chain``; None where all train at
    once."""
    schedule: Callable[[int, int, int], float] | None = None
    """Optimiser steps of each round as parts of a client's budget: ``(server_round, rounds, its
    steps a round on average) -> parts``; None where all rounds are alike."""
    rule: LocalRule = PLAIN
    """What a client's training does beside the plain loop."""
    private: Private = nothing_private
    """Which arrays of a whole model never leave the client."""
    advance: Callable[[Arrays, Updates, Arrays], dict[str, np.ndarray]] | None = None
    """What the server remembers after a round: ``(memory, updates, start) -> memory``, from an
    empty memory; None where it needs none."""
    recall: Callable[[Arrays], Strategy] | None = None
    """This strategy with a memory: it answers from that and from updates."""

    def circle(self, group: str, updates: Updates) -> list[str] | None:
        """Return the clients that a group's model is a mean of; None where that is the group."""
        if self.voters is None:
            return None
        return sorted(
            n for n in self.voters(updates) if self.group_of(updates[n].modality) == group
        )


def ordered(updates: Updates) -> list[Update]:
    """Return the updates in the order of their clients' names, so that sums repeat bit for bit."""
    if not updates:
        raise ValueError("no update to aggregate")
    return [updates[name] for name in sorted(updates)]

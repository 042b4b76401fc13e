"""Personal mixtures: each client's own weights with its peers', and one model for the group.

Savoia, Prezioso, Piccialli: FLAMES, Expert Systems 42(8), 2025, 10.1111/exsy.70090.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from flames.strategies.arrays import weighted_mean
from flames.strategies.base import Download, Strategy, Update, Updates, ordered
from flames.strategies.fedavg import case_weighted_mean, plain_mean
from flames.strategies.relay import LEAST, SETTLED, chain_of, circle_of, circles

ENOUGH = 100
"""Training cases with which a client can learn to draw by itself, and keeps its last levels."""


def personalised(alpha: float | None = None, relay: int = 1, first_steps: int = 1) -> Strategy:
    """Return the corrected recipe: ``θ_k ← α θ_k + (1 − α) Σ_{j≠k} w_j θ_j``, ``w_j ∝ a_kj N_j``.

    ``a_kj`` in [0, 1] is how alike both clients move, see `affinities`, and 1
    where that is unknown. A client among strangers keeps its own weights, and may still prefer the
    server model, which is the mean of the `largest_circle` weighted by cases. The own share by
    cases, with which a client begins while it shares, is at least one part of as many as it learns
    from and itself, so that a small client is not drowned by a large one. Peers' weights travel,
    and the client mixes, so it can tune α on its own validation cases inside [1/n, 1] without
    asking; then a client of a circle of two keeps the last levels of its network as its own, if it
    has `ENOUGH` cases to learn them from.

    Args:
        alpha: Own share, for every client alike; None lets each client tune its own.
        relay: Friends that train one after another while they share, at most; with 1, or with a
            fixed α, each begins from the mean. See `chain_of`.
        first_steps: Optimiser steps of each of the first rounds, at least. See `acquainting`.
    """

    hands_on = alpha is None and relay > 1

    def download(client: str, updates: Updates) -> Download:
        own = updates[client]
        peers = [u for u in ordered(updates) if u.client != client]
        if not peers:
            return Download(None, use="keep", alpha=1.0, own_share=1.0)
        affinity = own.affinity or {u.client: 1.0 for u in peers}
        weights = [u.num_examples * affinity[u.client] for u in peers]
        model = case_weighted_mean(largest_circle(updates))
        if sum(weights) == 0:
            return Download(None, use="keep", peers=len(peers), own_share=1.0, model=model)
        return Download(
            weighted_mean([u.arrays for u in peers], weights),
            use="mix",
            alpha=alpha,
            peers=len(peers),
            own_share=max(
                own.num_examples / (own.num_examples + sum(weights)),
                1 / (1 + sum(weight > 0 for weight in weights)),
            ),
            model=model,
            own_head=alpha is None
            and own.num_examples >= ENOUGH
            and len(circle_of(client, updates)) < LEAST,
        )

    return Strategy(
        "flames",
        models=lambda updates: {"all": case_weighted_mean(largest_circle(updates))},
        download=download,
        group_of=lambda _: "all",
        voters=lambda updates: frozenset(largest_circle(updates)),
        personal=True,
        keeps_statistics=True,
        shares_first=True,
        schedule=partial(acquainting, first_steps=first_steps),
        chain=partial(chain_of, length=relay) if hands_on else None,
    )


def acquainting(server_round: int, rounds: int, steps: int, *, first_steps: int) -> float:
    """Return a round's optimiser steps where the first `SETTLED` rounds have ``first_steps``.

    After fewer steps movements do not tell yet who is alike. What these rounds take more than
    others the rest takes less, but a step at least; they take at most a third of the budget.

    Args:
        server_round: From 1.
        rounds: Of the whole run.
        steps: Of a round, on average.
        first_steps: Of each of the first rounds, where others are shorter.

    >>> [acquainting(number, 10, 6, first_steps=10) for number in (1, 2, 3, 10)]  # 60 steps in all
    [10.0, 10.0, 5.0, 5.0]
    >>> [acquainting(1, rounds, steps, first_steps=10) for rounds, steps in ((9, 12), (2, 3))]
    [12.0, 3.0]
    """
    if rounds <= SETTLED:
        return float(steps)
    total, later = rounds * steps, rounds - SETTLED
    most = min(total // (3 * SETTLED), (total - later) // SETTLED)
    first = max(steps, min(first_steps, most))
    return float(first) if server_round <= SETTLED else (total - SETTLED * first) / later


def largest_circle(updates: Updates) -> dict[str, Update]:
    """Return the updates of the clients who learn from each other and have most cases together.

    Models that never met have a mean that is worth little, so the server's model leaves strangers
    out. A client alone is it only where no two learn from each other: nobody else has shown any use
    for its model. Where affinities are unknown, or all are alike, it is all clients; of equal
    circles it is the first by name. See `circles`.

    >>> def update(name, cases, **affinity):
    ...     return Update(name, "MR", {}, cases, affinity)
    >>> found = largest_circle(
    ...     {
    ...         "a": update("a", 3, b=1.0, c=0.0),
    ...         "b": update("b", 4, a=1.0, c=0.0),
    ...         "c": update("c", 9, a=0.0, b=0.0),
    ...     }
    ... )
    >>> sorted(found)  # though 3 + 4 cases are less than 9
    ['a', 'b']
    """

    def size(circle: Mapping[str, Update]) -> tuple[bool, int]:
        return len(circle) > 1, sum(update.num_examples for update in circle.values())

    return max(circles(updates), key=size)


def published() -> Strategy:
    """Return the published recipe: ``α = 0.1 + 1/n``, ``w_j ∝ 1/N_j``, plain mean at the server.

    Its clients train ten parts of the budget in the second round and one in every other, rebuild
    their optimiser each round and return their last weights. With one client α is 1; the public
    code's 1.1, which makes every weight grow, is not repeated.
    """

    def download(client: str, updates: Updates) -> Download:
        peers = [u for u in ordered(updates) if u.client != client]
        if not peers:
            return Download(None, use="keep", alpha=1.0, own_share=1.0)
        return Download(
            weighted_mean([u.arrays for u in peers], [1 / u.num_examples for u in peers]),
            use="mix",
            alpha=min(1.0, 0.1 + 1 / len(updates)),
            peers=len(peers),
        )

    return Strategy(
        "paper",
        models=lambda updates: {"all": plain_mean(updates)},
        download=download,
        group_of=lambda _: "all",
        personal=True,
        selects=False,
        keeps_optimizer=False,
        schedule=lambda server_round, rounds, _: 10 if server_round == 2 and rounds > 1 else 1,
    )

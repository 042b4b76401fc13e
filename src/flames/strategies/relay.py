"""Who trains after whom: friends hand one model on, instead of each starting from a mean.

Compare cyclic weight transfer in Chang et al., Distributed deep learning networks among
institutions for medical imaging, JAMIA 25(8), 2018.
"""

from __future__ import annotations

from flames.strategies.base import Chain, Update, Updates, ordered

SETTLED = 2
"""Rounds after which it is known who is alike, and a relay may begin."""
LEAST = 3
"""Clients of a circle that hands a model on."""


def chain_of(client: str, updates: Updates, turn: int, *, length: int) -> Chain:
    """Return the chain of a client's circle that it belongs to, in the order of their turns.

    They take turns by name, and from round to round another one begins: models forget whom they
    left long ago, so nobody should always be the last. Two would only alternate, and keep to their
    mean.

    Args:
        client: One of ``updates``.
        updates: Of one round and one modality.
        turn: Rounds in which clients took turns before.
        length: Clients of a chain at most. A circle of more is dealt out to as few chains as
            possible, side by side, whose first begin as without a relay.

    >>> names = ["a", "b", "c", "d", "e"]
    >>> updates = {name: Update(name, "MR", {}, 1) for name in names}
    >>> chain_of("b", updates, 0, length=8)
    Chain(clients=('a', 'b', 'c', 'd', 'e'), before=())
    >>> chain_of("b", updates, 1, length=8)
    Chain(clients=('b', 'c', 'd', 'e', 'a'), before=('a', 'b', 'c', 'd', 'e'))
    >>> chain_of("b", updates, 1, length=3)
    Chain(clients=('d', 'b'), before=())
    """
    circle = sorted(circle_of(client, updates))
    if len(circle) < LEAST:
        return Chain((client,))
    parts = -(-len(circle) // length)
    chain = tuple(circle[circle.index(client) % parts :: parts])
    before = _rotated(chain, turn - 1) if parts == 1 and turn > 0 else ()
    return Chain(_rotated(chain, turn), before)


def _rotated(chain: tuple[str, ...], turn: int) -> tuple[str, ...]:
    first = turn % len(chain)
    return chain[first:] + chain[:first]


def circle_of(client: str, updates: Updates) -> dict[str, Update]:
    """Return the updates of a client's circle, its own among them."""
    return next(circle for circle in circles(updates) if client in circle)


def circles(updates: Updates) -> list[dict[str, Update]]:
    """Return the updates by circles of clients who learn from each other.

    Two clients are of one circle if they weigh each other, or both weigh a third. Where affinities
    are unknown all clients are one.
    """
    clients = ordered(updates)
    if any(client.affinity is None for client in clients):
        return [dict(updates)]
    left = {client.client: client for client in clients}
    found: list[dict[str, Update]] = []
    while left:
        first = next(iter(left))
        circle, ask = {first: left.pop(first)}, [first]
        while ask:
            weights = updates[ask.pop()].affinity or {}
            for name in [n for n in left if weights.get(n, 0.0) > 0]:
                circle[name] = left.pop(name)
                ask.append(name)
        found.append(circle)
    return found

"""Ditto: one averaged model, and at each client a second of its own, held near it."""

from __future__ import annotations

from dataclasses import replace

from flames.strategies.base import Strategy
from flames.strategies.fedavg import fedavg
from flames.strategies.rules import LocalRule


def ditto(strength: float = 0.1) -> Strategy:
    """Return FedAvg, beside which each client minimises ``loss(v) + λ/2 ‖v − w_received‖²``.

    A round's steps are shared: half train the common model, half the client's own. λ = 0 makes the
    own model local training on half the steps. It sends nothing more and stores a second model with
    its optimiser at the client. Li et al., Ditto, ICML 2021, algorithm 1.
    """
    return replace(
        fedavg(),
        name="ditto",
        personal=True,
        rule=LocalRule(second="ditto", second_strength=strength),
    )

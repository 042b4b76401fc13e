"""APFL: each client mixes its own model with the common one, and learns in which share."""

from __future__ import annotations

from dataclasses import replace

from flames.strategies.base import Strategy
from flames.strategies.fedavg import fedavg
from flames.strategies.rules import LocalRule


def apfl(alpha: float = 0.5) -> Strategy:
    """Return FedAvg, beside which each client trains ``v`` and α of ``α v + (1 − α) w``.

    A round's steps are shared: half train the common ``w``, half ``v`` and α by the gradient of the
    mixture's loss, with the ``w`` just trained. The client ends with the mixture. α held at 1 is
    local training on half the steps. It sends nothing more and stores ``v``, α and their optimiser.
    Deng et al., Adaptive Personalized Federated Learning, arXiv 2003.13461, algorithm 1, whose two
    updates alternate step by step; here they follow each other within a round.
    """
    return replace(
        fedavg(),
        name="apfl",
        personal=True,
        rule=LocalRule(second="apfl", second_strength=alpha),
    )

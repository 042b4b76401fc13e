"""FedProx: averaging, with a spring that holds each client near what it received."""

from __future__ import annotations

from dataclasses import replace

from flames.strategies.base import Strategy
from flames.strategies.fedavg import fedavg
from flames.strategies.rules import LocalRule


def fedprox(mu: float = 0.01) -> Strategy:
    """Return FedAvg whose clients minimise ``loss(w) + μ/2 ‖w − w_received‖²``.

    μ = 0 is FedAvg. It sends and stores nothing more. Li et al., Federated Optimization in
    Heterogeneous Networks, MLSys 2020, equation 2 and algorithm 2.
    """
    return replace(fedavg(), name="fedprox", rule=LocalRule(proximal_mu=mu))

"""FedBN: averaging of everything but normalisation layers, which each client keeps."""

from __future__ import annotations

from dataclasses import replace

from flames.strategies.base import Strategy
from flames.strategies.fedavg import fedavg
from flames.strategies.rules import norm_layers


def fedbn() -> Strategy:
    """Return FedAvg that leaves normalisation layers, weights and statistics, at their client.

    With instance or group norm these are the scales and shifts. A network without such layers makes
    it FedAvg. The server has no whole model, so it keeps none. Li et al., FedBN: Federated Learning
    on Non-IID Features via Local Batch Normalization, ICLR 2021, algorithm 1.
    """
    return replace(
        fedavg(),
        name="fedbn",
        models=lambda _: {},
        group_of=lambda _: None,
        personal=True,
        private=norm_layers,
    )

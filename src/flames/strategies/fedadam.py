"""FedAdam: the server takes the clients' mean movement as a gradient, and steps with Adam."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from flames.strategies.arrays import Arrays
from flames.strategies.base import Download, Strategy, Updates
from flames.strategies.fedavg import case_weighted_mean, fedavg
from flames.strategies.mixture import STATISTICS

FIRST_DECAY, SECOND_DECAY = 0.9, 0.99
WEIGHTS, FIRST, SECOND = "weights:", "first:", "second:"


def fedadam(
    rate: float = 0.01,
    *,
    tau: float = 1e-3,
    first_decay: float = FIRST_DECAY,
    second_decay: float = SECOND_DECAY,
) -> Strategy:
    """Return FedOpt with Adam at the server: ``x ← x + η m / (√v + τ)``.

    ``Δ = Σ N_k (y_k − x) / Σ N_k``, ``m ← β₁ m + (1 − β₁) Δ``, ``v ← β₂ v + (1 − β₂) Δ²``, from
    ``m = 0`` and ``v = τ²``, without bias correction. Statistics of batch norm are averaged. With
    β₁ = β₂ = 0 and η = τ far above every movement it is FedAvg. The server remembers ``x``, ``m``
    and ``v``; nothing more travels. Reddi et al., Adaptive Federated Optimization, ICLR 2021,
    algorithm 2.

    Args:
        rate: η.
        tau: How adaptive: a movement far below τ is not enlarged.
        first_decay: β₁.
        second_decay: β₂.
    """

    def advance(memory: Arrays, updates: Updates, start: Arrays) -> dict[str, np.ndarray]:
        if not updates:
            return dict(memory)
        mean = case_weighted_mean(updates)
        after: dict[str, np.ndarray] = {}
        for name, target in mean.items():
            if name.endswith(STATISTICS) or not np.issubdtype(target.dtype, np.floating):
                after[WEIGHTS + name] = target
                continue
            x = memory.get(WEIGHTS + name, start[name]).astype(np.float64)
            first = memory.get(FIRST + name, np.zeros(x.shape))
            second = memory.get(SECOND + name, np.full(x.shape, tau**2))
            move = target.astype(np.float64) - x
            first = first_decay * first + (1 - first_decay) * move
            second = second_decay * second + (1 - second_decay) * move**2
            after[WEIGHTS + name] = (x + rate * first / (np.sqrt(second) + tau)).astype(
                target.dtype
            )
            after[FIRST + name] = first.astype(np.float32)
            after[SECOND + name] = second.astype(np.float32)
        return after

    return replace(fedavg(), name="fedadam", advance=advance, recall=_recall)


def _recall(memory: Arrays) -> Strategy:
    model = {
        name.removeprefix(WEIGHTS): memory[name] for name in memory if name.startswith(WEIGHTS)
    }

    def download(client: str, updates: Updates) -> Download:
        del client
        return Download(model, use="replace", peers=len(updates) - 1)

    return replace(
        fedavg(), name="fedadam", models=lambda _: {"all": dict(model)}, download=download
    )

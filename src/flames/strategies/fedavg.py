"""Federated averaging: one model, the mean of its clients weighted by cases."""

from __future__ import annotations

import numpy as np

from flames.strategies.arrays import weighted_mean
from flames.strategies.base import Download, Strategy, Updates, ordered


def fedavg() -> Strategy:
    """Return FedAvg: ``θ = Σ N_k θ_k / Σ N_k``, sent to every client.

    With one client it is local training. McMahan et al., AISTATS 2017, algorithm 1.
    """
    return Strategy("fedavg", models=_models, download=_download, group_of=lambda _: "all")


def case_weighted_mean(updates: Updates) -> dict[str, np.ndarray]:
    """Return ``Σ N_k θ_k / Σ N_k`` over the updates."""
    clients = ordered(updates)
    return weighted_mean([u.arrays for u in clients], [u.num_examples for u in clients])


def plain_mean(updates: Updates) -> dict[str, np.ndarray]:
    """Return ``Σ θ_k / n`` over the updates."""
    clients = ordered(updates)
    return weighted_mean([u.arrays for u in clients], [1.0] * len(clients))


def _models(updates: Updates) -> dict[str, dict[str, np.ndarray]]:
    return {"all": case_weighted_mean(updates)}


def _download(client: str, updates: Updates) -> Download:
    del client
    return Download(case_weighted_mean(updates), use="replace", peers=len(updates) - 1)

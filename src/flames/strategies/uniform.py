"""Federated averaging in which every client counts alike, whatever its number of cases."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from flames.strategies.base import Download, Strategy, Updates
from flames.strategies.fedavg import fedavg, plain_mean


def uniform() -> Strategy:
    """Return FedAvg with equal weights: ``θ = Σ θ_k / n``, sent to every client.

    Where one modality has most of the cases, the mean by cases is nearly that modality's model, so
    what it is worth to others says little of sharing with them. With clients of equally many cases
    it is FedAvg.
    """
    return replace(fedavg(), name="uniform", models=_models, download=_download, counts_alike=True)


def _models(updates: Updates) -> dict[str, dict[str, np.ndarray]]:
    return {"all": plain_mean(updates)}


def _download(client: str, updates: Updates) -> Download:
    del client
    return Download(plain_mean(updates), use="replace", peers=len(updates) - 1)

"""How a server turns updates into the next weights: pure functions over named arrays."""

from __future__ import annotations

from collections.abc import Callable

from flames.strategies.affinity import affinities
from flames.strategies.arrays import interpolate, weighted_mean
from flames.strategies.base import Download, Strategy, Update, Updates
from flames.strategies.by_modality import by_modality
from flames.strategies.fedavg import fedavg
from flames.strategies.local import local
from flames.strategies.personalised import personalised, published

__all__ = [
    "STRATEGIES",
    "Download",
    "Strategy",
    "Update",
    "Updates",
    "affinities",
    "by_modality",
    "fedavg",
    "interpolate",
    "local",
    "personalised",
    "published",
    "weighted_mean",
]

STRATEGIES: dict[str, Callable[[float | None], Strategy]] = {
    "flames": lambda alpha: by_modality(personalised(alpha), "flames"),
    "paper": lambda _: by_modality(published(), "paper"),
    "modality": lambda _: by_modality(fedavg(), "modality"),
    "fedavg": lambda _: fedavg(),
    "local": lambda _: local(),
    "central": lambda _: by_modality(fedavg(), "central"),
}
"""Strategies by name, each made from a fixed own share α or None for a tuned one.

``central`` is FedAvg inside a modality over one client, which the simulation makes by pooling that
modality's training cases: possible in simulation only.
"""

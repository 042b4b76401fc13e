"""How a server turns updates into the next weights: pure functions over named arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from flames.strategies.affinity import affinities, cosines
from flames.strategies.apfl import apfl
from flames.strategies.arrays import interpolate, weighted_mean
from flames.strategies.base import Download, Strategy, Update, Updates
from flames.strategies.by_modality import by_modality
from flames.strategies.ditto import ditto
from flames.strategies.fedadam import fedadam
from flames.strategies.fedavg import fedavg
from flames.strategies.fedbn import fedbn
from flames.strategies.fedprox import fedprox
from flames.strategies.fedrep import fedrep
from flames.strategies.local import local
from flames.strategies.personalised import personalised, published
from flames.strategies.rules import LocalRule
from flames.strategies.scaffold import scaffold
from flames.strategies.uniform import uniform

__all__ = [
    "FURTHER",
    "STRATEGIES",
    "Download",
    "Knobs",
    "LocalRule",
    "Strategy",
    "Update",
    "Updates",
    "affinities",
    "apfl",
    "by_modality",
    "cosines",
    "ditto",
    "fedadam",
    "fedavg",
    "fedbn",
    "fedprox",
    "fedrep",
    "interpolate",
    "local",
    "personalised",
    "published",
    "scaffold",
    "uniform",
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


@dataclass(frozen=True)
class Knobs:
    """Numbers of the further strategies, as their papers' authors set them."""

    proximal_mu: float = 0.01
    ditto_lambda: float = 0.1
    server_rate: float = 0.01


ALONE: dict[str, Callable[[Knobs], Strategy]] = {
    "uniform": lambda _: uniform(),
    "fedprox": lambda knobs: fedprox(knobs.proximal_mu),
    "fedbn": lambda _: fedbn(),
    "fedadam": lambda knobs: fedadam(knobs.server_rate),
    "scaffold": lambda _: scaffold(),
    "ditto": lambda knobs: ditto(knobs.ditto_lambda),
    "apfl": lambda _: apfl(),
    "fedrep": lambda _: fedrep(),
}


def _inside(name: str) -> Callable[[Knobs], Strategy]:
    return lambda knobs: by_modality(ALONE[name](knobs), f"modality-{name}")


FURTHER: dict[str, Callable[[Knobs], Strategy]] = ALONE | {
    f"modality-{name}": _inside(name) for name in ALONE
}
"""Strategies to compare with, each alone and, as ``modality-NAME``, inside each modality."""


def _with_defaults(make: Callable[[Knobs], Strategy]) -> Callable[[float | None], Strategy]:
    return lambda _: make(Knobs())


STRATEGIES |= {name: _with_defaults(make) for name, make in FURTHER.items()}

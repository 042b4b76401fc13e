"""SCAFFOLD: averaging, with gradients corrected for where each client drifts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from flames.strategies.base import Strategy, Updates
from flames.strategies.fedavg import case_weighted_mean, fedavg
from flames.strategies.rules import LocalRule, split_controls


def scaffold() -> Strategy:
    """Return FedAvg whose clients add ``c − c_k`` to every gradient.

    ``c_k`` is the mean of the client's own gradients over its last round, which for plain gradient
    descent is exactly option II of the paper: ``c_k − c + (x − y_k)/(K η) = mean g``. ``c`` is the
    mean of all ``c_k``, weighted by cases as the weights are: with every client in every round this
    is the paper's ``c + Σ Δc_k / N``. Both travel beside the weights, so twice the bytes go each
    way. In the first round all are 0 and a client trains as in FedAvg; so does a lone client.
    Karimireddy et al., SCAFFOLD, ICML 2020, algorithm 1.
    """

    def models(updates: Updates) -> dict[str, dict[str, np.ndarray]]:
        return {"all": split_controls(case_weighted_mean(updates))[0]}

    return replace(fedavg(), name="scaffold", models=models, rule=LocalRule(corrects=True))

"""FedRep: one encoder for all, a decoder for each."""

from __future__ import annotations

from dataclasses import replace

from flames.strategies.base import Strategy
from flames.strategies.fedavg import fedavg
from flames.strategies.rules import LocalRule, decoder


def fedrep() -> Strategy:
    """Return averaging of the encoder alone; each client keeps the decoder that it trained.

    In a round a client first trains its decoder on the encoder it received, then the encoder under
    that decoder, each for half of the steps. The server has no whole model, so it keeps none.
    Collins et al., Exploiting Shared Representations for Personalized Federated Learning, ICML
    2021, algorithm 1; with equal halves, where the paper gives the representation one step.
    """
    return replace(
        fedavg(),
        name="fedrep",
        models=lambda _: {},
        group_of=lambda _: None,
        personal=True,
        private=decoder,
        rule=LocalRule(decoder_first=True),
    )

"""The combinator at the heart of the method: any strategy, applied inside each modality."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from flames.strategies.base import Download, Strategy, Updates


def by_modality(inner: Strategy, name: str) -> Strategy:
    """Return ``inner`` applied to the clients of each modality apart.

    Its server models are named after the modalities. Where all clients share one modality it is
    ``inner`` itself, but for the model's name.
    """

    def models(updates: Updates) -> dict[str, dict[str, np.ndarray]]:
        modalities = sorted({u.modality for u in updates.values()})
        return {
            modality: model
            for modality in modalities
            for model in inner.models(_of(modality, updates)).values()
        }

    def download(client: str, updates: Updates) -> Download:
        return inner.download(client, _of(updates[client].modality, updates))

    return replace(
        inner, name=name, models=models, download=download, group_of=lambda modality: modality
    )


def _of(modality: str, updates: Updates) -> Updates:
    return {client: u for client, u in updates.items() if u.modality == modality}

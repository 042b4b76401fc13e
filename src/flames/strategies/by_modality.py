"""The combinator at the heart of the method: any strategy, applied inside each modality."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from flames.strategies.arrays import Arrays
from flames.strategies.base import Chain, Download, Strategy, Updates


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

    def voters(updates: Updates) -> frozenset[str]:
        assert inner.voters is not None
        modalities = {u.modality for u in updates.values()}
        return frozenset().union(*(inner.voters(_of(m, updates)) for m in modalities))

    def chain(client: str, updates: Updates, turn: int) -> Chain:
        assert inner.chain is not None
        return inner.chain(client, _of(updates[client].modality, updates), turn)

    outer = replace(
        inner,
        chain=chain if inner.chain else None,
        voters=voters if inner.voters else None,
        name=name,
        models=models,
        download=download,
        group_of=lambda modality: None if inner.group_of(modality) is None else modality,
    )
    return _remembering(outer, inner) if inner.advance else outer


def _remembering(outer: Strategy, inner: Strategy) -> Strategy:
    """Return ``outer`` with a memory for each modality."""
    assert inner.advance is not None
    assert inner.recall is not None
    step, recall = inner.advance, inner.recall

    def advance(memory: Arrays, updates: Updates, start: Arrays) -> dict[str, np.ndarray]:
        return {
            f"{modality}|{name}": array
            for modality in sorted({u.modality for u in updates.values()})
            for name, array in step(
                _memory(modality, memory), _of(modality, updates), start
            ).items()
        }

    def remember(memory: Arrays) -> Strategy:
        modalities = sorted({name.partition("|")[0] for name in memory})
        inside = {modality: recall(_memory(modality, memory)) for modality in modalities}

        def models(updates: Updates) -> dict[str, dict[str, np.ndarray]]:
            return {
                modality: model
                for modality in sorted({u.modality for u in updates.values()})
                for model in inside[modality].models(_of(modality, updates)).values()
            }

        def download(client: str, updates: Updates) -> Download:
            modality = updates[client].modality
            return inside[modality].download(client, _of(modality, updates))

        return replace(outer, models=models, download=download)

    return replace(outer, advance=advance, recall=remember)


def _memory(modality: str, memory: Arrays) -> dict[str, np.ndarray]:
    start = f"{modality}|"
    return {n.removeprefix(start): memory[n] for n in memory if n.startswith(start)}


def _of(modality: str, updates: Updates) -> Updates:
    return {client: u for client, u in updates.items() if u.modality == modality}

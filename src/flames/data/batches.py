"""Training batches: which slices come next, read from the memory map and augmented."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from flames.data.augment import AUGMENTATIONS, augment
from flames.data.slices import Slices


def draw_rows(
    tables: Sequence[Slices], *, tumour_fraction: float, generator: np.random.Generator
) -> Iterator[tuple[int, int]]:
    """Yield ``(table, row)`` for ever: every case once in a random order, then again.

    Of a volume that has slices with and without tumour, one with tumour is drawn with probability
    ``tumour_fraction``; within a kind all slices are alike.
    """
    cases = [(number, case) for number, table in enumerate(tables) for case in table.rows_by_case]
    while True:
        for index in generator.permutation(len(cases)):
            number, case_id = cases[index]
            table = tables[number]
            rows = table.rows_by_case[case_id]
            shown = table.with_tumour[rows]
            if shown.any() and not shown.all():
                rows = rows[shown == (generator.random() < tumour_fraction)]
            yield number, int(rows[generator.integers(len(rows))])


def training_batches(
    tables: Sequence[Slices],
    *,
    modality: str,
    batch_size: int,
    tumour_fraction: float,
    augmented: bool,
    seed: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images ``(B, 1, S, S)`` in [-1, 1] and soft labels in [0, 1] for ever.

    Equal seeds give equal batches, whatever was drawn before.
    """
    rows = draw_rows(tables, tumour_fraction=tumour_fraction, generator=np.random.default_rng(seed))
    generator = torch.Generator().manual_seed(seed)
    while True:
        drawn = [next(rows) for _ in range(batch_size)]
        images = np.stack([tables[t].images[r] for t, r in drawn]).astype(np.float32)
        labels = np.stack([tables[t].labels[r] for t, r in drawn]).astype(np.float32) / 255
        batch = torch.from_numpy(images)[:, None], torch.from_numpy(labels)[:, None]
        yield augment(*batch, AUGMENTATIONS[modality], generator) if augmented else batch

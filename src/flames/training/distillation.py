"""Teachers and a student: batches that carry what the teacher says of each image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from flames.data.batches import training_batches
from flames.data.slices import Slices
from flames.inference.predict import predict_squares
from flames.models.precision import Precision
from flames.models.student import Told, with_modality


@dataclass(frozen=True)
class Lesson:
    """One modality: its teacher, and the images that the server has of it."""

    modality: str
    teacher: nn.Module | None
    """None where the labels alone teach."""
    tables: Sequence[Slices]
    """Their labels are part of the targets, and decide which slices are drawn."""


def teaching_batches(
    lessons: Sequence[Lesson],
    student: nn.Module,
    *,
    batch_size: int,
    tumour_fraction: float,
    precision: Precision,
    seed: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images and targets ``(B, 2, S, S)``, label and teacher's logits, for ever.

    The modalities take turns, a batch each. A teacher is in evaluation mode and sees the very image
    that the student sees, augmentation included; it never sees another modality. Where there is no
    teacher its logits are 0. A student that is told the modality gets it as channels of the image.
    """
    streams = {
        lesson.modality: training_batches(
            lesson.tables,
            modality=lesson.modality,
            batch_size=batch_size,
            tumour_fraction=tumour_fraction,
            augmented=True,
            seed=seed + number,
        )
        for number, lesson in enumerate(lessons)
    }
    while True:
        for lesson in lessons:
            images, labels = next(streams[lesson.modality])
            said = _said(lesson.teacher, images, precision)
            told = isinstance(student, Told)
            yield (
                with_modality(images, lesson.modality) if told else images,
                torch.cat([labels, said], dim=1),
            )


def _said(teacher: nn.Module | None, images: Tensor, precision: Precision) -> Tensor:
    """Return a teacher's logits of images, zeros for none."""
    if teacher is None:
        return torch.zeros_like(images)
    teacher.eval()
    with torch.inference_mode(), precision.autocast():
        said = teacher(precision.move(images)).float().cpu()
    return said.clone()


def as_the_teacher_sees(
    table: Slices, teacher: nn.Module, *, precision: Precision, batch_size: int
) -> Slices:
    """Return the slices with what the teacher marks in place of the label."""
    marked = np.zeros(table.images.shape, np.uint8)
    for start in range(0, len(table), batch_size):
        part = slice(start, start + batch_size)
        probs = predict_squares(
            teacher, table.images[part], precision=precision, batch_size=batch_size
        )
        marked[part] = (probs.numpy() > 0.5) * np.uint8(255)
    return Slices(table.images, marked, table.case_ids)

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, kl_divergence

from flames.data.slices import Slices
from flames.losses import bernoulli_divergence, dice_bce, distillation
from flames.models.precision import choose_precision
from flames.models.student import Told
from flames.training.distillation import Lesson, as_the_teacher_sees, teaching_batches

FLOAT32 = choose_precision("float32")


def logits(seed, shape=(2, 1, 5, 6)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 3


def test_the_divergence_is_torchs():
    one, other = logits(1), logits(2)
    known = kl_divergence(Bernoulli(logits=one), Bernoulli(logits=other))
    torch.testing.assert_close(bernoulli_divergence(one, other), known, rtol=1e-4, atol=1e-5)


def test_the_loss_is_the_formula_and_is_not_zero_for_one_channel():
    student, teacher = logits(1), logits(2)
    label = (logits(3) > 0).float()
    loss = distillation(dice_bce, share=0.3, temperature=2.0)
    known = kl_divergence(Bernoulli(logits=teacher / 2), Bernoulli(logits=student / 2)).mean()
    wanted = 0.7 * dice_bce(student, label) + 0.3 * 4 * known
    found = loss(student, torch.cat([label, teacher], 1))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert float(known) > 0.1


def test_limits_of_the_teachers_part():
    student, label, teacher = logits(1), (logits(3) > 0).float(), logits(2)
    target = torch.cat([label, teacher], 1)
    none = distillation(dice_bce, share=0.0, temperature=2.0)
    torch.testing.assert_close(none(student, target), dice_bce(student, label))
    alone = distillation(dice_bce, share=1.0, temperature=2.0)
    blind = torch.cat([torch.full_like(label, float("nan")), student], 1)
    assert float(alone(student, blind)) == pytest.approx(0, abs=1e-5)


class Constant(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value, self.modes = value, []

    def forward(self, image):
        self.modes.append(self.training)
        return image[:, :1] * 0 + self.value


def table(level):
    labels = np.zeros((3, 8, 8), np.uint8)
    return Slices(np.full((3, 8, 8), level, np.float16), labels, ("a", "b", "c"))


def lessons():
    return [
        Lesson("MR", Constant(1.0), [table(0.25)]),
        Lesson("US", Constant(-2.0), [table(-0.25)]),
    ]


def taught(student, count=4):
    batches = teaching_batches(
        lessons(), student, batch_size=2, tumour_fraction=0.5, precision=FLOAT32, seed=1
    )
    return [next(batches) for _ in range(count)]


def test_every_image_is_taught_by_its_own_modality_in_turn():
    for number, (images, targets) in enumerate(taught(Constant(0.0))):
        assert images.shape == (2, 1, 8, 8)
        assert targets.shape == (2, 2, 8, 8)
        assert (targets[:, 1] == (1.0 if number % 2 == 0 else -2.0)).all()


def test_teachers_are_in_evaluation_mode():
    mine = lessons()
    batches = teaching_batches(
        mine, Constant(0.0), batch_size=2, tumour_fraction=0.5, precision=FLOAT32, seed=1
    )
    for _ in range(2):
        mine[0].teacher.train()
        next(batches)
    assert mine[0].teacher.modes == [False]


def test_a_student_is_told_the_modality_as_channels():
    images, _ = taught(Told(Constant(0.0)))[0]
    assert images.shape == (2, 4, 8, 8)
    assert images[:, 1:].mean(dim=(0, 2, 3)).tolist() == [0, 1, 0]  # US, MR, CT


def test_marks_of_the_teacher_take_the_labels_place():
    marked = as_the_teacher_sees(table(0.0), Constant(3.0), precision=FLOAT32, batch_size=2)
    assert (marked.labels == 255).all()
    assert marked.case_ids == ("a", "b", "c")

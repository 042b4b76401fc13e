"""Adam's moments as they are handed on: what can be, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from flames.config import ModelConfig, TrainingConfig
from flames.errors import FlamesError
from flames.models import MODELS, make_model
from flames.models.weights import model_arrays, moment_arrays, set_moment_arrays
from flames.moments import FIRST, SECOND, STEPS, check_moments, most_ratio
from flames.strategies.movement import part_of
from flames.training.loop import make_optimizer

WEIGHTS = {"w": np.zeros(2, np.float32)}


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.InstanceNorm2d(2, affine=True), nn.Conv2d(2, 1, 1))


def train(model, optimizer, seeds):
    for seed in seeds:
        optimizer.zero_grad()
        images = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
        model(images).square().mean().backward()
        optimizer.step()


def moments(first=(0.1, -0.2), second=(0.1, 0.1), steps=3.0):
    return {
        f"{FIRST}w": np.array(first, np.float32),
        f"{SECOND}w": np.array(second, np.float32),
        STEPS: np.asarray(steps, np.float32),
    }


def test_an_optimiser_that_goes_on_elsewhere_is_one_optimiser():
    alone, here, there = network(), network(), network()
    one, other = make_optimizer(alone, TrainingConfig()), make_optimizer(here, TrainingConfig())
    train(alone, one, range(6))
    train(here, other, range(3))
    there.load_state_dict(here.state_dict())
    third = make_optimizer(there, TrainingConfig())
    set_moment_arrays(there, third, moment_arrays(here, other))
    train(there, third, range(3, 6))
    for mine, theirs in zip(alone.parameters(), there.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert float(moment_arrays(there, third)[STEPS]) == 6


def test_weights_without_a_gradient_have_moments_of_zero():
    model = network()
    optimizer = make_optimizer(model, TrainingConfig())
    model[2].weight.requires_grad_(False)
    train(model, optimizer, range(2))
    found = moment_arrays(model, optimizer)
    assert not found[f"{SECOND}2.weight"].any()
    assert found[f"{SECOND}0.weight"].any()
    check_moments(found, model_arrays(model), "a")


@pytest.mark.parametrize("name", sorted(MODELS))
def test_the_server_knows_which_arrays_of_a_network_are_weights(name):
    model = make_model(ModelConfig(name=name))
    arrays = model_arrays(model)
    weights = {n for n, a in arrays.items() if part_of(n) == "weights" and a.dtype.kind == "f"}
    assert weights == set(dict(model.named_parameters()))


@settings(deadline=None)
@given(
    st.lists(
        st.floats(-8192, 8192, width=32) | st.floats(-(2.0**-60), 2.0**-60, width=32),
        min_size=1,
        max_size=60,
    )
)
def test_whatever_gradients_an_optimiser_has_seen_are_believed(gradients):
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([weight])
    for gradient in gradients:
        weight.grad = torch.tensor([gradient])
        optimizer.step()
    state = optimizer.state[weight]
    found = {
        f"{FIRST}w": state["exp_avg"].numpy(),
        f"{SECOND}w": state["exp_avg_sq"].numpy(),
        STEPS: np.asarray(len(gradients), np.float32),
    }
    check_moments(found, {"w": np.zeros(1, np.float32)}, "a")


def test_the_bound_is_reached_by_gradients_that_grow_as_they_may():
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([weight])
    for step in range(200):
        weight.grad = torch.tensor([1e-8 * (0.999 / 0.9) ** step])
        optimizer.step()
    state = optimizer.state[weight]
    ratio = float(state["exp_avg"] / state["exp_avg_sq"].sqrt())
    assert 0.999 * most_ratio() < ratio <= most_ratio() * 1.001


def test_second_moments_of_gradients_longer_than_clipped_ones_are_refused():
    model = network()
    optimizer = make_optimizer(model, TrainingConfig())
    for step in range(2000):
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, 1e3 + step)
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
    found, like = moment_arrays(model, optimizer), model_arrays(model)
    check_moments(found, like, "us-a", longest=5.0)
    with pytest.raises(FlamesError, match=r"longer than 4\.5"):
        check_moments(found, like, "us-a", longest=4.5)


WRONG = {
    "a weight lacks": ({"x": np.zeros(1, np.float32), **WEIGHTS}, moments()),
    "a name too many": (WEIGHTS, moments() | {f"{FIRST}x": np.zeros(1, np.float32)}),
    "another shape": (WEIGHTS, moments(first=(0.1,))),
    "another type": (WEIGHTS, moments() | {f"{SECOND}w": np.ones(2)}),
    "no number": (WEIGHTS, moments(first=(np.nan, 0.0))),
    "no end": (WEIGHTS, moments(second=(np.inf, 0.1))),
    "a square below zero": (WEIGHTS, moments(second=(-0.1, 0.1))),
    "a first too large for its second": (WEIGHTS, moments(first=(3.0, 0.0))),
    "a first without a second": (WEIGHTS, moments(first=(0.1, 0.0), second=(0.0, 0.0))),
    "no steps": (WEIGHTS, moments(steps=0.0)),
    "endless steps": (WEIGHTS, moments(steps=np.inf)),
    "steps that are many": (WEIGHTS, moments() | {STEPS: np.ones(2, np.float32)}),
}


@pytest.mark.parametrize("name", WRONG)
def test_moments_that_cannot_be_are_refused(name):
    like, arrays = WRONG[name]
    check_moments(moments(), WEIGHTS, "us-a")
    with pytest.raises(FlamesError, match="us-a"):
        check_moments(arrays, like, "us-a")

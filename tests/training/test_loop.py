from __future__ import annotations

import copy
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from flames.config import TrainingConfig
from flames.errors import FlamesError
from flames.models.precision import choose_precision
from flames.models.weights import (
    load_arrays,
    model_arrays,
    optimizer_arrays,
    save_arrays,
    set_optimizer_arrays,
)
from flames.training.loop import learning_rate, make_optimizer, train

FLOAT32 = choose_precision("float32")
CONFIG = TrainingConfig(learning_rate=0.01, warmup=0.1)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 1, 1)
    )


def batches(start=0):
    step = start
    while True:
        generator = torch.Generator().manual_seed(step)
        images = torch.rand(2, 1, 8, 8, generator=generator) * 2 - 1
        yield images, (images > 0.3).float()
        step += 1


def go(model, optimizer, steps, total=6, *, config=CONFIG, data=None, progress=None):
    return train(
        model,
        optimizer,
        data if data is not None else batches(steps.start),
        config=config,
        precision=FLOAT32,
        steps=steps,
        total_steps=total,
        progress=progress,
    )


def test_the_rate_rises_then_falls_over_the_whole_run():
    rates = [learning_rate(step, 100, CONFIG) for step in range(100)]
    assert rates[0] == pytest.approx(0.001)
    assert rates[9] == pytest.approx(0.01)
    assert all(a < b for a, b in pairwise(rates[:10]))
    assert all(a > b for a, b in pairwise(rates[10:]))
    # halfway down the cosine: 0.01·(0.01 + 0.99/2)
    assert learning_rate(55, 100, CONFIG) == pytest.approx(0.00505)
    assert rates[-1] == pytest.approx(0.0001, rel=0.1)


def test_the_published_recipe_keeps_its_rate():
    config = TrainingConfig(optimizer="adam", learning_rate=0.02)
    assert {learning_rate(step, 10, config) for step in range(10)} == {0.02}


def test_the_rate_of_a_step_is_that_of_the_run_not_of_the_round():
    model = network()
    optimizer = make_optimizer(model, CONFIG)
    go(model, optimizer, range(40, 42), 100)
    assert optimizer.param_groups[0]["lr"] == learning_rate(41, 100, CONFIG)


def test_decay_is_on_matrices_only():
    groups = make_optimizer(network(), TrainingConfig(weight_decay=0.3)).param_groups
    decay = {p.dim(): group["weight_decay"] for group in groups for p in group["params"]}
    assert decay == {4: 0.3, 1: 0.0}


def test_training_lowers_the_loss_and_is_in_training_mode():
    model = network().eval()
    before = model[1].running_mean.clone()
    optimizer = make_optimizer(model, CONFIG)
    first = go(model, optimizer, range(5), 60).loss
    last = go(model, optimizer, range(5, 60), 60).loss
    assert last < 0.9 * first
    assert model.training
    assert not torch.equal(model[1].running_mean, before)


def test_gradients_are_clipped():
    model = network()
    config = CONFIG.model_copy(update={"max_grad_norm": 1e-3})
    go(model, make_optimizer(model, config), range(1), config=config)
    norm = math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters()))
    assert norm == pytest.approx(1e-3, rel=1e-3)


def test_a_loss_that_is_not_finite_stops_before_it_spoils_weights():
    model = network()
    before = copy.deepcopy(model.state_dict())
    bad = iter([(torch.full((2, 1, 8, 8), math.nan), torch.zeros(2, 1, 8, 8))])
    with pytest.raises(FlamesError, match="loss became nan at optimiser step 4"):
        go(model, make_optimizer(model, CONFIG), range(3, 6), data=bad)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name])


def test_weights_taken_out_do_not_follow_the_network():
    model = network()
    optimizer = make_optimizer(model, CONFIG)
    go(model, optimizer, range(2))
    taken = model_arrays(model)
    known = {name: array.tobytes() for name, array in taken.items()}
    go(model, optimizer, range(2, 6))
    assert {name: array.tobytes() for name, array in taken.items()} == known
    assert any((taken[name] != array).any() for name, array in model_arrays(model).items())


@pytest.mark.parametrize("kind", ["adamw", "adam"])
def test_a_saved_optimiser_continues_bit_for_bit(tmp_path, kind):
    config = CONFIG.model_copy(update={"optimizer": kind})
    whole = network()
    go(whole, make_optimizer(whole, config), range(6), config=config)

    first = network()
    optimizer = make_optimizer(first, config)
    go(first, optimizer, range(3), config=config)
    save_arrays(tmp_path / "optimizer", optimizer_arrays(optimizer))
    second = network()
    second.load_state_dict(first.state_dict())
    again = make_optimizer(second, config)
    set_optimizer_arrays(again, load_arrays(tmp_path / "optimizer"))
    go(second, again, range(3, 6), config=config)
    np.testing.assert_equal(model_arrays(second), model_arrays(whole))

    forgetful = network()
    forgetful.load_state_dict(first.state_dict())
    go(forgetful, make_optimizer(forgetful, config), range(3, 6), config=config)
    assert (model_arrays(forgetful)["0.weight"] != model_arrays(whole)["0.weight"]).any()


def test_every_step_is_told():
    model, told = network(), []
    result = go(
        model, make_optimizer(model, CONFIG), range(2, 5), progress=lambda *args: told.append(args)
    )
    assert [done for done, _ in told] == [1, 2, 3]
    assert result.loss == pytest.approx(np.mean([loss for _, loss in told]))
    assert 0 <= result.data_seconds <= result.seconds


def test_no_steps_change_nothing():
    model = network()
    before = model_arrays(model)
    assert math.isnan(go(model, make_optimizer(model, CONFIG), range(6, 6)).loss)
    np.testing.assert_equal(model_arrays(model), before)


def test_gradients_that_are_not_numbers_stop_before_they_reach_the_weights():
    model = network()
    before = copy.deepcopy(model.state_dict())
    next(model.parameters()).register_hook(lambda gradient: gradient * math.nan)
    with pytest.raises(FlamesError, match=r"gradients became nan at optimiser step 1 .loss"):
        go(model, make_optimizer(model, CONFIG), range(3))
    weights = dict(model.named_parameters())
    assert all(torch.equal(weights[name], before[name]) for name in weights)

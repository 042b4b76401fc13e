"""What a strategy's rule adds to the loop: parity with torch and limiting cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.optim import SGD

from flames.config import TrainingConfig
from flames.losses import LOSSES
from flames.models.precision import choose_precision
from flames.models.weights import model_arrays
from flames.strategies.rules import LocalRule
from flames.training.local import ControlVariates, Mixture, Stretch, joined, proximal, train_shared
from flames.training.loop import TrainResult, make_optimizer
from flames.training.second import keep_second, train_second

FLOAT32 = choose_precision("float32")
CONFIG = TrainingConfig(learning_rate=0.05, optimizer="adam", weight_decay=0.0, max_grad_norm=1e6)


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 1, 1))


def batches(start=0):
    step = start
    while True:
        generator = torch.Generator().manual_seed(step)
        images = torch.rand(2, 1, 6, 6, generator=generator) * 2 - 1
        yield images, (images > 0.3).float()
        step += 1


def stretch(steps=4, told=None):
    return Stretch(range(steps), steps, CONFIG, FLOAT32, told)


def go(rule, model=None, optimizer=None, steps=4, **given):
    model = model or network()
    received = model_arrays(network())
    optimizer = optimizer or make_optimizer(model, CONFIG)
    train_shared(model, optimizer, batches(), stretch(steps), rule=rule, received=received, **given)
    return model_arrays(model)


def distance(arrays):
    start = model_arrays(network())
    return float(np.sqrt(sum(((arrays[n] - start[n]) ** 2).sum() for n in start)))


def test_a_spring_of_strength_zero_is_no_spring():
    plain, sprung = go(LocalRule()), go(LocalRule(proximal_mu=0.0))
    assert {n: a.tobytes() for n, a in plain.items()} == {n: a.tobytes() for n, a in sprung.items()}


def test_a_stronger_spring_holds_nearer():
    reach = []
    for mu in (0.0, 1.0, 10.0):
        model = network()
        sgd = SGD(model.parameters(), 0.05)
        reach.append(distance(go(LocalRule(proximal_mu=mu), model, sgd, steps=12)))
    assert reach[0] > reach[1] > reach[2]


def test_the_spring_is_the_formula_and_torch_agrees_on_its_gradient():
    model, fixed = network(1), model_arrays(network())
    penalty = proximal(fixed, 0.6, model)(model)
    penalty.backward()
    apart = {n: p.detach().numpy() - fixed[n] for n, p in model.named_parameters()}
    assert float(penalty.detach()) == pytest.approx(
        0.3 * sum((a**2).sum() for a in apart.values()), rel=1e-5
    )
    for name, parameter in model.named_parameters():
        np.testing.assert_allclose(parameter.grad.numpy(), 0.6 * apart[name], rtol=1e-5, atol=1e-7)


def test_controls_of_zero_correct_nothing():
    model = network()
    plain, corrected = (
        go(LocalRule()),
        go(LocalRule(corrects=True), model=model, correct=ControlVariates(model, {}, {})),
    )
    np.testing.assert_equal(plain, corrected)


def test_new_controls_are_option_two_under_plain_gradient_descent():
    rng = np.random.default_rng(3)
    start = model_arrays(network())
    own, server = (
        {n: rng.normal(0, 0.1, a.shape).astype(np.float32) for n, a in start.items()}
        for _ in range(2)
    )
    model, steps, rate = network(), 5, 0.05
    correct = ControlVariates(model, own, server)
    end = go(LocalRule(corrects=True), model, SGD(model.parameters(), rate), steps, correct=correct)
    for name, found in correct.arrays().items():
        option_two = own[name] - server[name] + (start[name] - end[name]) / (steps * rate)
        np.testing.assert_allclose(found, option_two, atol=2e-5)


def test_controls_shift_every_gradient():
    model = network()
    correct = ControlVariates(
        model,
        {n: np.full(p.shape, 1.0, np.float32) for n, p in model.named_parameters()},
        {n: np.full(p.shape, 3.0, np.float32) for n, p in model.named_parameters()},
    )
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 0.5)
    correct(model)
    assert all(torch.equal(p.grad, torch.full_like(p, 2.5)) for p in model.parameters())
    assert all((a == 0.5).all() for a in correct.arrays().values())


class Parts(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.head = nn.Conv2d(1, 3, 3, padding=1), nn.Conv2d(3, 1, 1)

    def forward(self, image):
        return self.head(torch.relu(self.stem(image)))


def test_the_decoder_is_trained_first_then_the_encoder():
    torch.manual_seed(0)
    model = Parts()
    start = model_arrays(model)
    optimizer = make_optimizer(model, CONFIG)
    seen = []

    def keep(done, loss):
        now = model_arrays(model)
        seen.append((done, {n for n in start if (now[n] != start[n]).any()}))

    result = train_shared(
        model, optimizer, batches(), stretch(5, keep), rule=LocalRule(decoder_first=True),
        received=start,
    )  # fmt: skip
    assert [done for done, _ in seen] == [1, 2, 3, 4, 5]
    assert seen[2][1] == {"head.weight", "head.bias"}
    head = model.head.weight.detach().clone()
    assert seen[4][1] == set(start)
    assert all(p.requires_grad for p in model.parameters())
    first = Parts()
    torch.manual_seed(0)
    first = Parts()
    train_shared(
        first, make_optimizer(first, CONFIG), batches(), Stretch(range(3), 5, CONFIG, FLOAT32),
        rule=LocalRule(decoder_first=True), received=start,
    )  # fmt: skip
    assert not torch.equal(first.head.weight, head) or len(seen) == 5
    assert np.isfinite(result.loss)


def test_halves_cover_all_steps_and_join_by_their_number():
    one, other = stretch(5).halves()
    assert [*one.steps, *other.steps] == list(range(5))
    assert (len(one.steps), len(other.steps)) == (3, 2)
    result = joined(TrainResult(1.0, 2, 1), TrainResult(6.0, 3, 1), stretch(5))
    assert (result.loss, result.seconds, result.data_seconds) == (3.0, 5, 2)
    alone = joined(TrainResult(1.0, 2, 1), TrainResult(float("nan"), 0, 0), stretch(1))
    assert alone.loss == 1.0


def test_rounds_of_a_single_step_train_both_halves_in_turn():
    rounds = [Stretch(range(n, n + 1), 4, CONFIG, FLOAT32) for n in range(4)]
    lengths = [tuple(len(half.steps) for half in one.halves()) for one in rounds]
    assert lengths == [(1, 0), (0, 1), (1, 0), (0, 1)]


def second(rule, tmp_path, *, shared=None, steps=4, before=None):
    received = model_arrays(network())
    _, arrays = train_second(
        network(), batches(), stretch(steps), rule=rule, received=received,
        shared=shared or received, before=before or tmp_path / "none", place=tmp_path / "now",
    )  # fmt: skip
    return arrays


def test_ditto_without_a_spring_is_training_alone(tmp_path):
    alone = go(LocalRule())
    np.testing.assert_equal(second(LocalRule(second="ditto"), tmp_path), alone)
    reach = [
        distance(second(LocalRule(second="ditto", second_strength=s), tmp_path, steps=15))
        for s in (0.0, 100.0)
    ]
    assert reach[0] > 1.5 * reach[1]


def test_apfl_at_a_share_of_one_is_training_alone(tmp_path, monkeypatch):
    shared = model_arrays(network(9))
    monkeypatch.setattr(Mixture, "forward", fixed_share(Mixture.forward, 1.0))
    found = second(LocalRule(second="apfl", second_strength=1.0), tmp_path, shared=shared)
    alone = go(LocalRule())
    for name, array in alone.items():
        np.testing.assert_allclose(found[name], array, atol=1e-6)


def fixed_share(real, share):
    def forward(self, image):
        self.alpha.requires_grad_(False).fill_(share)
        return real(self, image)

    return forward


def test_apfl_at_a_share_of_zero_ends_with_the_common_model(tmp_path, monkeypatch):
    shared = model_arrays(network(9))
    monkeypatch.setattr(Mixture, "forward", fixed_share(Mixture.forward, 0.0))
    found = second(LocalRule(second="apfl", second_strength=0.0), tmp_path, shared=shared)
    for name, array in shared.items():
        np.testing.assert_allclose(found[name], array, atol=1e-6)


def test_apfl_gradients_are_those_of_its_paper():
    own, shared, alpha = model_arrays(network(1)), model_arrays(network(2)), 0.3
    mixture = Mixture(network(), own=own, shared=shared, alpha=alpha)
    images, labels = next(batches())
    functional.binary_cross_entropy_with_logits(mixture(images), labels).backward()

    plain = network()
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            mixed = alpha * own[name] + (1 - alpha) * shared[name]
            parameter.copy_(torch.from_numpy(mixed))
    functional.binary_cross_entropy_with_logits(plain(images), labels).backward()
    share = 0.0
    for found, (name, parameter) in zip(mixture.own, plain.named_parameters(), strict=True):
        gradient = parameter.grad.numpy()
        np.testing.assert_allclose(found.grad.numpy(), alpha * gradient, atol=1e-6)
        share += float(((own[name] - shared[name]) * gradient).sum())
    assert float(mixture.alpha.grad) == pytest.approx(share, rel=1e-4)


def test_a_share_outside_its_range_is_brought_back():
    arrays = model_arrays(network())
    mixture = Mixture(network(), own=arrays, shared=arrays, alpha=1.4)
    mixture(next(batches())[0])
    assert float(mixture.alpha.detach()) == 1.0
    assert float(mixture.own_arrays()["alpha"]) == 1.0


@pytest.mark.parametrize("kind", ["ditto", "apfl"])
def test_a_second_model_goes_on_from_where_it_was(kind, tmp_path):
    rule = LocalRule(second=kind, second_strength=0.2)
    first = second(rule, tmp_path / "a")
    again = second(rule, tmp_path / "b", before=tmp_path / "a" / "now")
    assert any((first[n] != again[n]).any() for n in first)
    (tmp_path / "c").mkdir()
    keep_second(tmp_path / "a" / "now", tmp_path / "c", trained=False)
    for path in (tmp_path / "a" / "now").iterdir():
        assert (tmp_path / "c" / path.name).read_bytes() == path.read_bytes()


def test_the_loss_that_is_told_is_without_the_spring():
    told = []
    model = network(1)
    stretch(1, lambda _, loss: told.append(loss)).run(
        model, make_optimizer(model, CONFIG), batches(),
        penalty=proximal(model_arrays(network()), 1e4, model),
    )  # fmt: skip
    images, labels = next(batches())
    assert told[0] == pytest.approx(
        float(LOSSES["dice-bce"](network(1)(images), labels).detach()), rel=1e-5
    )

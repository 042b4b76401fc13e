"""The strategies to compare with: parity with their papers' formulas, and their limiting cases."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from flames.config import STRATEGY_NAMES, ModelConfig
from flames.models import MODELS, make_model
from flames.models.weights import model_arrays
from flames.strategies import FURTHER, STRATEGIES, Knobs, Update, by_modality, fedadam, fedavg
from flames.strategies.rules import decoder, norm_layers, split_controls, with_controls
from flames.strategies.scaffold import scaffold
from flames.strategies.uniform import uniform

START = {"w": np.array([1.0, -2.0], np.float32), "n.running_mean": np.array([0.5], np.float32)}


def update(client, values, cases, modality="US"):
    return Update(
        client,
        modality,
        {
            "w": np.array(values, np.float32),
            "n.running_mean": np.array([values[0] * 3], np.float32),
        },
        cases,
    )


ROUNDS = [
    {"a": update("a", [2.0, 0.0], 1), "b": update("b", [4.0, -3.0], 3)},
    {"a": update("a", [1.0, 1.0], 1), "b": update("b", [3.0, -1.0], 3)},
]


def test_every_configured_strategy_exists_and_no_other():
    assert set(STRATEGY_NAMES) == set(STRATEGIES)
    assert set(FURTHER) <= set(STRATEGIES)
    for name in FURTHER:
        assert STRATEGIES[name](None).name == name


def test_fedadam_by_hand():
    strategy, memory = fedadam(0.1, tau=0.5), {}
    x, m, v = START["w"].astype(float), np.zeros(2), np.full(2, 0.25)
    for updates in ROUNDS:
        mean = sum(u.num_examples * u.arrays["w"] for u in updates.values()) / 4
        move = mean - x
        m, v = 0.9 * m + 0.1 * move, 0.99 * v + 0.01 * move**2
        x = x + 0.1 * m / (np.sqrt(v) + 0.5)
        memory = strategy.advance(memory, updates, START)
        now = strategy.recall(memory)
        np.testing.assert_allclose(now.models(updates)["all"]["w"], x, rtol=1e-6)
        np.testing.assert_allclose(now.download("a", updates).arrays["w"], x, rtol=1e-6)
    # Statistics are averaged, not stepped: (1·3·1 + 3·3·3)/4
    assert now.models(updates)["all"]["n.running_mean"][0] == pytest.approx(7.5)


def test_fedadam_parity_with_torch_but_for_bias_correction():
    """Torch's Adam from the same moments, its bias correction switched off by a late step."""
    torch = pytest.importorskip("torch")
    parameter = torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    adam = torch.optim.Adam([parameter], lr=0.1, betas=(0.9, 0.99), eps=0.5)
    adam.state[parameter] = {
        "step": torch.tensor(1e6),
        "exp_avg": torch.zeros(2, dtype=torch.float64),
        "exp_avg_sq": torch.full((2,), 0.25, dtype=torch.float64),
    }
    strategy, memory = fedadam(0.1, tau=0.5), {}
    for updates in ROUNDS:
        mean = fedavg().models(updates)["all"]["w"].astype(float)
        parameter.grad = torch.from_numpy(parameter.detach().numpy() - mean)
        adam.step()
        memory = strategy.advance(memory, updates, START)
        found = strategy.recall(memory).models(updates)["all"]["w"]
        np.testing.assert_allclose(found, parameter.detach().numpy(), rtol=1e-5)


def test_uniform_counts_clients_and_not_their_cases():
    for updates in ROUNDS:
        mean = np.mean([u.arrays["w"] for u in updates.values()], axis=0)
        assert not np.allclose(mean, fedavg().models(updates)["all"]["w"])
        np.testing.assert_allclose(uniform().models(updates)["all"]["w"], mean)
        for client in updates:
            download = uniform().download(client, updates)
            np.testing.assert_allclose(download.arrays["w"], mean)
            assert (download.use, download.peers) == ("replace", 1)


def test_uniform_is_fedavg_where_clients_have_equally_many_cases():
    updates = {name: replace(one, num_examples=7) for name, one in ROUNDS[0].items()}
    for made in (lambda s: s.models(updates)["all"], lambda s: s.download("a", updates).arrays):
        np.testing.assert_equal(made(uniform()), made(fedavg()))


def test_fedadam_without_memory_of_movements_is_fedavg():
    strategy, memory = fedadam(1e6, tau=1e6, first_decay=0, second_decay=0), {}
    for updates in ROUNDS:
        memory = strategy.advance(memory, updates, START)
        found = strategy.recall(memory).models(updates)["all"]
        np.testing.assert_allclose(found["w"], fedavg().models(updates)["all"]["w"], rtol=1e-4)


def test_a_memory_is_kept_for_each_modality():
    both = ROUNDS[0] | {"c": update("c", [9.0, 9.0], 2, "MR")}
    outer, inner = by_modality(fedadam(0.1), "modality-fedadam"), fedadam(0.1)
    memory, us, mr = {}, {}, {}
    for _ in range(2):
        memory = outer.advance(memory, both, START)
        us = inner.advance(us, ROUNDS[0], START)
        mr = inner.advance(mr, {"c": both["c"]}, START)
    now = outer.recall(memory)
    assert set(now.models(both)) == {"US", "MR"}
    for modality, known, client in (("US", us, "a"), ("MR", mr, "c")):
        wanted = inner.recall(known).models(both)["all"]
        np.testing.assert_equal(now.models(both)[modality], wanted)
        np.testing.assert_equal(dict(now.download(client, both).arrays), wanted)


def test_scaffold_averages_controls_and_keeps_them_out_of_its_model():
    updates = {
        client: Update(
            client, "US", with_controls(one.arrays, {"w": np.full(2, value)}), one.num_examples
        )
        for (client, one), value in zip(ROUNDS[0].items(), (4.0, 8.0), strict=True)
    }
    model = scaffold().models(updates)["all"]
    np.testing.assert_equal(model, fedavg().models(ROUNDS[0])["all"])
    weights, controls = split_controls(scaffold().download("a", updates).arrays)
    np.testing.assert_equal(weights, model)
    np.testing.assert_allclose(controls["w"], (1 * 4 + 3 * 8) / 4)


@pytest.mark.parametrize("name", ["fedbn", "fedrep", "modality-fedbn", "modality-fedrep"])
def test_without_a_whole_model_the_server_has_none(name):
    strategy = STRATEGIES[name](None)
    assert strategy.models(ROUNDS[0]) == {}
    assert strategy.group_of("US") is None
    assert strategy.personal


@pytest.mark.parametrize("model", sorted(MODELS))
def test_parts_of_every_network_are_found(model):
    arrays = model_arrays(make_model(ModelConfig(name=model, pretrained=False)))
    late, norms = decoder(arrays), norm_layers(arrays)
    sizes = {name: array.size for name, array in arrays.items()}
    share = sum(sizes[n] for n in late) / sum(sizes.values())
    assert 0.1 < share < 0.6
    told = {n for n in arrays if n.endswith((".scales", ".shifts"))}  # a row for each modality
    assert told <= norms
    assert all(arrays[n].ndim <= 1 for n in norms - told)
    assert {n for n, a in arrays.items() if n.endswith("running_mean")} <= norms
    assert not any(n in norms - told for n, a in arrays.items() if a.ndim > 1)
    heads = [n for n in arrays if "output_block" in n or ".head." in n]
    assert heads
    assert set(heads) <= late
    assert not set(heads) & norms


def test_knobs_reach_their_strategy():
    knobs = Knobs(proximal_mu=0.7, ditto_lambda=0.3, server_rate=0.2)
    assert FURTHER["fedprox"](knobs).rule.proximal_mu == 0.7
    assert FURTHER["modality-ditto"](knobs).rule.second_strength == 0.3
    one, other = (FURTHER["fedadam"](k).advance({}, ROUNDS[0], START) for k in (knobs, Knobs()))
    assert (one["weights:w"] != other["weights:w"]).all()


def test_fedadam_remembers_what_it_knew_where_no_update_came():
    strategy = fedadam(0.1)
    assert strategy.advance({}, {}, {}) == {}
    memory = strategy.advance({}, ROUNDS[0], START)
    again = strategy.advance(memory, {}, {})
    assert again.keys() == memory.keys()
    assert all((again[name] == memory[name]).all() for name in memory)

"""Clients and server end with an earlier round only where it leads by more than chance."""

from __future__ import annotations

import numpy as np
import pytest

from flames.federation import client as client_module
from flames.federation.beginning import make_strategy
from flames.federation.budget import Member
from flames.federation.exchange import Reply, Task
from flames.federation.server import Server
from flames.inference.validation import Validation
from flames.models import make_model
from flames.models.weights import model_arrays
from flames.strategies import Download
from flames.strategies.mixture import CHANCE
from flames.strategies.personalised import ENOUGH


def make_server(make_config, folder, *, rounds=2, **strategy):
    config = make_config("us-a", rounds=rounds, strategy={"name": "flames", **strategy})
    return Server(
        [Member(name, "US", 1) for name in ("a", "b")],
        config=config,
        strategy=make_strategy(config),
        start=lambda _: {"w": np.zeros(1, np.float32), "head.weight": np.zeros(1, np.float32)},
        folder=folder,
    )


def play(server, score, value, *, cases=10, validation_cases=2):
    """Let both answer with one weight and one score of the group's model; close the round."""
    for name in ("a", "b"):
        use = server.task(name).download.use
        chosen, alpha = ("mixture", 0.5) if use == "mix" else ("own", None)
        scores = {"model": score}
        reply = Reply(
            name, "US", cases, scores, alpha, chosen, None, 1, 0.5, 0.1, {}, validation_cases
        )
        w = np.array([value], np.float32)
        server.accept(reply, {"w": w, "head.weight": w})
    server.close_round()


@pytest.mark.parametrize(("last", "kept"), [(0.46, 2.0), (0.44, 1.0)])
def test_the_server_ends_with_its_newest_model(make_config, tmp_path, last, kept):
    server = make_server(make_config, tmp_path / "server")
    play(server, 0.0, 1.0)
    play(server, 0.5, 2.0)  # of the model of the first round
    assert server.best_models()["US"]["w"] == [1.0]
    play(server, last, 3.0)  # of the model of the second; chance is 0.1 / √(2 + 2)
    assert server.best_models()["US"]["w"] == [kept]
    [*_, record] = [r for r in server.records() if r["kind"] == "server"]
    assert record["best"] == (last if kept == 2.0 else 0.5)


def test_before_the_last_round_the_server_keeps_the_best(make_config, tmp_path):
    server = make_server(make_config, tmp_path / "server", rounds=3)
    play(server, 0.0, 1.0)
    play(server, 0.5, 2.0)
    play(server, 0.49, 3.0)
    assert server.best_models()["US"]["w"] == [1.0]


@pytest.mark.parametrize("name", ["local", "ditto", "apfl"])
@pytest.mark.parametrize("lead", [0.9, 1.1])
def test_a_client_ends_with_its_newest_weights(make_config, make_client, monkeypatch, name, lead):
    config = make_config("us-a", strategy={"name": name})
    client = make_client(config)
    chance = CHANCE / client.cases.validation**0.5
    score = 0.5
    monkeypatch.setattr(client.cases, "judge", lambda *_: Validation(score, []))
    start = model_arrays(make_model(config.model))
    client.answer(Task(1, range(2), 4, Download(start, use="replace")))
    first = client.rounds.kept_weights()
    score = 0.5 - lead * chance
    use = "keep" if name == "local" else "replace"
    download = Download(start if use == "replace" else None, use=use)
    reply, _ = client.answer(Task(2, range(2, 4), 4, download))
    assert (reply.best, reply.best_round) == (0.5, 1)
    np.testing.assert_equal(client.rounds.kept_weights(), first)
    monkeypatch.setattr(client_module, "train_shared", None)
    reply, _ = client.answer(Task(3, range(4, 4), 4, download))
    newest = lead < 1
    assert reply.best_round == (3 if newest else 1)
    assert reply.best == pytest.approx(score if newest else 0.5, abs=1e-6)
    found = client.rounds.kept_weights()
    assert set(found) == set(first)
    assert all(np.array_equal(found[key], first[key]) for key in first) != newest


@pytest.mark.parametrize(("short", "kept"), [(2, [True, True]), (1, [False, True])])
def test_after_long_rounds_last_levels_are_ones_own_in_the_closing_pass_alone(
    make_config, tmp_path, short, kept
):
    server = make_server(make_config, tmp_path / "server", **{"short-round": short})
    found = []
    for number in (1, 2):
        play(server, 0.5, float(number), cases=ENOUGH)
        found.append(server.task("a").download.own_head)
    assert found == kept


@pytest.mark.parametrize(("score", "chosen"), [(0.9, "model"), (0.52, "own")])
def test_a_client_among_strangers_takes_their_model_only_where_it_clearly_leads(
    make_config, make_client, monkeypatch, score, chosen
):
    config = make_config("us-a", strategy={"name": "flames"})
    client = make_client(config)
    found = 0.5
    monkeypatch.setattr(client.cases, "judge", lambda *_: Validation(found, []))
    start = model_arrays(make_model(config.model))
    client.answer(Task(1, range(2), 4, Download(start, use="replace")))
    found = score
    alone = Download(None, use="keep", own_share=1.0, model=start)
    reply, _ = client.answer(Task(3, range(4, 4), 4, alone))
    assert reply.validation["model"] == score
    assert (reply.chosen, reply.best) == (chosen, score if chosen == "model" else 0.5)
    friends = Download(start, use="mix", peers=1, own_share=0.5, model=start)
    reply, _ = client.answer(Task(3, range(4, 4), 4, friends))
    assert reply.chosen == "model", "friends take whatever is best"


def test_before_the_closing_pass_a_client_among_strangers_keeps_nothing_of_theirs(
    make_config, make_client, monkeypatch
):
    client = make_client(make_config("us-a", strategy={"name": "flames"}))
    found = 0.5
    monkeypatch.setattr(client.cases, "judge", lambda *_: Validation(found, []))
    start = model_arrays(make_model(client.config.model))
    client.answer(Task(1, range(2), 4, Download(start, use="replace")))
    found = 0.9  # of the model, which is tried first, as of what it trains itself
    reply, trained = client.answer(Task(2, range(2, 4), 4, Download(None, "keep", model=start)))
    assert (reply.validation["model"], reply.best, reply.best_round) == (0.9, 0.9, 2)
    np.testing.assert_equal(client.rounds.kept_weights(), dict(trained))

"""Rounds too short to be judged each: what is skipped, and what stays as it was."""

from __future__ import annotations

import math

import numpy as np
import pytest

from flames.federation.beginning import make_strategy
from flames.federation.budget import Member, is_judged
from flames.federation.exchange import Reply, Task
from flames.federation.progress import sentence
from flames.federation.server import Server
from flames.federation.simulation import simulate
from flames.inference.predict import Validation
from flames.models import make_model
from flames.models.weights import model_arrays
from flames.strategies import Download

NAMES = ("a", "b", "c")
EVERY_THIRD = {"validation-steps": 6}  # of the tests' 2 a round


@pytest.mark.parametrize(
    ("rounds", "training", "expected"),
    [
        (12, {"local-steps": 3, "validation-steps": 10}, [1, 2, 3, 6, 9, 12, 13]),
        (11, {"local-steps": 3, "validation-steps": 10}, [1, 2, 3, 6, 9, 11, 12]),
        (8, {"local-steps": 5, "validation-steps": 10}, [1, 2, 3, 4, 6, 8, 9]),
        (6, {"local-steps": 6, "validation-steps": 10}, [1, 2, 3, 4, 5, 6, 7]),
        (6, {"local-steps": 30, "validation-steps": 10}, [1, 2, 3, 4, 5, 6, 7]),
        (6, {"local-steps": 1, "validation-steps": 1}, [1, 2, 3, 4, 5, 6, 7]),
    ],
)
def test_which_rounds_are_judged(make_config, rounds, training, expected):
    config = make_config("us-a", rounds=rounds, training=training)
    assert [n for n in range(1, rounds + 2) if is_judged(config, n)] == expected


@pytest.fixture
def make_server(make_config, tmp_path):
    def make(**strategy):
        config = make_config(
            "us-a", rounds=9, training=EVERY_THIRD, strategy={"name": "flames"} | strategy
        )
        return Server(
            [Member(name, "US", 1) for name in NAMES],
            config=config,
            strategy=make_strategy(config),
            start=lambda _: {"w": np.zeros(1, np.float32)},
            folder=tmp_path / "server",
        )

    return make


def play(server, only=NAMES, **scores):
    """Let everybody answer with the round's number as its weight; return the server's record."""
    for name in only:
        use = server.task(name).download.use
        chosen, alpha = ("mixture", 0.0) if use == "mix" else ("own", None)
        reply = Reply(name, "US", 10, scores, alpha, chosen, None, 1, 0.5, 0.1, {}, 2)
        server.accept(reply, {"w": np.array([server.finished + 1], np.float32)})
    return next((r for r in server.close_round() if r["kind"] == "server"), None)


def test_the_server_keeps_its_model_through_rounds_that_nobody_judges(make_server):
    server = make_server()
    play(server)
    for number, score in ((2, 0.3), (3, 0.4)):
        record = play(server, model=score)
        assert (record["validation"], record["best"]) == (score, score), number
    for number in (4, 5):
        assert server.task("b").download.model is None, "nobody would look at it"
        record = play(server)
        assert (record["validation"], record["best"]) == (None, 0.4), number
        assert server.best_models()["US"]["w"] == [2.0], "the model that the third round judged"
    assert server.task("b").download.model["w"] == [5.0]
    assert play(server, model=0.6)["best"] == 0.6
    assert server.best_models()["US"]["w"] == [5.0]


def test_those_who_tune_see_their_groups_model_in_every_round(make_server):
    server = make_server(sharing=0.34)
    for _ in range(3):
        play(server, model=0.5)
    assert server.task("b").download.model["w"] == [3.0]


def test_what_is_kept_of_others_begins_anew_though_nobody_judges(make_server, monkeypatch):
    server = make_server()
    for _ in range(3):
        play(server, model=0.5)
    voters = frozenset({"a", "b"})
    monkeypatch.setattr(server.strategy.__class__, "circle", lambda *_: sorted(voters))
    assert play(server)["best"] is None, "c has left, and what it judged does not count"
    assert server.best_models()["US"]["w"] == [3.0]


def test_a_round_that_none_of_the_models_clients_answers_has_no_score(make_server, monkeypatch):
    server = make_server()
    monkeypatch.setattr(server.strategy.__class__, "circle", lambda *_: ["a", "b"])
    for score in (0.5, 0.0):
        play(server, model=score)
    record = play(server, only="c", model=0.7)
    assert (record["validation"], record["best"]) == (None, 0.0)
    assert "validation –" in sentence(record)


@pytest.fixture
def client(make_client, make_config):
    return make_client(
        make_config("us-a", rounds=9, training=EVERY_THIRD, strategy={"name": "flames"})
    )


def test_a_client_judges_nothing_and_keeps_what_it_kept(client, monkeypatch):
    start = model_arrays(make_model(client.config.model))
    judged = []
    monkeypatch.setattr(
        client.cases, "judge", lambda *_: judged.append(1) or Validation(0.5 / len(judged), [])
    )
    client.answer(Task(3, range(2), 18, Download(start, use="replace")))
    assert len(judged) == 2, "what it received and what it trained"
    kept = client.rounds.kept_weights()
    handed = Download(start, use="mix", peers=2, own_share=0.0)
    for number in (4, 5):
        task = Task(number, range(2 * number, 2 * number + 2), 18, handed)
        reply, weights = client.answer(task)
        assert (reply.validation, reply.chosen) == ({}, "mixture")
        assert (reply.best, reply.best_round) == (0.5, 3)
        assert math.isfinite(reply.loss)
        np.testing.assert_equal(client.rounds.kept_weights(), kept)
    assert len(judged) == 2
    assert any(not np.array_equal(weights[name], kept[name]) for name in kept)
    reply, _ = client.answer(Task(6, range(12, 14), 18, handed))
    assert set(reply.validation) == {"own", "trained"}, "own weights had no score yet"
    assert len(judged) == 4, "the mixture is begun with whatever it scores"


@pytest.mark.parametrize(
    ("sharing", "use", "judged"),
    [
        (1.0, "mix", False),
        (0.4, "mix", True),
        (0.4, "keep", False),
        (0.45, "keep", True),  # the first round of its own: what it kept while it shared is over
    ],
)
def test_a_client_judges_where_it_must_choose(make_client, make_config, sharing, use, judged):
    strategy = {"name": "flames", "sharing": sharing}
    client = make_client(make_config("us-a", rounds=9, training=EVERY_THIRD, strategy=strategy))
    start = model_arrays(make_model(client.config.model))
    client.answer(Task(4, range(2), 18, Download(start, use="replace")))
    download = Download(start if use == "mix" else None, use=use, peers=2, own_share=0.5)
    reply, _ = client.answer(Task(5, range(2, 4), 18, download))
    assert bool(reply.validation) == judged


def test_a_second_model_without_a_score_gets_one_in_the_closing_pass(
    make_client, make_config, monkeypatch
):
    client = make_client(
        make_config("us-a", rounds=9, training=EVERY_THIRD, strategy={"name": "apfl"})
    )
    monkeypatch.setattr(client.cases, "judge", lambda *_: Validation(0.5, []))
    sent = Download(model_arrays(make_model(client.config.model)), use="replace")
    client.answer(Task(4, range(2), 18, sent))
    reply, _ = client.answer(Task(5, range(2, 4), 18, sent))
    assert reply.validation == {}
    reply, _ = client.answer(Task(10, range(18, 18), 18, sent))
    assert (reply.validation["second"], reply.best_round) == (0.5, 10)


def test_a_client_judges_its_first_round_whenever_it_comes(client):
    start = model_arrays(make_model(client.config.model))
    reply, _ = client.answer(Task(5, range(8, 10), 18, Download(start, use="replace")))
    assert set(reply.validation) == {"model", "trained"}


@pytest.mark.parametrize(
    "name", ["flames", "local", "modality", "apfl", "ditto", "scaffold", "paper", "central"]
)
def test_a_run_ends_alike_whatever_is_judged_on_its_way(make_config, tmp_path, name):
    def run(validation_steps):
        config = make_config(
            rounds=6,
            training={"local-steps": 1, "validation-steps": validation_steps},
            strategy={"name": name},
        )
        return simulate(config, tmp_path / f"{validation_steps}")

    each, some = run(1), run(2)
    rows = [
        [r for r in found.load_rounds() if r["kind"] == "site" and r["round"] == 6]
        for found in (each, some)
    ]
    assert [r["loss"] for r in rows[0]] == [r["loss"] for r in rows[1]], "they train alike"
    unjudged = [r for r in some.load_rounds() if r["kind"] == "site" and r["round"] == 5]
    assert unjudged
    assert all(r["validation"] == {} for r in unjudged)
    assert all(sentence(r) == sentence(r).rstrip() for r in unjudged)
    assert len(some.load_summary()["scores"]) == len(each.load_summary()["scores"])
    models = [r for r in some.load_rounds() if r["kind"] == "server"]
    if name not in ("paper", "local"):
        assert models[-1]["validation"] is not None, "the closing pass judges"
    assert not [r for r in models if r["round"] == 4 and r["validation"] is not None]

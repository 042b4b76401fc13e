from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from flames.errors import FlamesError
from flames.federation import client as client_module
from flames.federation.budget import Member
from flames.federation.client import Client
from flames.federation.exchange import Task, check_update, derive_seed
from flames.federation.server import Server
from flames.federation.simulation import make_strategy
from flames.inference.predict import Validation
from flames.models import make_model
from flames.models.weights import LazyArrays, model_arrays
from flames.strategies import Download
from flames.strategies.mixture import Candidate


@pytest.fixture
def client(make_config, make_client):
    return make_client(make_config("us-a"))


@pytest.fixture(scope="module")
def start(make_config):
    torch.manual_seed(0)
    return model_arrays(make_model(make_config("us-a").model))


def first_task(start):
    return Task(1, range(2), 4, Download(start, use="replace"))


def test_asked_twice_a_client_answers_what_it_did(client, start, monkeypatch):
    reply, weights = client.answer(first_task(start))
    assert any((weights[name] != start[name]).any() for name in start)
    monkeypatch.setattr(client_module, "train_shared", None)
    again, same = client.answer(first_task(start))
    assert again == reply
    np.testing.assert_equal(dict(same), dict(weights))


def test_asked_otherwise_a_client_trains_again(client, start):
    _, weights = client.answer(first_task(start))
    other = {name: array * np.float32(1.01) for name, array in start.items()}
    _, found = client.answer(first_task(other))
    assert any((weights[key] != found[key]).any() for key in start)


def test_a_client_that_is_killed_while_it_forgets_a_round_does_it_again(client, start, monkeypatch):
    client.answer(first_task(start))
    other = first_task({name: array * np.float32(1.01) for name, array in start.items()})

    def dies(folder, **_more):
        for path in sorted(folder.glob("reply.json")):
            path.unlink()
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", dies)
        with pytest.raises(KeyboardInterrupt):
            client.answer(other)
    reply, _ = client.answer(other)
    assert reply.chosen == "model"


def test_another_best_model_is_another_task(client, start, monkeypatch):
    client.answer(first_task(start))
    judged = []
    monkeypatch.setattr(client.cases, "judge", lambda *_: judged.append(1) or Validation(0.5, []))
    closing = Download(start, use="mix", peers=1, own_share=0.5, model=start, best=start)
    monkeypatch.setattr(client_module, "set_model_arrays", lambda *_: None)
    for best, again in ((start, True), (start, False), ({**start, "w": np.ones(1)}, True)):
        judged.clear()
        client.answer(Task(3, range(4, 4), 4, replace(closing, best=best)))
        assert bool(judged) == again


def test_a_client_that_fails_keeps_its_last_round(client, start, monkeypatch):
    _, weights = client.answer(first_task(start))
    real = client_module.model_arrays

    def full_disk(network):
        real(network)
        raise FlamesError("cannot write")

    monkeypatch.setattr(client_module, "model_arrays", full_disk)
    second = Task(2, range(2, 4), 4, Download(None, use="keep"))
    with pytest.raises(FlamesError):
        client.answer(second)
    monkeypatch.undo()
    reply, _ = client.answer(second)
    assert reply.chosen == "own"
    np.testing.assert_equal(dict(client.answer(first_task(start))[1]), dict(weights))


def test_only_the_last_two_rounds_are_kept(client, start):
    client.answer(first_task(start))
    for number in (2, 3):
        client.answer(Task(number, range(0), 4, Download(None, use="keep")))
    assert sorted(p.name for p in client.rounds.folder.iterdir()) == ["round-0002", "round-0003"]


def test_examples_are_training_cases(client, site_stores):
    assert client.num_examples == 4
    pooled = replace_stores(client, [site_stores["us-a"], site_stores["us-b"]])
    assert pooled.num_examples == 6


def replace_stores(client, stores):
    return Client(
        client.name,
        stores,
        config=client.config,
        strategy=client.strategy,
        precision=client.precision,
        folder=client.rounds.folder,
    )


def test_a_recipe_that_selects_nothing_keeps_what_it_was_sent(client, start):
    config = client.config.model_copy(
        update={"strategy": client.config.strategy.model_copy(update={"name": "paper"})}
    )
    client.strategy = make_strategy(config)
    _, weights = client.answer(first_task(start))
    sent = {name: np.zeros_like(array) for name, array in weights.items()}
    download = Download(sent, use="mix", alpha=0.25, peers=1, own_share=0.5)
    reply, _ = client.answer(Task(2, range(4, 4), 4, download))
    kept = client.rounds.kept_weights()
    for name, array in weights.items():
        np.testing.assert_allclose(kept[name], 0.25 * array, rtol=1e-6)
    assert (reply.chosen, reply.alpha) == ("mixture", 0.25)


def test_what_peers_sent_is_tried_alone_in_the_second_and_third_round(client, start):
    client.config = client.config.model_copy(update={"rounds": 5})
    client.answer(first_task(start))
    for server_round, tried in ((2, True), (3, True), (4, False)):
        download = Download(start, use="mix", peers=2, own_share=0.5)
        reply, _ = client.answer(Task(server_round, range(0), 4, download))
        assert ("peers" in reply.validation) == tried, server_round
        assert (reply.chosen, reply.alpha) == ("mixture", 0.5)
    single = Download(start, use="mix", peers=1, own_share=0.5)
    assert "peers" not in client.answer(Task(3, range(0), 4, single))[0].validation
    handed = Download(start, use="mix", peers=2, own_share=0.0)
    assert "peers" not in client.answer(Task(3, range(0), 4, handed))[0].validation


@pytest.mark.parametrize(("score", "kept"), [(0.9, "best"), (0.25, "model")])
def test_a_client_keeps_the_servers_best_model_where_it_leads_by_more_than_chance(
    client, start, monkeypatch, score, kept
):
    _, own = client.answer(first_task(start))
    own = dict(own)
    sent = {
        name: {key: array + step for key, array in own.items()}
        for name, step in (("arrays", 1), ("model", 2), ("best", 3))
    }
    scores = {"model": 0.2, "best": score}
    monkeypatch.setattr(client_module, "set_model_arrays", lambda _, a: judged.append(a))

    def judge(*_):
        step = next(float((judged[-1][key] - own[key]).ravel()[0]) for key in own)
        return Validation(scores["best"] if step > 2.5 else scores["model"], [])

    judged: list = []
    monkeypatch.setattr(client.cases, "judge", judge)
    download = Download(use="mix", peers=1, own_share=0.5, **sent)
    reply, _ = client.answer(Task(3, range(4, 4), 4, download))
    assert (reply.chosen, reply.best) == (kept, scores[kept])
    assert reply.validation["best"] == score
    np.testing.assert_equal(client.rounds.kept_weights(), sent[kept])


def test_batch_norm_statistics_stay_at_home(client, start, monkeypatch):
    tried = []
    monkeypatch.setattr(client_module, "set_model_arrays", lambda _, a: tried.append(a))
    monkeypatch.setattr(client_module, "load_arrays", lambda _: {"n.running_mean": np.ones(1)})
    monkeypatch.setattr(client.cases, "judge", lambda *_: Validation(0.5, []))
    before = client.rounds.folder / "round-0001"
    before.mkdir(parents=True)
    (before / "reply.json").write_text(
        '{"validation": {"trained": 0.1}, "curves": {}}', encoding="utf-8"
    )
    sent = Download({"n.running_mean": np.full(1, 9.0)}, use="mix", peers=1, own_share=0.6)
    task = Task(2, range(2, 4), 4, sent)
    client._try(None, sent, before, task=task, sharing=False, judged=True)
    assert [float(arrays["n.running_mean"][0]) for arrays in tried] == [1.0] * 4
    client.strategy = replace(client.strategy, keeps_statistics=False)
    tried.clear()
    client._try(None, sent, before, task=task, sharing=False, judged=True)
    assert float(tried[0]["n.running_mean"][0]) == pytest.approx(4.2)  # 0.6·1 + 0.4·9


def test_the_server_hears_of_its_model_with_the_statistics_that_it_keeps(
    client, start, monkeypatch
):
    judged = []
    monkeypatch.setattr(client_module, "set_model_arrays", lambda _, a: judged.append(a))
    monkeypatch.setattr(
        client.cases, "judge", lambda *_: Validation(float(judged[-1]["n.running_mean"][0]), [])
    )
    own = Candidate("model", {"n.running_mean": np.array([0.2])}, None, 0.2)
    download = Download(None, use="keep", model={"n.running_mean": np.array([0.7])})
    found = client._as_kept(None, [own, replace(own, name="own")], download)
    assert [(way.name, way.score) for way in found] == [("model", 0.7), ("own", 0.2)]
    same = Download(None, use="keep", model=own.arrays)
    judged.clear()
    assert client._as_kept(None, [own], same) == [own]
    assert not judged


LIKE = {"w": np.ones((2, 3), np.float32), "n.num_batches_tracked": np.array(1)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"w": np.full((2, 3), np.nan, np.float32)}, "NaN or infinity in 'w'"),
        ({"w": np.full((2, 3), -np.inf, np.float32)}, "NaN or infinity in 'w'"),
        ({"w": np.ones((3, 2), np.float32)}, r"'w' of site is float32\(3, 2\)"),
        ({"w": np.ones((2, 3))}, "float64"),
        ({"extra": np.ones(1)}, "differ in array 'extra'"),
        ({"control:w": LIKE["w"]}, "differ in array 'control:w'"),
    ],
)
def test_an_update_that_cannot_be_of_this_run_is_refused(change, words):
    with pytest.raises(FlamesError, match=words):
        check_update(LIKE | change, LIKE, "site")


def test_an_update_with_a_missing_array_is_refused():
    with pytest.raises(FlamesError, match=r"differ in array 'n\.num_batches_tracked'"):
        check_update({"w": LIKE["w"]}, LIKE, "site")


def test_where_control_variates_travel_each_weight_has_one():
    whole = LIKE | {"control:w": LIKE["w"] * 2}
    check_update(whole, LIKE, "site", corrects=True)
    for name in ("w", "control:w"):
        with pytest.raises(FlamesError, match=f"differ in array '{name}'"):
            check_update({n: a for n, a in whole.items() if n != name}, LIKE, "site", corrects=True)
    with pytest.raises(FlamesError, match="differ in array 'control:extra'"):
        check_update(whole | {"control:extra": LIKE["w"]}, LIKE, "site", corrects=True)


def test_a_good_update_passes():
    check_update({name: array * 2 for name, array in LIKE.items()}, LIKE, "site")


def test_seeds_depend_on_every_part():
    seeds = {derive_seed(*parts) for parts in [(1, "a", 2), (1, "a", 3), (2, "a", 2), (1, "b", 2)]}
    assert len(seeds) == 4
    assert derive_seed(1, "a", 2) == derive_seed(1, "a", 2)
    assert derive_seed("ab", "c") != derive_seed("a", "bc")


def server_of(make_config, tmp_path, **given):
    config = make_config("us-a", **given)
    return Server(
        [Member("us-a", "US", 1)],
        config=config,
        strategy=make_strategy(config),
        start=lambda _: {},
        folder=tmp_path / "server",
    )


@pytest.mark.parametrize("rounds", [1, 2, 4, 7])
@pytest.mark.parametrize("name", ["paper", "flames"])
def test_rounds_share_out_the_budget(make_config, tmp_path, name, rounds):
    server = server_of(
        make_config, tmp_path, rounds=rounds, training={"local-steps": 13}, strategy={"name": name}
    )
    ranges = [server.budget.steps("us-a", number) for number in range(1, rounds + 1)]
    assert [step for part in ranges for step in part] == list(range(13 * rounds))
    assert len(server.budget.steps("us-a", rounds + 1)) == 0
    if name == "paper" and rounds == 4:
        assert [len(part) for part in ranges] == [4, 40, 4, 4]


@pytest.mark.parametrize(
    ("name", "rounds", "steps", "first", "expected"),
    [
        ("flames", 22, 6, 10, {10: 2, 6: 12, 5: 8}),
        ("flames", 40, 3, 10, {10: 2, 3: 24, 2: 14}),
        ("flames", 40, 3, 1, {3: 40}),
        ("flames", 12, 10, 10, {10: 12}),
        ("flames", 3, 6, 10, {6: 3}),
        ("flames", 20, 1, 10, {1: 20}),
        ("modality", 40, 3, 10, {3: 40}),
    ],
)
def test_the_first_rounds_are_long_enough_to_tell_who_is_alike(
    make_config, tmp_path, name, rounds, steps, first, expected
):
    server = server_of(
        make_config, tmp_path, rounds=rounds, training={"local-steps": steps},
        strategy={"name": name, "first-steps": first},
    )  # fmt: skip
    lengths = [len(server.budget.steps("us-a", number)) for number in range(1, rounds + 1)]
    assert dict(Counter(lengths)) == expected
    assert sum(lengths) == rounds * steps
    assert lengths[0] == lengths[1] == max(lengths)


def test_the_server_reads_updates_one_array_at_a_time(finished, make_config):
    config = make_config()
    server = Server(
        [], config=config, strategy=make_strategy(config), start=lambda _: {},
        folder=finished.state / "server",
    )  # fmt: skip
    updates = server.before.updates()
    assert set(updates) == {"us-a", "us-b", "mr-a"}
    assert all(isinstance(one.arrays, LazyArrays) for one in updates.values())


@pytest.mark.parametrize("name", ["modality-ditto", "modality-apfl"])
def test_who_comes_in_the_closing_round_has_what_it_was_sent_as_second_model(
    make_client, make_config, start, name
):
    client = make_client(make_config("us-a", strategy={"name": name}))
    reply, _ = client.answer(Task(3, range(4, 4), 4, Download(start, use="replace")))
    np.testing.assert_equal(dict(client.rounds.kept_weights()), dict(start))
    assert (reply.best, reply.best_round) == (reply.validation["second"], 3)


def test_a_client_goes_on_with_the_moments_that_it_is_handed(make_config, make_client, start):
    """Its own come back to it: nothing changes; others do change what it learns."""
    client = make_client(make_config("us-a"))

    def second(**given):
        sent = Download(dict(weights), use="replace", **given)
        return client.answer(Task(2, range(2, 4), 4, sent))[1]

    _, weights = client.answer(first_task(start))
    assert not client.rounds.outgoing(1)[0].moments, "nobody asked for them"
    asked = Download(start, use="replace", wants_moments=True)
    _, weights = client.answer(Task(1, range(2), 4, asked))
    moments = client.rounds.outgoing(1)[0].moments
    assert float(moments["steps"]) == 2
    plain = second()
    np.testing.assert_equal(dict(second(moments=moments)), dict(plain))
    others = {name: array if name == "steps" else array * 0.5 for name, array in moments.items()}
    found = second(moments=others)
    assert any((plain[name] != found[name]).any() for name in start)
    with pytest.raises(FlamesError, match="differ in"):
        second(moments={"steps": moments["steps"]})
    slow = {n: array + np.float32(100) * n.startswith("second:") for n, array in moments.items()}
    with pytest.raises(FlamesError, match="gradients longer than 5"):
        second(moments=slow)

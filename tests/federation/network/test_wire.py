from __future__ import annotations

import shutil
import time

import numpy as np
import pytest

from flames.errors import FlamesError
from flames.federation.client import Client
from flames.federation.network.messages import decode
from flames.federation.network.tasks import encode_update
from flames.federation.simulation import simulate
from flames.wire.coding import Coded

pytestmark = pytest.mark.usefixtures("small_network")

SETTINGS = {
    "bfloat16": {"encoding": "bfloat16", "compression": "none"},
    "xor": {"delta": True},
    "int8": {"encoding": "int8"},
    "top-k": {"encoding": "int8", "delta": True, "top-k": 0.1, "clip": 0.5},
}


def up(run, number):
    return [
        r["bytes_up"] for r in run.load_rounds() if r["kind"] == "site" and r["round"] == number
    ]


@pytest.mark.parametrize("name", SETTINGS)
def test_every_coding_gives_a_simulations_bits(name, make_hall, tmp_path, as_simulated):
    hall = make_hall("us-a", "us-b", rounds=3, wire=SETTINGS[name])
    assert hall.job("us-a", "us-b")[0] == "finished"
    run = simulate(hall.config, tmp_path / "run")
    assert as_simulated(hall.run) == as_simulated(run)
    assert hall.told("aside") == []
    for number in (1, 2, 3):
        np.testing.assert_allclose(up(hall.run, number), up(run, number), rtol=0.02)
    if name == "top-k":
        assert sum(up(run, 3)) < 0.7 * sum(up(run, 2))


def test_lossless_codings_change_nothing_but_bytes(make_config, tmp_path, as_simulated):
    plain = simulate(make_config("us-a", "us-b"), tmp_path / "plain")
    other = simulate(make_config("us-a", "us-b", wire={"delta": True}), tmp_path / "delta")
    assert as_simulated(plain) == as_simulated(other)
    assert sum(up(other, 2) + up(other, 3)) < sum(up(plain, 2) + up(plain, 3))


@pytest.mark.parametrize("strategy", ["modality-scaffold", "fedrep", "local"])
def test_fewer_bits_suit_every_kind_of_strategy(strategy, make_config, tmp_path):
    wire = {"encoding": "int8", "delta": True, "top-k": 0.25}
    config = make_config("us-a", "us-b", rounds=3, wire=wire, strategy={"name": strategy})
    run = simulate(config, tmp_path / "run")
    assert run.summary.exists()


def test_a_site_that_was_away_is_sent_what_it_can_read(make_hall):
    wire = {"encoding": "int8", "delta": True}
    hall = make_hall("us-a", "us-b", rounds=3, network={"rounds-per-job": 1}, wire=wire)
    assert hall.job("us-a", "us-b")[0] == "next"
    hall.connected, hall.late = {"us-a"}, True
    assert hall.job("us-a")[0] == "next"
    hall.connected, hall.late = {"us-a", "us-b"}, False
    for _ in range(3):
        verdict = hall.job("us-a", "us-b")[0]
    assert verdict == "finished"
    assert hall.told("aside") == []
    records = [r for r in hall.run.load_rounds() if r["kind"] == "site" and r["site"] == "us-b"]
    assert [r["round"] for r in records] == [1, 3, 4]
    # The difference from its update of the first round, which the server kept, was enough.
    assert records[1]["bytes_down"] < 1.7 * records[0]["bytes_down"]  # peers' mean and model


def test_a_site_that_lost_its_folder_is_sent_everything(make_hall):
    wire = {"encoding": "int8", "delta": True}
    hall = make_hall("us-a", "us-b", rounds=2, network={"rounds-per-job": 1}, wire=wire)
    assert hall.job("us-a", "us-b")[0] == "next"
    shutil.rmtree(hall.kit("us-b").state / "hall" / "client")
    assert hall.job("us-a", "us-b")[0] == "next"
    assert hall.told("aside") == []
    records = [r for r in hall.run.load_rounds() if r["kind"] == "site" and r["round"] == 2]
    chosen = {r["site"]: r["chosen"] for r in records}
    assert chosen == {"us-a": "mixture", "us-b": "model"}


@pytest.mark.parametrize("strategy", ["local", "flames", "modality-fedrep"])
@pytest.mark.parametrize("sites", [("us-a", "mr-a"), ("us-a", "us-b")])
def test_a_site_that_lost_its_folder_begins_with_its_last_update(make_hall, sites, strategy):
    hall = make_hall(*sites, rounds=2, network={"rounds-per-job": 1}, strategy={"name": strategy})
    assert hall.job(*sites)[0] == "next"
    site = sites[1]
    shutil.rmtree(hall.kit(site).state / "hall" / "client")
    server = hall.desk(list(sites)).job.server
    own, usual = server.folders.held(site).arrays, server.task(site).download
    sent = server.dispatch(site, {})[0].download
    assert sent.use == "replace"
    if usual.use == "keep":
        assert all(np.array_equal(sent.arrays[name], own[name]) for name in own)
    assert set(sent.arrays) == set(server.start(hall.stores[site].modality))
    for _ in range(3):
        verdict = hall.job(*sites)
    assert verdict[0] == "finished"
    assert hall.told("trouble") == hall.told("aside") == []
    records = hall.run.load_rounds()
    assert [r["round"] for r in records if r.get("site") == site] == [1, 2, 3]
    if strategy == "flames" and site == "us-b":
        scores = {r["site"]: r["validation"] for r in records if r.get("site") and r["round"] == 2}
        (judged,) = [r["validation"] for r in records if r["kind"] == "server" and r["round"] == 1]
        assert judged == scores["us-a"]["model"] != scores["us-b"]["model"]


def test_what_moved_too_far_is_set_aside_and_the_round_goes_on(make_hall):
    hall = make_hall("us-a", "us-b", rounds=3, wire={"norm-limit": 3.0})

    def far(client):
        plain = client.rounds.outgoing

        def outgoing(number):
            coded, base = plain(number)
            if client.name == "us-b" and number == 2:
                for name, array in coded.values.items():
                    if array.dtype == np.float32:
                        coded.values[name] = array + np.float32(1)
            return coded, base

        client.rounds.outgoing = outgoing
        return client

    hall.client_of = far
    assert hall.job("us-a", "us-b")[0] == "finished"
    (told,) = hall.told("aside")
    assert "the weights of us-b moved" in told
    assert "wire.norm-limit is 3" in told
    rounds = [(r["site"], r["round"]) for r in hall.run.load_rounds() if r["kind"] == "site"]
    assert ("us-b", 2) not in rounds
    assert ("us-b", 3) in rounds


def loses_the_answer(hall, bad):
    """Let ``bad`` not hear that its update is set aside before the round is over."""

    def line(site, send):
        def worse(topic, message):
            answer = send(topic, message)
            if site != bad or topic != "update" or not decode(answer)[0].get("aside"):
                return answer
            if hall.told("late"):
                return answer
            until = time.monotonic() + 20
            while not any("round 3" in text for text in hall.told("round")):
                assert time.monotonic() < until, "the round did not end"
                time.sleep(0.02)
            return None

        return worse

    return line


@pytest.mark.parametrize("over", ["no network", "a network", "a bad line"])
@pytest.mark.parametrize("sites", [("us-a", "mr-a"), ("us-a", "us-b")])
def test_after_one_bad_round_the_next_ones_are_believed(
    sites, over, make_hall, make_config, tmp_path, monkeypatch
):
    train, bad = Client._optimise, sites[-1]

    def once_too_far(self, network, task, work, progress):
        result, weights, second = train(self, network, task, work, progress)
        if (self.name, task.server_round) == (bad, 3):
            weights = {
                name: work.received[name] + np.float32(60) * (array - work.received[name])
                if array.dtype == np.float32
                else array
                for name, array in weights.items()
            }
        return result, weights, second

    monkeypatch.setattr(Client, "_optimise", once_too_far)
    training = {"local-steps": 2, "learning-rate": 0.002}
    hall = make_hall(*sites, rounds=6, training=training)
    if over == "a bad line":
        hall.line = loses_the_answer(hall, bad)
    if over != "no network":
        assert hall.job(*sites)[0] == "finished"
        run, aside = hall.run, hall.told("aside")
    else:
        events = []
        run = simulate(hall.config, tmp_path / "run", on_event=events.append)
        aside = [event.text for event in events if "is set aside" in event.text]
    assert len(aside) == 1, aside
    rounds = [r["round"] for r in run.load_rounds() if r.get("site") == bad]
    assert rounds == [1, 2, 4, 5, 6, 7]
    assert len(hall.told("late")) == (over == "a bad line")


@pytest.mark.parametrize("last", [False, True])
def test_a_simulation_goes_on_without_an_update_that_moved_too_far(
    make_config, tmp_path, monkeypatch, last
):
    from flames.federation.client_rounds import ClientRounds

    plain = ClientRounds.outgoing

    def outgoing(self, number):
        coded, base = plain(self, number)
        if self.folder.name == "us-b" and number == (4 if last else 2):
            for name, array in coded.values.items():
                if array.dtype == np.float32:
                    coded.values[name] = array * np.float32(50)
        return coded, base

    monkeypatch.setattr(ClientRounds, "outgoing", outgoing)
    events = []
    run = simulate(make_config("us-a", "us-b", rounds=3), tmp_path / "run", on_event=events.append)
    assert any("is set aside" in event.text for event in events)
    assert [len(up(run, number)) for number in (2, 3, 4)] == ([2, 2, 1] if last else [1, 2, 2])
    assert set(run.personal_models()) == {"us-a", "us-b"}, "it keeps what it has at home"


def test_a_client_that_does_not_clip_is_clipped_at_the_server(make_config, tmp_path, monkeypatch):
    from flames.federation import leaving
    from flames.federation.server import Server

    monkeypatch.setattr(leaving, "LEAVING", ())
    lengths = []
    plain = Server.accept

    def accept(self, reply, arrays, travelled=None, moments=None):
        folders = self.folders
        sent, held = folders.sent(reply.client), folders.held(reply.client)
        begun = self.parcels.begun(reply, sent, held)
        from flames.array_files import load_arrays
        from flames.strategies.movement import movement

        before = movement(arrays, begun)["weights"]
        plain(self, reply, arrays, travelled, moments)
        kept = load_arrays(folders.update(reply.client))
        lengths.append((before, movement(kept, begun)["weights"]))

    monkeypatch.setattr(Server, "accept", accept)
    simulate(make_config("us-a", "us-b", wire={"clip": 0.01}), tmp_path / "run")
    assert max(before for before, _ in lengths) > 0.02
    assert max(after for _, after in lengths) < 0.0102


def test_a_reply_that_names_another_beginning_is_refused(make_hall):
    hall = make_hall("us-a", "us-b")

    def lying(client):
        plain = client.answer

        def answer(task, progress=None):
            from dataclasses import replace

            reply, weights = plain(task, progress)
            if client.name == "us-b":
                reply = replace(reply, chosen="mixture", alpha=0.7)
            return reply, weights

        client.answer = answer
        return client

    hall.client_of = lying
    assert hall.job("us-a", "us-b")[0] == "finished"
    assert "which it was not sent" in hall.told("aside")[0]
    assert set(hall.run.personal_models()) == {"us-a"}


@pytest.mark.parametrize("wire", [{"norm-limit": 3.0}, {"norm-limit": 0.0, "clip": 0.5}])
def test_who_was_not_asked_cannot_pass_the_limits_by(make_hall, wire):
    hall = make_hall("us-a", "us-b", rounds=4, network={"rounds-per-job": 1}, wire=wire)
    for _ in range(2):
        assert hall.job("us-a", "us-b")[0] == "next"
    desk = hall.desk(["us-a", "us-b"])
    hall.station("us-b", desk)._hello()
    server = desk.job.server
    held = server.folders.held("us-b").arrays
    far = {
        name: array + np.float32(1000) if array.dtype == np.float32 else np.array(array)
        for name, array in held.items()
    }
    message = encode_update(
        server.replies()["us-b"], 3, Coded("p" * len(far), far), "", hall.config.wire
    )
    assert decode(desk.handle("us-b", "update", message))[0]["do"] == "again"
    assert "us-b was not asked in the open round" in hall.told("aside")[0]
    assert not server.answered


def test_choosing_among_whole_weights_is_refused(make_config):
    with pytest.raises(FlamesError, match="delta = true"):
        make_config("us-a", wire={"top-k": 0.1})


def test_a_task_in_an_unknown_coding_is_damaged(make_hall):
    hall = make_hall("us-a")
    desk = hall.desk(["us-a"])
    from flames.federation.network.messages import MessageError
    from flames.federation.network.tasks import as_task, encode_task

    task, coded = desk.job.server.dispatch("us-a", {})
    facts, sections = decode(encode_task(task, coded, hall.config.wire, {}))
    assert as_task(facts, sections, lambda _: None).download.use == "replace"
    facts["letters"]["arrays"] = "z" * len(facts["letters"]["arrays"])
    with pytest.raises(MessageError, match="no known coding"):
        as_task(facts, sections, lambda _: None)

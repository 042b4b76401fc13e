"""Disks that are full, and runs that cannot be: without processes, in a hall."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
import time
from types import SimpleNamespace

import pytest

from flames.errors import FlamesError, NotWritten
from flames.federation.network.facts import facts_of
from flames.federation.network.follow import _prepare
from flames.federation.network.journal import Journal
from flames.federation.network.messages import decode, encode
from flames.federation.simulation import simulate

pytestmark = pytest.mark.usefixtures("small_network")


def full(*_args, **_more):
    raise NotWritten("cannot write the disk: No space left on device", "free some space")


def test_a_server_whose_disk_is_full_waits_and_blames_no_site(
    make_hall, three_sites, as_simulated, monkeypatch
):
    monkeypatch.setattr("flames.federation.network.desk.REST_SECONDS", 0.3)
    hall = make_hall()
    make_desk = hall.desk

    def desk(sites):
        made = make_desk(sites)
        server = made.job.server
        works = {"receive": server.receive, "close_round": server.close_round}
        left = {"receive": 5, "close_round": 2}

        def sometimes(name):
            def act(*args, **more):
                left[name] -= 1
                return full() if left[name] >= 0 else works[name](*args, **more)

            return act

        server.receive, server.close_round = sometimes("receive"), sometimes("close_round")
        return made

    hall.desk = desk
    assert hall.job("us-a", "us-b", "mr-a")[0] == "finished"
    assert as_simulated(hall.run) == as_simulated(three_sites)
    assert hall.told("server-trouble")
    assert hall.told("server-goes-on")
    assert not hall.told("aside")


@pytest.mark.parametrize("error", [full, OSError(errno.ENOSPC, "No space left on device")])
def test_a_site_whose_disk_is_full_has_not_failed(make_hall, error):
    hall = make_hall("us-a")

    def broken(client):
        def answer(task, progress=None):
            if isinstance(error, OSError):
                raise error
            error()

        client.answer = answer
        return client

    hall.client_of = broken
    desk = hall.desk(["us-a"])
    station = hall.station("us-a", desk)
    done = threading.Event()

    def work():
        with pytest.raises(NotWritten, match="No space left"):
            station.run()
        done.set()

    threading.Thread(target=work, daemon=True).start()
    while not done.wait(0.02):
        desk.step()
    assert desk.job.seats["us-a"].failed_round == 0
    desk.handle("us-a", "waits", encode({"for": "space", "reason": "its disk is full"}))
    assert hall.told("waits") == ["us-a waits: its disk is full"]


@pytest.mark.parametrize(("name", "write"), [("environment.json", 4), ("splits.json", 3)])
def test_a_disk_that_is_full_while_a_site_joins_costs_nothing(
    make_hall, three_sites, as_simulated, monkeypatch, name, write
):
    from flames.federation.network import run_state

    monkeypatch.setattr("flames.federation.network.desk.REST_SECONDS", 0.1)
    save, left = run_state.save_json, [write]  # the last site's

    def full_in_between(path, content):
        left[0] -= path.name == name
        return full() if path.name == name and left[0] == 0 else save(path, content)

    monkeypatch.setattr(run_state, "save_json", full_in_between)
    hall = make_hall()
    assert hall.job("us-a", "us-b", "mr-a")[0] == "finished"
    assert left[0] <= 0
    assert as_simulated(hall.run) == as_simulated(three_sites)
    environment = json.loads(hall.run.environment.read_text(encoding="utf-8"))
    assert environment["stores"].keys() == {"us-a", "us-b", "mr-a"}


def test_a_round_that_cannot_be_closed_is_closed_when_there_is_space(make_hall, monkeypatch):
    hall = make_hall("us-a", "us-b")
    monkeypatch.setattr("flames.federation.network.desk.REST_SECONDS", 0.05)
    copy, left = shutil.copytree, [2]

    def copytree(*args, **more):
        left[0] -= 1
        if left[0] >= 0:
            raise shutil.Error(["a list of files"])
        return copy(*args, **more)

    monkeypatch.setattr("flames.federation.server.shutil.copytree", copytree)
    assert hall.job("us-a", "us-b")[0] == "finished"
    assert left[0] < 0
    assert any("could be copied" in text for text in hall.told("server-trouble"))


def test_a_sites_own_number_of_steps_travels(tmp_path):
    federation = tmp_path / "federation.toml"
    federation.write_text('[[sites]]\nname = "us-a"\nlocal-steps = 40\n[[sites]]\nname = "us-b"\n')
    about = {"modality": "US", "organ": "breast"}
    known = {"consortium": "tests", "sites": {"us-a": about, "us-b": about}}
    config, everybody = _prepare(federation, {}, known)
    assert [config.steps_of(name) for name in ("us-a", "us-b", "later")] == [40, 10, 10]
    assert (config.most_steps, everybody) == (40, False)


def test_a_sites_own_number_of_steps_counts_as_in_a_simulation(make_hall, as_simulated, tmp_path):
    hall = make_hall("us-a", "us-b")
    first, second = hall.config.sites
    sites = (first.model_copy(update={"local_steps": 3}), second)
    hall.config = hall.config.model_copy(update={"sites": sites})
    assert hall.job("us-a", "us-b")[0] == "finished"
    assert as_simulated(hall.run) == as_simulated(simulate(hall.config, tmp_path / "simulated"))
    last = {r["site"]: r["steps"] for r in hall.run.load_rounds() if r["kind"] == "site"}
    assert last == {"us-a": 2 * 3, "us-b": 2 * 2}


@pytest.mark.parametrize(
    ("text", "found", "remedy"),
    [
        (
            '[[sites]]\nname = "us-b"\n',
            "'us-b' is no site of tests, or is revoked",
            "leave it out of the file",
        ),
        (
            'rounds = 1\n[data]\ndimensions = 3\n[model]\nname = "unet"\n',
            "three dimensions need a plan for US",
            "flames plan",
        ),
    ],
)
def test_a_file_that_a_consortium_cannot_run_is_refused(tmp_path, text, found, remedy):
    federation = tmp_path / "federation.toml"
    federation.write_text(text)
    known = {"consortium": "tests", "sites": {"us-a": {"modality": "US", "organ": "breast"}}}
    with pytest.raises(FlamesError, match=found) as caught:
        _prepare(federation, {}, known)
    assert remedy in caught.value.remedy


class Server:
    """What a person at a server with one site gets; a run there fails at once."""

    def __init__(self, _kit):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        return None

    def ask(self, command, *_words):
        if command == "sites":
            return {"consortium": "tests", "sites": {"us-a": {"modality": "US", "organ": "breast"}}}
        if command == "continue":
            return {}
        run = {"status": "failed", "cause": "its disk is broken", "jobs": ["job-1"]}
        return {"events": [], "desk": {}, "run": run}

    def submit(self, _folder):
        return "job-1"


def test_a_run_does_not_go_on_with_another_configuration(tmp_path, monkeypatch):
    from flames.federation.network import follow

    monkeypatch.setattr(follow, "Person", Server)
    monkeypatch.setattr(follow, "persons_kit", lambda path: SimpleNamespace(path=path))
    file, out = tmp_path / "federation.toml", tmp_path / "run"
    file.write_text("rounds = 3\n")

    def run(**overrides):
        resume = (out / "network.json").exists()
        follow.run_there(file, overrides, tmp_path, out, resume=resume, on_event=lambda _: None)

    for _ in range(2):
        with pytest.raises(FlamesError, match="is failed: its disk is broken"):
            run()
    with pytest.raises(FlamesError, match="was started with another rounds") as refused:
        run(rounds="9")
    assert str(out / "config.toml") in refused.value.remedy


def test_a_site_whose_modality_has_no_plan_is_refused_by_the_server(make_hall):
    hall = make_hall("us-a")
    station = hall.station("us-a", hall.desk(["us-a"]))
    other = make_hall("us-a", data={"dimensions": 3})
    other.folder = hall.folder / "other"
    desk = other.desk(["us-a"])
    facts = facts_of(station.store, station.config_text, show_cases=True)
    content = {"facts": facts.model_dump(mode="json")}
    answer, _ = decode(desk.handle("us-a", "hello", encode(content)))
    assert answer["do"] == "leave"
    assert "three dimensions need a plan for US" in answer["reason"]


@pytest.mark.parametrize("strategy", ["flames", "local"])
def test_a_site_that_lost_its_rounds_scores_what_others_made(make_hall, strategy):
    hall = make_hall("us-a", "us-b", rounds=1, strategy={"name": strategy})

    def line(site, send):
        def call(topic, message):
            answer = send(topic, message)
            if site == "us-b" and topic == "ask" and answer and b'"score"' in answer:
                shutil.rmtree(hall.kit(site).state / "hall" / "client", ignore_errors=True)
            return answer

        return call

    hall.line = line
    assert hall.job("us-a", "us-b")[0] == "finished"
    scored = {(s["model"], s["site"]) for s in hall.run.load_summary()["scores"]}
    events = {e["event"]: e for e in Journal(hall.kit("us-b").events).read()}
    if strategy == "flames":
        assert scored == {
            ("server:US", "us-a"),
            ("server:US", "us-b"),
            ("personal:us-a", "us-a"),
        }
        assert "no model of its own" in events["lost"]["text"]
        assert "trouble" not in events
    else:
        assert scored == {("personal:us-a", "us-a")}
        assert "not in" in events["trouble"]["text"]
        assert "copy" in events["trouble"]["remedy"]


@pytest.mark.parametrize("there", [True, False])
def test_a_job_that_names_a_file_of_the_server_is_refused_without_a_look_at_it(
    make_hall, tmp_path, there
):
    file = tmp_path / "weights.safetensors"
    if there:
        file.write_bytes(b"a secret of the server")
    hall = make_hall("us-a", model={"name": "densenet-unet", "weights": str(file)})
    with pytest.raises(FlamesError) as error:
        hall.desk(["us-a"])
    assert error.value.found == "model.weights names a file, and a run over a network takes none"
    assert not list((hall.run.state).glob("start*"))


@pytest.mark.parametrize("call", ["mkdir", "pwrite"])
def test_a_disk_that_is_full_when_a_job_begins_at_a_site_is_waited_for(tmp_path, monkeypatch, call):
    """It must be what the site's job waits for, and leave no lock behind that it then waits for."""
    executor = network_executor()

    def no_space(*_args, **_more):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, no_space)
        with pytest.raises(NotWritten, match="No space left"):
            executor._hold(tmp_path / "run")
    os.close(executor._hold(tmp_path / "run"))


def network_executor():
    pytest.importorskip("nvflare", reason="needs the extra 'network'")
    from flames.federation.network import executor

    return executor


def test_a_site_that_reads_its_store_for_long_is_not_called_back_again_and_again(
    make_hall, monkeypatch
):
    """A new job would only let it begin to read anew: it would never come in."""
    executor = network_executor()
    monkeypatch.setattr("flames.federation.network.job_state.JOIN_SECONDS", 0.3)
    hall = make_hall("us-a", "us-b")
    hall.connected = {"us-a", "us-b"}
    make_station = hall.station

    def after_reading(site, desk):
        made = make_station(site, desk)
        begin = made.run

        def run():
            if site == "us-b":
                with executor.telling_that_it_reads(made.gate, every=0.05):
                    while not hall.told("update"):  # the other one's
                        time.sleep(0.02)
                    time.sleep(0.5)
            return begin()

        made.run = run
        return made

    hall.station = after_reading
    assert hall.job("us-a", "us-b")[0] == "finished"
    assert hall.told("waits") == ["us-b waits: it reads its store"]
    assert set(hall.run.personal_models()) == {"us-a", "us-b"}

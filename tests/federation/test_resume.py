from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from flames.array_files import save_arrays
from flames.config import load_config
from flames.errors import FlamesError
from flames.federation import client, outcome, round_folders, server
from flames.federation.beginning import first_weights
from flames.federation.simulation import simulate
from flames.federation.whole_rounds import finish_round
from flames.runs import RunFolder


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it."""


def after(calls, function, *, name=""):
    """Return ``function`` that kills the process instead of its nth call (on a file so named)."""
    left = [calls]

    def call(*given, **named):
        if not name or (given and str(given[0]).endswith(name)):
            left[0] -= 1
            if left[0] == 0:
                raise Killed
        return function(*given, **named)

    return call


def in_training(monkeypatch):
    return lambda event: (event.stage, event.server_round, event.client, event.done) == (
        "train", 2, "us-b", 1,
    )  # fmt: skip


def in_the_first_round(monkeypatch):
    return lambda event: event.stage == "train" and event.client == "us-b"


def while_a_client_writes(monkeypatch):
    monkeypatch.setattr(client, "save_json", after(4, client.save_json))


def between_accept_and_close(monkeypatch):
    monkeypatch.setattr(server.Server, "close_round", after(2, server.Server.close_round))


def while_the_server_closes(monkeypatch):
    monkeypatch.setattr(server, "save_json", after(2, server.save_json, name="records.json"))


def before_the_old_round_is_deleted(monkeypatch):
    stub = SimpleNamespace(rmtree=after(1, shutil.rmtree))
    monkeypatch.setattr(round_folders, "shutil", stub)


def when_the_old_round_was_deleted(monkeypatch):
    def delete(*given, **named):
        shutil.rmtree(*given, **named)
        if str(given[0]).endswith("round-0001"):
            raise Killed

    monkeypatch.setattr(round_folders, "shutil", SimpleNamespace(rmtree=delete))


def in_the_closing_round(monkeypatch):
    monkeypatch.setattr(server.Server, "accept", after(6, server.Server.accept))


def while_models_are_written(monkeypatch):
    monkeypatch.setattr(outcome, "save_arrays", after(2, outcome.save_arrays))


def in_scoring(monkeypatch):
    return lambda event: event.stage == "score" and event.done == 2


POINTS = (
    in_the_first_round,
    in_training,
    while_a_client_writes,
    between_accept_and_close,
    while_the_server_closes,
    before_the_old_round_is_deleted,
    when_the_old_round_was_deleted,
    in_the_closing_round,
    while_models_are_written,
    in_scoring,
)


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.__name__)
def test_a_killed_run_continues_bit_for_bit(
    point, make_config, tmp_path, two_sites, outcome, monkeypatch
):
    config = make_config("us-a", "us-b")
    dies = point(monkeypatch)

    def watch(event):
        if dies is not None and dies(event):
            raise Killed

    with pytest.raises(Killed):
        simulate(config, tmp_path / "run", on_event=watch)
    monkeypatch.undo()
    assert outcome(simulate(config, tmp_path / "run", resume=True)) == outcome(two_sites)


def simulate_into_the_second_round(config, out):
    """Begin a run and kill it when us-b trains in the second round."""

    def stop(event):
        if (event.stage, event.server_round, event.client) == ("train", 2, "us-b"):
            raise Killed

    with pytest.raises(Killed):
        simulate(config, out, on_event=stop)


def empty(path):
    """Leave a file as a power cut can: it has its name, and nothing in it."""
    assert path.stat().st_size
    path.write_bytes(b"")


@pytest.mark.parametrize("name", ["updates/us-b.safetensors", "replies.json"])
def test_a_server_whose_last_round_is_damaged_goes_on_from_the_one_before(
    name, make_config, tmp_path, two_sites, outcome
):
    config, told = make_config("us-a", "us-b"), []
    simulate_into_the_second_round(config, tmp_path / "run")
    server = tmp_path / "run" / "state" / "server"
    simulate_to_the_end_of(2, config, tmp_path / "run")
    assert sorted(p.name for p in server.glob("round-*")) == ["round-0001", "round-0002"]
    empty(server / "round-0002" / name)
    run = simulate(config, tmp_path / "run", resume=True, on_event=told.append)
    assert outcome(run) == outcome(two_sites)
    assert f"round-0002/{name} in {server} cannot be read" in told[0].text
    assert (server / "damaged-round-0002").is_dir()


def simulate_to_the_end_of(server_round, config, out):
    """Continue a run and kill it in the round after."""

    def stop(event):
        if event.stage == "round" and event.server_round == server_round and "us-b" in event.text:
            raise Killed

    with pytest.raises(Killed):
        simulate(config, out, resume=True, on_event=stop)


def test_a_client_whose_last_round_is_damaged_does_it_again(
    make_config, tmp_path, two_sites, outcome
):
    config = make_config("us-a", "us-b")
    simulate_into_the_second_round(config, tmp_path / "run")
    empty(tmp_path / "run" / "state" / "clients" / "us-a" / "round-0002" / "weights.safetensors")
    run = simulate(config, tmp_path / "run", resume=True)
    assert outcome(run) == outcome(two_sites)


def test_a_run_goes_on_where_its_stores_were_moved(make_config, tmp_path, two_sites, outcome):
    begun = make_config("us-a", "us-b")
    simulate_into_the_second_round(begun, tmp_path / "run")
    sites = tuple(
        site.model_copy(update={"store": shutil.copytree(site.store, tmp_path / site.name)})
        for site in begun.sites
    )
    moved = begun.model_copy(update={"sites": sites})
    run = simulate(moved, tmp_path / "run", resume=True)
    assert load_config(run.config) == moved, "the folder says where they lie now"
    assert outcome(run) == outcome(two_sites)


def test_a_server_without_a_whole_round_does_not_begin_anew(make_config, tmp_path):
    simulate(make_config("us-a", rounds=1), tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    server = tmp_path / "run" / "state" / "server"
    for place in list(server.glob("round-*")):
        empty(place / "replies.json")
    with pytest.raises(FlamesError, match=f"no round in {server} can be read"):
        simulate(make_config("us-a", rounds=1), tmp_path / "run", resume=True)


def test_a_round_has_its_name_only_when_it_is_on_the_disk(tmp_path, monkeypatch):
    done, sync = [], os.fsync
    partial, place = tmp_path / ".round-0001.partial", tmp_path / "round-0001"
    (partial / "updates").mkdir(parents=True)
    save_arrays(partial / "updates" / "a.safetensors", {"w": np.ones(3)})

    def note(descriptor):
        done.append((str(Path(f"/proc/self/fd/{descriptor}").readlink()), place.exists()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    finish_round(partial, place)
    assert sorted(done) == [
        (str(tmp_path), True),
        (str(partial), False),
        (str(partial / "updates"), False),
        (str(partial / "updates" / "a.safetensors"), False),
    ]


def test_first_weights_are_on_the_disk_before_anybody_gets_them(make_config, tmp_path, monkeypatch):
    done, sync = [], os.fsync

    def note(descriptor):
        done.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    first_weights(make_config("us-a"), RunFolder(tmp_path))("US")
    assert done == ["start.safetensors"]

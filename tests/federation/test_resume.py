from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest

from flames.federation import client, outcome, round_folders, server
from flames.federation.simulation import simulate


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
    stub = SimpleNamespace(rmtree=after(2, shutil.rmtree))
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

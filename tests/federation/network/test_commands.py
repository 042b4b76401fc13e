"""Who may end whose run, without an engine."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("nvflare", reason="needs the extra 'network'")

from flames.errors import FlamesError
from flames.federation.network.commands import PeoplesCommands
from flames.federation.network.kits import Kit
from flames.federation.network.run_book import JobOrder, RunBook, read_job

ALICE, BOB, ADMIN = "alice@example.org", "bob@example.org", "admin@example.org"
ORDER = JobOrder("first", False, "rounds = 3\n")


class Keeper:
    """Knows one job of Alice's, and what was ended."""

    def __init__(self):
        self.ended = []

    def submitter(self, job):
        return {"job-1": ALICE}.get(job)

    def stop_run(self, book, _who):
        self.ended.append(book.path.name)


@pytest.fixture
def keeper():
    return Keeper()


@pytest.fixture
def kit(tmp_path):
    return Kit(tmp_path, "server", "server", "tests", "localhost:8102")


@pytest.fixture
def commands(kit, keeper):
    return PeoplesCommands(kit, keeper)


@pytest.mark.parametrize("begun", [False, True])
def test_a_run_is_ended_by_whoever_started_it_or_an_admin(commands, keeper, kit, begun):
    if begun:
        RunBook(kit.runs / "first").begin("job-1", ORDER, ALICE)
    for who, role in ((BOB, "lead"), (BOB, "member"), (ALICE, "member")):
        with pytest.raises(FlamesError):
            commands.stop(who, role, "first", "job-1")
    assert keeper.ended == []
    commands.stop(ALICE, "lead", "first", "job-1")
    commands.stop(ADMIN, "project_admin", "first", "job-1")
    assert keeper.ended == ["first", "first"]
    assert RunBook(kit.runs / "first").read()["by"] == ALICE


@pytest.mark.parametrize("job", ["", "job-2"])
def test_what_is_not_there_cannot_be_ended(commands, keeper, kit, job):
    with pytest.raises(FlamesError, match="no such run or job"):
        commands.stop(ALICE, "lead", "first", job)
    assert (keeper.ended, list(kit.runs.glob("*"))) == ([], [])


@pytest.mark.parametrize("name", ["first\n", "", "../first", "first run"])
def test_a_run_whose_name_no_command_can_say_does_not_begin(tmp_path, name):
    (tmp_path / "run.json").write_text(json.dumps({"run": name, "everybody": True}))
    (tmp_path / "federation.toml").write_text(ORDER.config_text)
    with pytest.raises(FlamesError, match="is no name of a run"):
        read_job(tmp_path)


def test_a_stopped_run_is_not_taken_over_by_somebody_else(kit):
    book = RunBook(kit.runs / "first")
    book.begin("job-1", ORDER, ALICE)
    book.set_status("stopped", f"stopped by {ALICE}")
    with pytest.raises(FlamesError, match=f"is {ALICE}'s, and {BOB} handed"):
        book.begin("job-2", ORDER, BOB)
    assert (book.read()["status"], book.read()["jobs"]) == ("stopped", ["job-1"])
    book.begin("job-3", ORDER, ALICE)
    assert book.read()["jobs"] == ["job-1", "job-3"]

"""How the keeper chains jobs into a run, without an engine."""

from __future__ import annotations

import shutil
import threading
import time
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

pytest.importorskip("nvflare", reason="needs the extra 'network'")

from flames.errors import FlamesError, NotWritten
from flames.federation.network import controller
from flames.federation.network.commands import PeoplesCommands
from flames.federation.network.journal import Journal
from flames.federation.network.keeper import MOST_BROKEN_JOBS, MOST_PAUSE_SECONDS, RunKeeper
from flames.federation.network.kits import Kit
from flames.federation.network.run_book import JobOrder, RunBook

ALICE = "alice@example.org"
ORDER = JobOrder("first", False, "rounds = 3\n")


class Jobs:
    """The engine's jobs: each is over as soon as it is looked at."""

    def __init__(self):
        self.known = {"job-1": {}}
        self.ended = []
        self.kept = {"data", "meta", "workspace"}

    def list_components(self, _job_id, _context):
        return self.kept

    def get_jobs_by_status(self, _status, _context):
        return [SimpleNamespace(job_id=name, meta=meta) for name, meta in self.known.items()]

    def get_job(self, job_id, _context):
        if job_id not in self.known:
            return None
        meta = self.known[job_id] | {"status": "FINISHED:COMPLETED"}
        return SimpleNamespace(job_id=job_id, meta=meta)

    def clone(self, *, from_jid, meta, fl_ctx):
        del from_jid, fl_ctx
        name = f"job-{len(self.known) + 1}"
        self.known[name] = meta
        return {"job_id": name}


@pytest.fixture
def keeper(porter):
    made, jobs = RunKeeper(), Jobs()
    made.engine = SimpleNamespace(
        new_context=lambda: nullcontext(None),
        job_def_manager=jobs,
        server=SimpleNamespace(porter=porter),
        run_processes={},
        job_runner=SimpleNamespace(
            running_jobs={}, stop_run=lambda job_id, _: jobs.ended.append(job_id)
        ),
    )
    return made


@pytest.fixture
def book(tmp_path):
    made = RunBook(tmp_path / "runs" / "first")
    made.begin("job-1", ORDER, ALICE)
    return made


def look(keeper, book):
    keeper.next_look.clear()
    keeper._look_after(book)
    return book.read()


def test_a_run_that_failed_goes_on_when_a_person_says_so(keeper, book):
    book.note_verdict("job-1", "failed", "us-a: its disk is broken")
    assert look(keeper, book)["status"] == "failed"
    keeper.continue_run(book)
    content = look(keeper, book)
    assert (content["status"], content["jobs"]) == ("running", ["job-1", "job-2"])
    book.note_verdict("job-2", "failed", "us-a: its disk is broken")
    content = look(keeper, book)
    assert (content["status"], content["cause"]) == ("failed", "us-a: its disk is broken")


def test_jobs_that_die_again_and_again_end_a_run_and_a_person_lets_it_go_on(keeper, book):
    for _ in range(MOST_BROKEN_JOBS):
        assert book.read()["status"] == "running"
        look(keeper, book)
    assert book.read()["status"] == "failed"
    keeper.continue_run(book)
    assert look(keeper, book)["status"] == "running"


def test_a_run_that_is_stopped_while_its_next_job_is_made_stays_stopped(keeper, book):
    jobs = keeper.engine.job_def_manager
    clone = jobs.clone
    person = threading.Thread(target=keeper.stop_run, args=(book, ALICE))

    def meanwhile(**given):
        person.start()
        person.join(timeout=0.5)
        return clone(**given)

    jobs.clone = meanwhile
    look(keeper, book)
    person.join()
    assert book.read()["status"] == "stopped"
    assert jobs.ended == [book.read()["jobs"][-1]] == ["job-2"]


def test_a_job_that_begins_after_its_run_was_stopped_does_not_start_it_again(keeper, book):
    look(keeper, book)
    keeper.stop_run(book, ALICE)
    with pytest.raises(FlamesError, match=f"first is stopped: stopped by {ALICE}"):
        book.begin("job-2", ORDER, ALICE)
    assert book.read()["status"] == "stopped"
    keeper.continue_run(book)
    book.begin("job-2", ORDER, ALICE)
    assert book.read()["status"] == "running"


def test_a_job_that_was_made_and_not_noted_is_the_next_one(keeper, book, monkeypatch):
    def killed(*_args, **_more):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunBook, "set_status", killed)
        with pytest.raises(KeyboardInterrupt):
            look(keeper, book)
    assert look(keeper, book)["jobs"] == ["job-1", "job-2"]
    assert keeper.engine.job_def_manager.known.keys() == {"job-1", "job-2"}


def test_a_finished_run_that_the_engine_did_not_keep_is_finished_by_another_job(keeper, book):
    jobs = keeper.engine.job_def_manager
    book.note_verdict("job-1", "finished", "the run is finished")
    jobs.kept = {"data", "meta"}
    content = look(keeper, book)
    assert (content["status"], content["jobs"]) == ("running", ["job-1", "job-2"])
    jobs.kept = {"data", "meta", "workspace"}
    book.note_verdict("job-2", "finished", "the run is finished")
    assert look(keeper, book)["status"] == "finished"


def test_no_job_begins_while_the_record_is_damaged(keeper, book, porter):
    path = porter.latest.path
    good = path.read_text(encoding="utf-8")
    assert porter.record() is not None
    path.write_text(good[:-9], encoding="utf-8")
    for _ in range(MOST_BROKEN_JOBS + 1):
        content = look(keeper, book)
    assert (content["status"], content["jobs"]) == ("running", ["job-1"])
    path.write_text(good, encoding="utf-8")
    assert look(keeper, book)["jobs"] == ["job-1", "job-2"]


def test_jobs_that_finish_no_round_begin_ever_less_often_until_a_site_comes(keeper, book, kits):
    def pause():
        job = book.read()["jobs"][-1]
        book.note_verdict(job, "next", "no modality has a quorum of its sites")
        look(keeper, book)
        return round(keeper.next_look["first"] - time.monotonic())

    pauses = [pause() for _ in range(12)]
    assert pauses[:5] == [1, 2, 4, 8, 16]
    assert pauses[-1] == MOST_PAUSE_SECONDS
    kit = Kit.open(kits / "server", "server")
    keeper.engine.get_clients = lambda: [SimpleNamespace(name="us-a")]
    keeper._note_sites(kit, Journal(kit.events))
    assert keeper.next_look == {}
    (book.path / "state" / "server" / "round-0001").mkdir(parents=True)
    assert pause() == 1


@pytest.mark.parametrize("news", ["round", "finished"])
def test_a_pause_between_jobs_ends_when_a_run_got_on(keeper, book, news):
    for number in range(1, 9):
        book.note_verdict(f"job-{number}", "next", "every site is away")
        look(keeper, book)
    keeper._look_after(book)
    assert len(book.read()["jobs"]) == 9
    if news == "round":
        (book.path / "state" / "server" / "round-0001").mkdir(parents=True)
    book.note_verdict("job-9", "next" if news == "round" else "finished", "")
    keeper._look_after(book)
    content = book.read()
    assert content["status"] == ("running" if news == "round" else "finished")
    assert len(content["jobs"]) == (10 if news == "round" else 9)


def test_a_run_that_is_stopped_before_its_first_job_began_it_does_not_begin(keeper, tmp_path):
    kit = Kit(tmp_path, "server", "server", "tests", "localhost:8102")
    commands = PeoplesCommands(kit, keeper)
    keeper.engine.job_def_manager.known["job-1"] = {"submitter_name": ALICE}
    commands.stop(ALICE, "lead", "second", "job-1")
    assert keeper.engine.job_def_manager.ended == ["job-1"]
    late = RunBook(kit.runs / "second")
    with pytest.raises(FlamesError, match=f"second is stopped: stopped by {ALICE}"):
        late.begin("job-1", JobOrder("second", False, ORDER.config_text), ALICE)
    assert look(keeper, late)["status"] == "stopped"
    commands.continue_(ALICE, "lead", "second")
    content = look(keeper, late)
    assert (content["status"], content["jobs"]) == ("running", ["job-1", "job-2"])


@pytest.mark.parametrize("ends", [False, True])
def test_a_finished_run_waits_for_space_to_be_left_for_whoever_fetches_it(
    book, tmp_path, monkeypatch, ends
):
    monkeypatch.setattr(controller, "REST_SECONDS", 0.0)
    copy, left = shutil.copytree, [2]

    def full(*given, **more):
        left[0] -= 1
        if left[0] >= 0:
            raise shutil.Error([("cases.csv", "cases.csv", "No space left on device")])
        return copy(*given, **more)

    monkeypatch.setattr(shutil, "copytree", full)
    (book.path / "cases.csv").write_text("case", encoding="utf-8")
    folder, verdict = tmp_path / "job", ("finished", "the run is finished")
    controller.leave_word(book, "job-1", verdict, folder=folder, ended=lambda: ends)
    events = [event["event"] for event in Journal(book.events).read()]
    assert (folder / "finished" / "cases.csv").exists() is not ends
    assert events == ["server-trouble", *([] if ends else ["server-goes-on"])]
    assert book.verdict("job-1")[0] == ("died" if ends else "finished")


@pytest.mark.parametrize("ends", [False, True])
def test_a_job_that_finds_no_space_as_it_begins_waits_for_it(book, monkeypatch, ends):
    monkeypatch.setattr(controller, "REST_SECONDS", 0.0)
    tries = []

    def open_desk():
        tries.append(1)
        if len(tries) < 3:
            raise NotWritten("cannot write config.toml: No space left on device", "free some")
        return "a desk"

    desk = controller.with_space(book, open_desk, ended=lambda: ends)
    events = [event["event"] for event in Journal(book.events).read()]
    assert (desk, len(tries)) == ((None, 1) if ends else ("a desk", 3))
    assert events == ["server-trouble", *([] if ends else ["server-goes-on"])]


def test_a_finished_run_that_the_engine_has_no_space_for_is_not_given_up(keeper, book):
    keeper.engine.job_def_manager.kept = {"data", "meta"}
    for _ in range(MOST_BROKEN_JOBS + 2):
        book.note_verdict(book.read()["jobs"][-1], "finished", "the run is finished")
        look(keeper, book)
    assert book.read()["status"] == "running"
    book.note_verdict(book.read()["jobs"][-1], "finished", "the run is finished")
    keeper.engine.job_def_manager.kept |= {"workspace"}
    look(keeper, book)
    assert book.read()["status"] == "finished"

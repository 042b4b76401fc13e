"""What the watch waits for, and how it goes on after stops, full disks and revocations."""

from __future__ import annotations

import time

import pytest

from flames.errors import NotWritten
from flames.federation.network.facts import facts_of
from flames.federation.network.job_state import JobState
from flames.federation.network.messages import decode, encode
from flames.federation.network.tasks import as_task, encode_update

pytestmark = pytest.mark.usefixtures("small_network")
HOUR = 3600.0


class Table:
    """A desk with sites that speak when they are told to, on a clock that stands."""

    def __init__(self, hall, *sites, moment=None):
        self.hall = hall
        self.now = time.time() if moment is None else moment
        hall.seconds = lambda: self.now
        self.desk = hall.desk(list(sites))
        self.job = self.desk.job
        self.job.late = lambda: JobState.late(self.job)
        self.stations = {site: hall.station(site, self.desk) for site in sites}
        for station in self.stations.values():
            station._hello()

    def say(self, site, topic, **content):
        return decode(self.desk.handle(site, topic, encode(content)))

    def ask(self, site):
        return self.say(site, "ask", holds=self.stations[site].client.rounds.holds())

    def answer(self, site):
        client = self.stations[site].client
        facts, sections = self.ask(site)
        assert facts["do"] == "train", facts
        task = as_task(facts, sections, client.rounds.held)
        reply, _ = client.answer(task)
        number = task.server_round
        update = encode_update(
            reply, number, *client.rounds.outgoing(number), self.hall.config.wire
        )
        assert decode(self.desk.handle(site, "update", update))[0]["do"] == "go"

    def wait(self, seconds, *sites, done=0):
        """Let time pass in which ``sites`` say how far they are, and others that they are there."""
        until = self.now + seconds
        while self.now < until and self.job.verdict is None:
            self.now = min(until, self.now + 20.0)
            for site in self.stations:
                if site in sites:
                    self.say(site, "progress", round=self.job.number, done=done, loss=None)
                else:
                    self.say(site, "ask", holds={})
            self.desk.step()


def test_time_in_which_no_job_ran_is_not_waited(make_hall):
    hall = make_hall("us-a", "us-b")
    table = Table(hall, "us-a", "us-b")
    deadline = hall.config.network.deadline
    table.wait(deadline / 2, "us-a", "us-b")
    later = Table(hall, "us-a", "us-b", moment=table.now + 24 * HOUR)
    later.answer("us-a")
    later.desk.step()
    assert not later.job.late()
    assert later.job.server.finished == 0, "us-b still has half an hour"
    later.wait(deadline / 2 - 120, "us-b", done=1)
    assert later.job.server.finished == 0
    later.wait(240, "us-b", done=1)
    assert later.job.server.finished == 1


def test_a_site_whose_work_stands_still_holds_nobody_up_for_ever(make_hall):
    hall = make_hall(rounds=3)
    table = Table(hall, "us-a", "us-b", "mr-a")
    assert table.ask("mr-a")[0]["do"] == "train"
    table.answer("us-a")
    table.answer("us-b")
    table.wait(1.9 * HOUR, "mr-a", done=0)
    assert table.job.server.finished == 0
    table.wait(0.2 * HOUR, "mr-a", done=0)
    assert table.job.server.finished == 1
    assert table.job.verdict == ("next", "mr-a stood still")
    assert hall.told("still") == ["mr-a is there, but its work stands still"]
    assert hall.told("round") == ["round 1 is finished, without mr-a"]


def test_a_site_that_gets_on_is_waited_for_beyond_the_deadline(make_hall):
    hall = make_hall(rounds=3)
    table = Table(hall, "us-a", "us-b", "mr-a")
    table.answer("us-a")
    table.answer("us-b")
    assert table.ask("mr-a")[0]["do"] == "train"
    table.wait(1.5 * HOUR, "mr-a", done=0)
    table.wait(1.5 * HOUR, "mr-a", done=1)
    assert table.job.late()
    assert table.job.server.finished == 0
    table.wait(1.0 * HOUR, "mr-a", done=10**5)
    assert table.job.server.finished == 0
    table.wait(1.5 * HOUR, "mr-a", done=10**6)  # beyond its task
    assert table.job.server.finished == 1


def test_a_site_that_hangs_while_it_scores_is_not_waited_for(make_hall):
    hall = make_hall("us-a", "mr-a", rounds=1)
    table = Table(hall, "us-a", "mr-a")
    for _ in range(2):
        table.answer("us-a")
        table.answer("mr-a")
        table.desk.step()
    assert table.job.closing
    station, told = table.stations["us-a"], []
    station.beat.note = lambda done, _loss: told.append(done)
    station._score(*table.ask("us-a"))
    assert told, "it says when it scored a case"
    table.wait(2.1 * HOUR, "mr-a", done=1)
    assert table.job.verdict == ("finished", "the run is finished")


@pytest.mark.parametrize("relay", [1, 8])
def test_a_revoked_sites_update_of_the_open_round_counts_not(make_hall, relay):
    sites = ("us-a", "us-b", "us-c")
    hall = make_hall(*sites, rounds=4, strategy={"relay": relay}, network={"rounds-per-job": 2})
    assert hall.job(*sites)[0] == "next"
    table = Table(hall, *sites)
    table.answer("us-a")
    asked = table.ask("us-b")[0]
    assert asked["do"] == "train"
    hall.news = hall.record.changed("us-a", revoked="stolen kit")
    table.desk.step()
    server = table.job.server
    assert "us-a" not in server.answered
    assert hall.told("withdrawn") == ["the update of us-a counts not in round 3"]
    if relay == 1:
        assert table.job.verdict is None
        table.answer("us-b")
        table.answer("us-c")
        table.desk.step()
        assert sorted(server.replies()) == ["us-b", "us-c"]
        return
    assert table.job.verdict == ("next", "us-b went on from the update of us-a")
    again = Table(hall, "us-b", "us-c")
    again.desk.step()
    again.answer("us-b")
    assert again.job.server.turns.began_from("us-a") == []


def test_a_number_agreed_while_a_run_goes_on_counts_at_once(make_hall):
    hall = make_hall(rounds=3)
    table = Table(hall, "us-a", "us-b", "mr-a")
    table.answer("us-a")
    hall.news = hall.record.changed("us-a", cases=4)
    table.desk.step()
    assert table.job.server.answered == {"us-a"}
    assert table.say("us-b", "ask", holds={})[0]["do"] == "train"
    hall.news = hall.record.changed("us-a", cases=3).changed("us-b", cases=1)
    table.desk.step()
    assert hall.told("withdrawn") == ["the update of us-a counts not in round 1"]
    assert [text[:29] for text in hall.told("refused")] == [
        "us-a does not take part: it s",
        "us-b does not take part: it s",
    ]
    assert table.ask("us-a")[0]["do"] == "hello"
    facts = facts_of(hall.stores["us-a"], hall.text, show_cases=True).model_dump(mode="json")
    answer = table.say("us-a", "hello", facts=facts)[0]
    assert answer["do"] == "leave"
    assert "4 training cases, the consortium's record says 3" in answer["reason"]
    late = table.say("us-b", "update", round=1)[0]
    assert late["do"] == "drop"
    assert "2 training cases, the consortium's record says 1" in late["reason"]
    table.answer("mr-a")
    table.desk.step()
    assert hall.told("round") == ["round 1 is finished"]
    assert set(table.job.server.replies()) == {"mr-a"}


def newest(records):
    return max((record["round"] for record in records), default=0)


@pytest.mark.parametrize("closing", [False, True])
def test_a_disk_that_is_full_just_after_a_round_costs_nothing(
    make_hall, monkeypatch, as_simulated, tmp_path, closing
):
    from flames.federation.network import watch
    from flames.federation.simulation import simulate

    monkeypatch.setattr("flames.federation.network.desk.REST_SECONDS", 0.0)
    hall = make_hall("us-a", rounds=2)
    save, left = watch.save_lines, [3 if closing else 1]

    def once_full(path, records):
        if newest(records) == left[0]:
            left[0] = 0
            raise NotWritten("cannot write rounds.jsonl: No space left", "free some space")
        save(path, records)

    monkeypatch.setattr(watch, "save_lines", once_full)
    assert hall.job("us-a")[0] == "finished"
    assert left == [0]
    assert as_simulated(hall.run) == as_simulated(simulate(hall.config, tmp_path / "run"))
    assert [t for t in hall.told("round") if "round 1 is" in t] == ["round 1 is finished"]


def test_who_asks_before_the_round_is_noted_kills_nobody(make_hall, monkeypatch):
    from flames.federation.network import watch

    hall = make_hall("us-a", "us-b")
    table = Table(hall, "us-a", "us-b")
    table.desk.step()
    table.answer("us-a")
    table.answer("us-b")

    def full(path, records):
        raise NotWritten("cannot write rounds.jsonl: No space left", "free some space")

    monkeypatch.setattr(watch, "save_lines", full)
    table.desk.step()
    assert table.job.server.finished == 1
    assert table.ask("us-a")[0]["do"] == "train"
    assert not table.job.late()


def test_a_server_that_dies_just_after_the_last_round_has_all_its_records(make_hall, monkeypatch):
    from flames.federation.network import watch

    class Killed(BaseException):
        pass

    hall = make_hall("us-a", rounds=1)
    save = watch.save_lines

    def dies(path, records):
        if newest(records) == 2:
            raise Killed
        save(path, records)

    monkeypatch.setattr(watch, "save_lines", dies)
    table = Table(hall, "us-a")
    table.answer("us-a")
    table.desk.step()
    table.answer("us-a")
    with pytest.raises(Killed):
        table.desk.step()
    monkeypatch.setattr(watch, "save_lines", save)
    hall.seconds = time.time
    assert hall.job("us-a")[0] == "finished"
    assert {r["round"] for r in hall.run.load_rounds() if r["kind"] == "site"} == {1, 2}

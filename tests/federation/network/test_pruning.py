"""What a stopped server and a stopped site may forget, and what they never do."""

from __future__ import annotations

import os
import time

import pytest

from flames.errors import FlamesError
from flames.federation.network.kits import Kit
from flames.federation.network.processes import stopped
from flames.federation.network.pruning import prune
from flames.federation.network.run_book import RunBook
from flames.files import save_json

DAY = 86400.0


def job(number):
    return f"00000000-0000-4000-8000-{number:012d}"


def write(kit, *names, days):
    """Write files that nobody touched for so many days."""
    then = time.time() - days * DAY
    for name in names:
        path = kit.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x" * 10)
        os.utime(path, (then, then))
        for folder in path.parents[: len(path.relative_to(kit.path).parts) - 1]:
            os.utime(folder, (then, then))


def left(kit):
    return {str(p.relative_to(kit.path)) for p in kit.path.rglob("*") if p.is_file()}


RESULTS = ("config.toml", "cases.csv", "models/US.safetensors", "personal/us-a.safetensors")
JOURNAL = "state/events.jsonl"
WORK = ("state/server/round-0003/records.json", "state/scores/us-a.json", "state/start.safetensors")


@pytest.fixture
def server(tmp_path):
    kit = Kit(tmp_path / "server", "server", "server", "tests", "localhost:8102")
    kit.save()
    return kit


def begin(kit, run, *, status, days, jobs):
    write(kit, *(f"runs/{run}/{name}" for name in (*RESULTS, JOURNAL, *WORK)), days=days)
    write(kit, *(f"jobs/{job(n)}/meta" for n in jobs), days=days)
    changed = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() - days * DAY))
    about = {"status": status, "jobs": [job(n) for n in jobs], "changed": changed}
    save_json(RunBook(kit.runs / run).path / "state" / "run.json", about)


def test_a_server_keeps_results_and_journals_of_what_is_finished_and_all_of_what_can_go_on(server):
    begin(server, "old", status="finished", days=40, jobs=[1, 2])
    begin(server, "new", status="finished", days=5, jobs=[3])
    for number, status in enumerate(("running", "stopped", "failed")):
        begin(server, status, status=status, days=40, jobs=[10 + number, 20 + number])
    write(server, f"jobs/{job(99)}/meta", f"{job(99)}/log.txt", "transfer/a/b", days=40)
    write(server, f"{job(98)}/log.txt", days=5)
    write(server, "events.jsonl", "audit.log", "local/record.json", "startup/server.key", days=400)
    before = left(server)
    assert prune(server, days=30, dry_run=True)
    assert left(server) == before | {"running.lock"}
    prune(server, days=30)
    assert before - left(server) == {
        *(f"runs/old/{name}" for name in WORK),
        *(f"jobs/{job(n)}/meta" for n in (1, 2, 10, 11, 12)),
        f"{job(99)}/log.txt",
        "transfer/a/b",
    }
    assert prune(server, days=30) == []


def test_a_site_keeps_its_models_its_decisions_and_the_log_of_what_left(tmp_path):
    kit = Kit(tmp_path / "us-a", "site", "us-a", "tests", "localhost:8102")
    kit.save()
    own = ("order.json", "decision.json", "spent.json", "scored.json")
    for run, days in (("old", 40), ("new", 5)):
        write(kit, *(f"state/{run}/{name}" for name in own), days=days)
        write(kit, f"state/{run}/finished/personal.safetensors", days=days)
        write(kit, f"state/{run}/client/round-0003/weights.safetensors", days=days)
        os.utime(kit.state / run, (time.time() - days * DAY,) * 2)
    write(kit, "state/open/client/round-0003/weights.safetensors", days=40)
    # Its models are there before they are scored, and who scores them again needs its own.
    write(kit, "state/begun/finished/personal.safetensors", days=40)
    write(kit, "state/begun/client/round-0003/weights.safetensors", days=40)
    os.utime(kit.state / "begun", (time.time() - 40 * DAY,) * 2)
    write(kit, "outgoing.jsonl", "events.jsonl", "audit.log", "startup/client.key", days=400)
    write(kit, f"{job(1)}/log.txt", days=40)
    before = left(kit)
    (first, second) = prune(kit, days=30)
    assert (first.path, first.size) == (kit.path / job(1), 10)
    assert (second.path, second.size) == (kit.state / "old" / "client", 10)
    assert before - left(kit) == {
        f"{job(1)}/log.txt",
        "state/old/client/round-0003/weights.safetensors",
    }


@pytest.mark.usefixtures("small_network")
def test_a_site_whose_scores_did_not_arrive_keeps_what_it_scores_again(make_hall):
    hall = make_hall("us-a", "us-b", rounds=1, network={"silence": 3.0})

    def line(site, send):
        def call(topic, message):
            if (site, topic) == ("us-b", "scores"):
                hall.dead.add(site)
                hall.late = True
                return None
            return send(topic, message)

        return call

    hall.line = line
    assert hall.job("us-a", "us-b")[0] == "finished"
    kits = [hall.kit(site) for site in ("us-a", "us-b")]
    then = time.time() - 40 * DAY
    for path in (path for kit in kits for path in kit.path.rglob("*")):
        os.utime(path, (then, then))
    assert (kits[1].state / "hall" / "finished" / "personal.safetensors").exists()
    found = [[one.path for one in prune(kit, days=30)] for kit in kits]
    assert found == [[kits[0].state / "hall" / "client"], []]


def test_what_runs_is_not_pruned(server):
    write(server, f"{job(1)}/log.txt", days=40)
    with stopped(server), pytest.raises(FlamesError, match="is running already"):
        prune(server, days=30)
    assert (server.path / job(1)).exists()

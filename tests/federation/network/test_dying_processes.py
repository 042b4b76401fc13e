"""What dies, hangs or fills up in a federation of real processes, and what that costs: nothing.

One consortium serves all tests, and each test a run of its own. Where every update came in the end
the finished run must be the simulation's, bit for bit.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import time

import pytest

from flames.config import dump_config
from flames.federation.network.membership import revoke
from flames.federation.simulation import simulate
from flames.runs import RunFolder

pytest.importorskip("nvflare", reason="needs the extra 'network'")

from consortium_processes import Processes, wait_until
from tcp_proxy import Proxy

pytestmark = pytest.mark.slow

SITES = ("us-a", "us-b", "mr-a")
SECONDS = float(os.environ.get("FLAMES_TEST_SECONDS", "600"))
"""How long one run may take; more where other work fills the machine."""


@pytest.fixture(scope="module", autouse=True)
def _small_network():
    """Train the real network: the processes cannot be told of a smaller one."""
    return


@pytest.fixture(scope="module")
def proxied(tmp_path_factory, site_stores):
    """Return a consortium whose us-b reaches its server through a proxy."""
    made = Processes(tmp_path_factory.mktemp("dying"), site_stores)
    made.found()
    server = json.loads((made.kits / "server" / "kit.json").read_text())["server"]
    proxy = Proxy(int(server.partition(":")[2]))
    file = made.kits / "sites" / "us-b" / "startup" / "fed_client.json"
    file.write_text(file.read_text().replace(server, f"localhost:{proxy.own_port}"))
    made.start()
    yield made, proxy
    made.stop()
    proxy.stop()


@pytest.fixture
def processes(proxied):
    return proxied[0]


@pytest.fixture
def proxy(proxied):
    return proxied[1]


class Run:
    """One run of the consortium's."""

    def __init__(self, processes, config, name):
        self.processes, self.config, self.name = processes, config, name
        self.before = dict.fromkeys(SITES, 0)
        self.before = {site: len(self.texts(site)) for site in SITES}
        file = processes.folder / f"{name}.toml"
        file.write_text(dump_config(config), encoding="utf-8")
        self.out = processes.folder / name
        words = ("run", file, "--on", processes.person, "--out", self.out)
        self.command = processes.flames(*words, log=name)

    def texts(self, site):
        """Return what a site's own journal says since the run began."""
        return self.processes.events(f"sites/{site}")[self.before[site] :]

    def events(self):
        """Return what the run's journal says at the server."""
        ticket = self.out / "network.json"
        if not ticket.exists():
            return []
        name = json.loads(ticket.read_text())["run"]
        return self.processes.run_events(name)

    def told(self, words):
        return [text for text in self.events() if words in text]

    def until(self, words, site=None):
        """Wait until the run's journal, or a site's own, says something."""

        def said():
            assert self.command.poll() is None, self.processes.say()
            texts = self.texts(site) if site else self.events()
            return any(words in text for text in texts)

        wait_until(said, SECONDS, f"{words}\n{self.processes.say()}")

    def finished(self):
        """Return the finished run folder."""
        try:
            code = self.command.wait(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            self.command.kill()
            pytest.fail("\n".join(self.events()[-30:]) + self.processes.say())
        assert code == 0, self.processes.say()
        return RunFolder(self.out)


@pytest.fixture
def begin(processes, make_config):
    """Return a function that begins a run, and see to it that none goes on after a test."""
    made = []

    def begin_run(name, *, network=None, **given):
        times = {"silence": 20, "deadline": 600} | (network or {})
        made.append(Run(processes, make_config(**given, network=times), name))
        return made[-1]

    yield begin_run
    for run in made:
        if run.command.poll() is None:
            processes.do("stop", run.out, log="stop")
            run.command.kill()


@pytest.fixture
def small_disk():
    """Return a function that puts a folder on a disk of its own, and returns one that grows it."""
    mounted = []

    def mount(folder, size):
        folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
            pytest.skip("a full disk needs the right to mount a small one")
        mounted.append(folder)

        def more_room(size):
            subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)

        return more_room

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def undisturbed(tmp_path, as_simulated):
    """Return a function that says whether a run is the simulation's."""

    def same(run):
        simulated = simulate(run.config, tmp_path / "simulated")
        return as_simulated(run.finished()) == as_simulated(simulated)

    return same


def once(run):
    """Return whether every round was finished once."""
    rounds = [text.split(" is finished")[0] for text in run.told(" is finished")]
    rounds = [text for text in rounds if text.startswith("round ")]
    return rounds == [f"round {n}" for n in range(1, run.config.rounds + 2)]


def test_a_site_that_is_killed_while_it_trains_costs_nothing(processes, begin, undisturbed):
    run = begin("killed-site")
    run.until("round 1 begins", "mr-a")
    for job in processes.job_processes("mr-a"):
        job.kill()
    run.until("round 2 begins", "us-b")
    processes.kill("us-b")
    processes.start_site("us-b")
    assert undisturbed(run)
    assert once(run)
    assert not [text for text in run.texts("us-b") if "does not take this site in" in text]


def test_a_server_that_is_killed_goes_on_after_the_last_round(processes, begin, undisturbed):
    run = begin("killed-server")
    run.until("answered round 1")
    processes.kill("server")
    processes.start_server()
    run.until("round 1 is finished")
    processes.kill("server")
    processes.start_server()
    assert undisturbed(run)
    assert once(run)


def test_a_site_that_hangs_beyond_the_deadline_comes_back(processes, begin):
    run = begin("hanging-site", rounds=3, network={"silence": 10, "deadline": 60})
    run.until("round 1 begins", "us-b")
    frozen = processes.freeze("us-b")
    try:
        run.until("round 1 is finished, without us-b")
    finally:
        processes.thaw(frozen)
    finished = run.finished()
    answered = [r for r in finished.load_rounds() if r["kind"] == "site" and r["site"] == "us-b"]
    assert 1 not in [record["round"] for record in answered]
    assert answered
    assert set(finished.personal_models()) == set(SITES)
    assert once(run)


def test_a_bad_line_costs_nothing(processes, proxy, begin, undisturbed):
    run = begin("bad-line")
    proxy.delay = 0.02
    run.until("round 1 begins", "us-b")
    proxy.drop()
    run.until("us-b answered round 1")
    proxy.cut_after = 3_000_000
    proxy.drop()
    wait_until(lambda: proxy.breaks, SECONDS, processes.say())
    proxy.cut_after, proxy.delay = None, 0.0
    proxy.open = False
    proxy.drop()
    time.sleep(3)
    proxy.open = True
    assert undisturbed(run)
    assert once(run)


def test_a_full_disk_at_a_site_is_waited_for(processes, begin, small_disk, undisturbed):
    more_room = small_disk(processes.kits / "sites" / "us-b" / "state", "20m")
    run = begin("full-site")
    run.until("us-b waits: its disk is full")
    assert any("cannot write" in text for text in run.texts("us-b"))
    more_room("400m")
    assert undisturbed(run)
    assert once(run)


def test_a_full_disk_at_the_server_is_waited_for(processes, begin, small_disk, undisturbed):
    folder = processes.kits / "server" / "runs"
    more_room = small_disk(folder, "40m")
    run = begin("full-server")
    wait_until(lambda: shutil.disk_usage(folder).free < 8_000_000, SECONDS, processes.say())
    time.sleep(8)
    more_room("400m")
    assert undisturbed(run)
    assert once(run)


def test_twenty_rounds_in_which_a_coin_says_who_dies(processes, begin, undisturbed):
    coin = random.Random(20)
    run = begin(
        "coins",
        rounds=20,
        training={"local-steps": 1, "validation-images": 2},
        network={"silence": 8, "deadline": 10_000},
    )
    fates = []
    run.until("round 1 begins", "us-a")
    for number in range(1, 21):
        frozen = []
        for site in SITES:
            fates.append(coin.choice(("lives", "its job dies", "it dies", "it hangs")))
            if fates[-1] == "its job dies":
                for job in processes.job_processes(site):
                    job.kill()
            elif fates[-1] == "it dies":
                processes.kill(site)
                processes.start_site(site)
            elif fates[-1] == "it hangs":
                frozen += processes.freeze(site)
        time.sleep(2)
        processes.thaw(frozen)
        run.until(f"round {number} is finished")
    assert len(set(fates)) == 4
    assert undisturbed(run)
    assert once(run)


def test_a_revoked_site_is_told_so_and_the_run_goes_on(processes, begin):
    run = begin("revoked", network={"deadline": 30})
    run.until("round 1 begins", "mr-a")
    revoke(processes.kits, "mr-a", "left the trial")
    run.until("the server shut this site out: mr-a is revoked since", "mr-a")
    assert set(run.finished().personal_models()) == {"us-a", "us-b"}
    assert any("mr-a is revoked since" in text for text in processes.events("server"))

"""A run over a network without a network: one desk and its stations, in threads of this process."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from flames.config import RunConfig, SiteConfig, dump_config
from flames.data.store import SiteStore
from flames.federation.beginning import first_weights, make_strategy
from flames.federation.client import Client
from flames.federation.network.approval import Word, decide
from flames.federation.network.consortium import Member, Record
from flames.federation.network.desk import Desk
from flames.federation.network.gate import Gate
from flames.federation.network.guard import Guard
from flames.federation.network.job_state import JobState
from flames.federation.network.journal import Journal
from flames.federation.network.kits import Kit
from flames.federation.network.outgoing import OutgoingLog
from flames.federation.network.policy import Policy
from flames.federation.network.run_state import RunState
from flames.federation.network.scoring import own_of_earlier
from flames.federation.network.station import Station
from flames.federation.network.watch import Watch
from flames.federation.server import Server
from flames.federation.simulation import simulate
from flames.models.precision import choose_precision
from flames.runs import RunFolder

# Test modules are imported one by one, without their folder: their shared helpers need it.
sys.path.insert(0, str(Path(__file__).parent))

Send = Callable[[str, bytes], bytes | None]
Line = Callable[[str, Send], Send]


@dataclass
class Hall:
    """A consortium in one process; every `job` is a new desk with new stations."""

    folder: Path
    config: RunConfig
    stores: dict[str, SiteStore]
    everybody: bool = False
    connected: set[str] = field(default_factory=set)
    line: Line = lambda _site, send: send
    client_of: Callable[[Client], Client] = lambda client: client
    dead: set[str] = field(default_factory=set)
    policies: dict[str, Policy] = field(default_factory=dict)
    agreed: dict[str, int] = field(default_factory=dict)
    """Training cases of a site, at most."""
    clock: Callable[[], datetime] = datetime.now
    seconds: Callable[[], float] = time.time
    """The server's clock."""
    late: bool = False
    """Whether the deadline of every round is over."""
    news: Record | None = None
    """The record as it became while a job runs."""

    @property
    def text(self) -> str:
        sites = tuple(
            SiteConfig(name=site.name, local_steps=site.local_steps) for site in self.config.sites
        )
        return dump_config(self.config.model_copy(update={"sites": sites}))

    @property
    def record(self) -> Record:
        return Record(
            name="hall",
            sites={
                name: Member(
                    modality=store.modality,
                    organ=store.organ,
                    cases=self.agreed.get(name),
                    certificate="-",
                )
                for name, store in self.stores.items()
            },
            people={},
        )

    @property
    def events(self) -> list[dict[str, Any]]:
        return Journal(self.folder / "run" / "state" / "events.jsonl").read()

    def told(self, event: str) -> list[str]:
        return [e["text"] for e in self.events if e["event"] == event]

    def desk(self, sites: list[str]) -> Desk:
        state = RunState.claim(self.folder / "run", self.text, everybody=self.everybody)
        server = Server(
            [],
            config=state.config,
            strategy=make_strategy(state.config),
            start=first_weights(state.config, state.run),
            folder=state.run.state / "server",
        )
        house = Journal(self.folder / "server.jsonl")
        job = JobState(state, server, self.record, sites, house=house, clock=self.seconds)
        job.late = lambda: self.late  # type: ignore[method-assign]
        return Desk(
            Watch(
                job,
                returned=lambda: dict.fromkeys(self.connected, 0.0),
                news=lambda: self.news or self.record,
            )
        )

    def station(self, site: str, desk: Desk) -> Station:
        kit = self.kit(site)
        folder = kit.state / "hall"
        client = Client(
            site,
            [self.stores[site]],
            config=self.config,
            strategy=make_strategy(self.config),
            precision=choose_precision(self.config.training.precision),
            folder=folder / "client",
            earlier=own_of_earlier(folder, self.config),
        )
        send = self.line(site, lambda topic, message: desk.handle(site, topic, message))
        policy = self.policies.get(site, Policy())
        return Station(
            self.client_of(client),
            self.text,
            Gate(send, self.log(site), "hall", policy),
            guard=Guard(
                policy,
                run="hall",
                config=self.config,
                config_text=self.text,
                folder=folder,
                clock=self.clock,
            ),
            stopped=lambda: desk.verdict is not None or site in self.dead,
            journal=Journal(kit.events),
            folder=folder,
        )

    def kit(self, site: str) -> Kit:
        return Kit(self.folder / "sites" / site, "site", site, "hall", "-")

    def log(self, site: str) -> OutgoingLog:
        return OutgoingLog(self.kit(site).outgoing)

    def decide(self, site: str, word: Word, reason: str = "") -> None:
        """Let a person at a site decide on the run."""
        decide(self.kit(site), "hall", word, digest=None, reason=reason)

    def job(self, *sites: str, seconds: float = 60.0) -> tuple[str, str]:
        """Run one job at ``sites``; return how the desk ended it."""
        desk = self.desk(list(sites))
        stations = [self.station(site, desk) for site in sites]
        threads = [threading.Thread(target=s.run, daemon=True) for s in stations]
        for thread in threads:
            thread.start()
        until = time.monotonic() + seconds
        while desk.step() is None and time.monotonic() < until:
            time.sleep(0.02)
        for thread in threads:
            thread.join(timeout=20)
        assert desk.verdict is not None, "the job did not end"
        return desk.verdict

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.folder / "run")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody wait longer than a test needs."""
    monkeypatch.setattr("flames.federation.network.station.POLL_SECONDS", 0.02)


@pytest.fixture
def make_hall(
    tmp_path: Path,
    make_config: Callable[..., RunConfig],
    site_stores: dict[str, SiteStore],
    third_store: dict[str, SiteStore],
) -> Callable[..., Hall]:
    """Return a function that makes a hall: ``make_hall("us-a", "us-b", rounds=3)``."""

    def make(*sites: str, **given: Any) -> Hall:
        config = make_config(*sites, **given)
        names = [site.name for site in config.sites]
        stores = site_stores | third_store
        return Hall(tmp_path / "hall", config, {name: stores[name] for name in names})

    return make


@pytest.fixture(scope="session")
def as_simulated() -> Callable[[RunFolder], dict[str, object]]:
    """Return a function that gives all of a run that must equal a simulation's."""

    def read(run: RunFolder) -> dict[str, object]:
        files = [*run.server_models().values(), *run.personal_models().values()]
        files += [run.cases, run.calibration, run.affinity, run.splits]
        left_out = ("seconds", "bytes_up", "bytes_down")
        records = [{k: v for k, v in r.items() if k not in left_out} for r in run.load_rounds()]
        contents = {str(p.relative_to(run.path)): p.read_bytes() for p in files}
        return contents | {"rounds": records, "scores": run.load_summary()["scores"]}

    return read


@pytest.fixture(scope="module")
def small_network() -> Iterator[None]:
    """Train a tiny network."""
    import flames.models  # noqa: F401

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["flames.models.unet"], "FILTERS", (4, 8, 16))
        yield


@pytest.fixture(scope="module")
def three_sites(
    tmp_path_factory: pytest.TempPathFactory, make_config: Callable[..., RunConfig]
) -> RunFolder:
    """Return a simulation of all three sites."""
    return simulate(make_config(), tmp_path_factory.mktemp("simulated") / "run")


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of kits of a consortium of two sites and a person."""
    from consortium_kits import TOML

    from flames.federation.network.membership import found_consortium

    folder = tmp_path_factory.mktemp("consortium")
    (folder / "consortium.toml").write_text(TOML)
    found_consortium(folder / "consortium.toml", folder / "kits")
    return folder / "kits"


@pytest.fixture
def kits(founded: Path, tmp_path: Path) -> Path:
    """Return a copy of the kits."""
    return shutil.copytree(founded, tmp_path / "kits")


@pytest.fixture
def clock() -> Any:
    """Return a clock that stands still."""
    from consortium_kits import Clock

    return Clock()


@pytest.fixture
def porter(kits: Path, clock: Any) -> Any:
    """Return the server's porter."""
    from flames.federation.network.porter import Porter

    return Porter(Kit.open(kits / "server", "server"), clock)

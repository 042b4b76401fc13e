"""One finished small run, and what of a run must repeat bit for bit."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flames.config import RunConfig
from flames.data.store import SiteStore
from flames.federation.beginning import make_strategy
from flames.federation.budget import Member
from flames.federation.client import Client
from flames.federation.server import Server
from flames.federation.simulation import simulate
from flames.models.precision import choose_precision
from flames.runs import RunFolder


@pytest.fixture(scope="module", autouse=True)
def _small_network() -> Iterator[None]:
    """Train a network of a tenth of a second: what is tried here is not its art."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["flames.models.unet"], "FILTERS", (4, 8, 16))
        yield


@pytest.fixture
def make_client(site_stores: dict[str, SiteStore], tmp_path: Path) -> Callable[[RunConfig], Client]:
    """Return a function that gives the client of ``us-a`` in a run, with a folder of its own."""

    def make(config: RunConfig) -> Client:
        return Client(
            "us-a",
            [site_stores["us-a"]],
            config=config,
            strategy=make_strategy(config),
            precision=choose_precision("float32"),
            folder=tmp_path / "client",
        )

    return make


@pytest.fixture
def make_server(make_config: Callable[..., RunConfig], tmp_path: Path) -> Callable[..., Server]:
    """Return a function that gives the server of three sites whose model is one number."""

    def make(relay: int = 8, rounds: int = 4, **strategy: Any) -> Server:
        config = make_config(
            "us-a",
            rounds=rounds,
            training={"validation-steps": 1},
            strategy={"name": "flames", "relay": relay, **strategy},
        )
        start = {"w": np.zeros(1, np.float32)}
        return Server(
            [Member(name, "US", 1) for name in "abc"],
            config=config,
            strategy=make_strategy(config),
            start=lambda _: start,
            folder=tmp_path / "server",
        )

    return make


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, make_config) -> RunFolder:
    """Return a run of two ultrasound sites and a lone MR site."""
    return simulate(make_config(), tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture(scope="module")
def two_sites(tmp_path_factory: pytest.TempPathFactory, make_config) -> RunFolder:
    """Return an unbroken run of the two ultrasound sites."""
    return simulate(make_config("us-a", "us-b"), tmp_path_factory.mktemp("unbroken") / "run")


@pytest.fixture(scope="session")
def outcome() -> Callable[[RunFolder], dict[str, object]]:
    """Return a function that gives all of a run that must not depend on time or on stops."""

    def read(run: RunFolder) -> dict[str, object]:
        files = [*run.server_models().values(), *run.personal_models().values(), run.cases]
        records = [
            {key: value for key, value in record.items() if key != "seconds"}
            for record in run.load_rounds()
        ]
        contents = {str(p.relative_to(run.path)): p.read_bytes() for p in files}
        return contents | {"rounds": records, "scores": run.load_summary()["scores"]}

    return read

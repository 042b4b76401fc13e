"""Two connections under one name, over real sockets: the first stays while it lives."""

from __future__ import annotations

import shutil
import time
from contextlib import contextmanager

import pytest

pytest.importorskip("nvflare", reason="needs the extra 'network'")

from nvflare.fuel.f3.drivers.net_utils import get_open_tcp_port
from nvflare.fuel.f3.drivers.tcp_driver import TcpDriver
from nvflare.fuel.f3.endpoint import Endpoint
from nvflare.fuel.f3.message import MessageReceiver
from nvflare.fuel.f3.sfm import conn_manager
from nvflare.fuel.utils.constants import Mode

from flames.federation.network import connections
from flames.federation.network.connections import GuardedConnections, ToldConnections
from flames.federation.network.journal import Journal
from flames.federation.network.kits import Kit
from flames.federation.network.membership import found_consortium
from flames.federation.network.porter import ALIVE_SECONDS, LINGER_SECONDS, Porter

TOML = """
name = "tests"
server = "localhost:8102"
[[sites]]
name = "us-a"
modality = "US"
organ = "breast"
[[people]]
name = "lead@example.org"
"""
APP = 1


class Driver(TcpDriver):
    """The engine's, which leaves a socket open whose other end was closed."""

    def close_connection(self, connection):
        super().close_connection(connection)
        connection.close()


class Heard(MessageReceiver):
    def __init__(self):
        self.words = []

    def process_message(self, endpoint, connection, app_id, message):
        del connection, app_id
        self.words.append((endpoint.name, bytes(message.payload)))


@pytest.fixture(scope="module")
def kits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("consortium")
    (folder / "consortium.toml").write_text(TOML)
    found_consortium(folder / "consortium.toml", folder / "kits")
    return folder / "kits"


@pytest.fixture
def porter(kits, tmp_path):
    return Porter(Kit.open(shutil.copytree(kits / "server", tmp_path / "server"), "server"))


@pytest.fixture
def server(porter):
    manager = GuardedConnections(Endpoint("server"))
    manager.porter = porter
    manager.heard = Heard()
    manager.register_message_receiver(APP, manager.heard)
    manager.port = get_open_tcp_port({})
    driver = Driver()
    manager.add_connector(driver, address(manager.port), Mode.PASSIVE)
    manager.start()
    until(lambda: driver.server)
    yield manager
    manager.stop()
    driver.server.server_close()


def address(port):
    return {"scheme": "tcp", "host": "localhost", "port": port, "path": ""}


@contextmanager
def site(server, folder, name="us-a"):
    manager = ToldConnections(Endpoint(name))
    manager.journal = Journal(folder / "events.jsonl")
    manager.add_connector(Driver(), address(server.port), Mode.ACTIVE)
    manager.start()
    try:
        yield manager
    finally:
        manager.stop()


def says(manager, words):
    manager.send_message(manager.find_endpoint("server"), APP, None, words)


def until(condition, seconds=15.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


def names(journal):
    return [event["text"] for event in journal.read()]


def test_the_first_connection_stays_and_the_second_is_told(server, porter, tmp_path):
    start = time.time()
    with site(server, tmp_path / "first") as first:
        until(lambda: first.find_endpoint("server"))
        until(lambda: server.find_endpoint("us-a"))
        porter.clock = lambda: start
        with site(server, tmp_path / "copy") as copy:
            until(lambda: "us-a" in porter.knocked)
            # The first answers what the server asks of it, long after the copy knocked.
            kept = server.get_connections("us-a")[0]
            until(lambda: kept.last_activity > start)
            porter.knocked["us-a"] -= 2 * LINGER_SECONDS
            until(lambda: names(copy.journal))
            assert copy.find_endpoint("server") is None
            assert "us-a is here already" in names(copy.journal)[0]
            says(first, b"still here")
            until(lambda: server.heard.words == [("us-a", b"still here")])
            assert server.get_connections("us-a") == [kept]
    (refused,) = porter.journal.read()
    assert (refused["why"], refused["who"]) == ("copied", "us-a")


def test_a_connection_that_fell_silent_makes_way(server, porter, tmp_path):
    with site(server, tmp_path / "first") as first:
        until(lambda: server.find_endpoint("us-a"))
        # Nothing comes from it any more, as from a stopped process or behind a cut line.
        first.process_frame = lambda *_: None
        porter.clock = lambda: time.time() + ALIVE_SECONDS
        kept = server.get_connections("us-a")[0]
        with site(server, tmp_path / "second") as second:
            until(lambda: second.find_endpoint("server"))
            until(lambda: server.get_connections("us-a") not in ([], [kept]))
            says(second, b"anew")
            until(lambda: ("us-a", b"anew") in server.heard.words)
    assert porter.journal.read() == []


def test_a_name_is_free_at_once_when_its_connection_ends(server, porter, tmp_path):
    with site(server, tmp_path / "first"):
        until(lambda: server.find_endpoint("us-a"))
        server.get_connections("us-a")[0].last_activity = time.time()
        server.get_connections("us-a")[0].conn.close()
    until(lambda: not server.get_connections("us-a"))
    with site(server, tmp_path / "second") as second:
        until(lambda: second.find_endpoint("server"))
    assert porter.journal.read() == []


def test_other_names_and_jobs_connect_beside_it(server, porter, tmp_path):
    for name in ("us-a", "us-a.job", "server.job"):
        with site(server, tmp_path / name, name) as manager:
            until(lambda one=manager: one.find_endpoint("server"))
    assert porter.journal.read() == []


def test_who_shows_anothers_certificate_is_the_engines_to_refuse(
    server, porter, tmp_path, monkeypatch
):
    def mismatch(*_):
        raise ValueError("the certificate is of us-b")

    with site(server, tmp_path / "first") as first:
        until(lambda: server.find_endpoint("us-a"))
        kept = server.get_connections("us-a")[0]
        for module in (connections, conn_manager):
            monkeypatch.setattr(module, "is_mtls_connection", lambda _: True)
        refused = []
        monkeypatch.setattr(
            server.identity_resolver,
            "require_match",
            lambda *given: (refused.append(given), mismatch()),
        )
        with site(server, tmp_path / "liar"):
            until(lambda: len(refused) >= 2)
            says(first, b"still here")
            until(lambda: server.heard.words)
        assert server.get_connections("us-a") == [kept]
    assert porter.knocked == {}
    assert porter.journal.read() == [], "us-a is not accused of what another did"

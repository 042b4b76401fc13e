"""Who comes in at the server, and who is turned away: what the porter says."""

from __future__ import annotations

import datetime
import json
import logging
import math
import shutil
import socket
import ssl
import threading
from collections import Counter
from types import SimpleNamespace

import pytest

pytest.importorskip("nvflare", reason="needs the extra 'network'")

from consortium_kits import PERSON, comes, crt, words
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from nvflare.fuel.f3.cellnet.defs import ReturnCode
from nvflare.fuel.f3.cellnet.utils import make_reply
from nvflare.fuel.hci.proto import InternalCommands
from nvflare.fuel.hci.server.constants import ConnProps
from nvflare.lighter.utils import Identity, generate_cert, serialize_cert
from nvflare.private.defs import CellMessageHeaderKeys, new_cell_message

from flames.errors import FlamesError
from flames.federation.network.commands import refusals
from flames.federation.network.connections import REFUSED, ToldConnections
from flames.federation.network.consortium import load_record
from flames.federation.network.door import GuardedListener, OwnName
from flames.federation.network.engine_log import REJECTED, Exit, JournalHandler
from flames.federation.network.identity import check_identity
from flames.federation.network.journal import Journal
from flames.federation.network.kits import Kit
from flames.federation.network.membership import add_site, renew, revoke
from flames.federation.network.porter import Knock, Porter


def test_who_knocks_cannot_steer_the_terminal_of_whoever_reads_of_it(kits, porter):
    odd = "us-a\x1b[2J"
    assert porter.message(odd, odd, "a token") is not None
    assert porter.message("server", odd, "a token") is not None
    kit = Kit.open(kits / "server", "server")
    events = refusals(kit)
    assert len(events) == 2
    assert all(event["text"].isprintable() and event["who"].isprintable() for event in events)


class Conn:
    """What the engine shows a filter of a person's command."""

    def __init__(self, user, request=None):
        self.props = {ConnProps.USER_NAME: user, ConnProps.REQUEST: request}
        self.errors = []

    def get_prop(self, name):
        return self.props[name]

    def append_error(self, text):
        self.errors.append(text)


def test_people_act_under_their_own_name_and_while_they_belong(kits, porter):
    own = OwnName(porter)
    request = new_cell_message({CellMessageHeaderKeys.CLIENT_NAME: PERSON})
    assert own.pre_command(Conn(PERSON, request), ["flames_status"])
    assert own.pre_command(Conn(PERSON), ["submit_job"]), "an upload comes without its message"
    assert own.pre_command(Conn(None, request), [InternalCommands.CERT_LOGIN, PERSON])
    for command in (["flames_status"], [InternalCommands.CERT_LOGIN, "other@example.org"]):
        conn = Conn("other@example.org", request)
        assert not own.pre_command(conn, command)
        assert "wants to act as other@example.org" in conn.errors[0]
    revoke(kits, PERSON)
    assert not own.pre_command(Conn(PERSON), ["submit_job"])
    assert words(porter) == ["foreign", "revoked"]


def test_an_old_certificate_is_refused_after_its_renewal(kits, porter):
    old = crt(kits, "us-a")
    assert comes(porter, kits, "us-a") is None
    renew(kits, "us-a", days=3)
    assert "was replaced on" in porter.message("us-a", "us-a", "token of us-a")
    porter.left("us-a")
    assert "was replaced on" in comes(porter, kits, "us-a", old)
    assert comes(porter, kits, "us-a") is None
    assert words(porter) == ["replaced"]
    ends = x509.load_pem_x509_certificate(crt(kits, "us-a")).not_valid_after_utc
    assert load_record(kits / "record.json").sites["us-a"].expires == ends.isoformat()
    check_identity(Kit.open(kits / "sites" / "us-a", "site"))
    assert comes(porter, kits, "us-b") is None
    renew(kits, "server")
    renew(kits, PERSON)
    with pytest.raises(FlamesError, match="knows no 'us-c'"):
        renew(kits, "us-c")


def test_what_is_not_ones_own_is_refused(kits, porter, clock):
    assert "certificate of us-b" in comes(porter, kits, "us-a", crt(kits, "us-b"))
    assert "is no person" in porter.register("person", "us-b", "_admin_1", crt(kits, "us-b"))
    assert "comes as us-b" in porter.register("site", "us-a", "us-b", crt(kits, "us-a"))
    assert "no certificate" in porter.register("site", "us-a", "us-a", b"rubbish")
    assert comes(porter, kits, "us-a") is None
    assert "says it is of us-b" in porter.message("us-b", "us-b", "token of us-a")
    assert "says it is of us-a, from us-b.job" in porter.message(
        "us-a", "us-b.job", "token of us-a"
    )
    assert "not registered" in porter.message("us-a", "us-a", "another token")
    assert "says it is the server's" in porter.message("server", "us-a.job", "server")
    assert set(words(porter)) == {"foreign", "unknown", "unregistered"}


def test_who_was_started_anew_comes_in_when_the_process_before_is_silent(kits, porter, clock):
    assert comes(porter, kits, "us-a") is None
    with pytest.raises(Knock):
        comes(porter, kits, "us-a")
    clock.now += 8
    assert porter.message("us-a", "us-a.job", "token of us-a") is None, "a job that still ends"
    clock.now += 9
    with pytest.raises(Knock):
        comes(porter, kits, "us-a")
    clock.now += 2
    assert comes(porter, kits, "us-a") is None
    assert words(porter) == []


def test_a_site_that_is_shut_out_says_why_and_leaves(tmp_path):
    left = []
    way_out = Exit(str(tmp_path / "events.jsonl"), leave=left.append)
    way_out.hear(make_reply(ReturnCode.OK, "", None))
    way_out.hear(make_reply(ReturnCode.TIMEOUT, "", None))
    assert left == []
    way_out.hear(make_reply(ReturnCode.UNAUTHENTICATED, "us-a is revoked since today", None))
    assert left == [1]
    (event,) = Journal(tmp_path / "events.jsonl").read()
    assert event["text"] == "the server shut this site out: us-a is revoked since today"


def test_a_servers_words_cannot_steer_a_sites_terminal(tmp_path):
    journal, words = Journal(tmp_path / "events.jsonl"), "no \x1b[2J\x1b[H" + "!" * 1000
    way_out = Exit(str(journal.path), leave=lambda _: None)
    way_out.hear(make_reply(ReturnCode.UNAUTHENTICATED, words, None))
    refusal = logging.LogRecord("n", logging.ERROR, "f", 1, f"{REJECTED}{words}", None, None)
    JournalHandler(str(journal.path)).emit(refusal)
    site = SimpleNamespace(journal=journal, _told=("", -math.inf))
    ToldConnections.update_endpoint(site, None, {REFUSED: words})
    texts = [event["text"] for event in journal.read()]
    assert len(texts) == 3
    for text in texts:
        assert text.isprintable()
        assert "no  [2J" in text
        assert len(text) < 600


def test_a_copied_kit_beside_the_original_is_refused(kits, porter, clock):
    assert comes(porter, kits, "us-a") is None
    refused = None
    for _ in range(20):
        clock.now += 2
        assert porter.message("us-a", "us-a", "token of us-a") is None
        try:
            refused = refused or comes(porter, kits, "us-a")
        except Knock:
            continue
    assert "us-a is here already" in refused
    assert words(porter) == ["copied"]


def signed_by_the_authority(kits, name):
    """Return a certificate that the authority's key signed, behind the record's back."""
    state = json.loads((kits / "authority" / "cert.json").read_text())
    root = serialization.load_pem_private_key(state["root_pri_key"].encode(), None)
    key = serialization.load_pem_private_key(
        (kits / "sites" / name / "startup" / "client.key").read_bytes(), None
    )
    return serialize_cert(
        generate_cert(Identity(name), Identity("tests"), root, key.public_key(), valid_days=9)
    )


def test_a_certificate_of_the_authority_that_is_not_in_the_record_is_refused(kits, porter):
    assert "not the record's" in comes(porter, kits, "us-a", signed_by_the_authority(kits, "us-a"))


def test_a_connection_does_not_outlive_its_certificate(kits, porter, clock):
    assert comes(porter, kits, "us-a") is None
    clock.now += 31 * 86400
    assert "expired on" in porter.message("us-a", "us-a", "token of us-a")
    assert words(porter) == ["expired"]


def test_a_server_that_starts_again_knows_whom_it_admitted(kits, porter, clock):
    assert comes(porter, kits, "us-a") is None
    again = Porter(Kit.open(kits / "server", "server"), clock)
    assert again.message("us-a", "us-a.job", "token of us-a") is None
    assert b"token of us-a" not in (kits / "server" / "admitted.json").read_bytes()
    assert "not registered" in again.message("us-b", "us-b", "token of us-b")


def test_without_a_record_nobody_comes_in(kits, clock):
    record = kits / "server" / "local" / "record.json"
    record.write_text("{")
    porter = Porter(Kit.open(kits / "server", "server"), clock)
    assert comes(porter, kits, "us-a") is not None
    shutil.copy(kits / "record.json", record)
    assert comes(porter, kits, "us-a") is None
    record.write_text("{ half")
    assert porter.message("us-a", "us-a", "token of us-a") is None


def test_tls_turns_an_expired_certificate_away_and_the_journal_says_so(kits, porter):
    kit = kits / "sites" / "us-a" / "startup"
    state = json.loads((kits / "authority" / "cert.json").read_text())
    root = serialization.load_pem_private_key(state["root_pri_key"].encode(), None)
    key = serialization.load_pem_private_key((kit / "client.key").read_bytes(), None)
    day = datetime.timedelta(days=1)
    past = datetime.datetime.now(datetime.UTC) - 2 * day
    expired = generate_cert(
        Identity("us-a"),
        Identity("tests"),
        root,
        key.public_key(),
        not_valid_before=past,
        not_valid_after=past + day,
    )
    (kit / "client.crt").write_bytes(serialize_cert(expired))
    with pytest.raises(FlamesError, match="expired on"):
        check_identity(Kit.open(kits / "sites" / "us-a", "site"))

    startup = kits / "server" / "startup"
    listener = GuardedListener.__new__(GuardedListener)
    listener.porter = porter
    listener.ssl_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    listener.ssl_context.verify_mode = ssl.CERT_REQUIRED
    listener.ssl_context.load_verify_locations(startup / "rootCA.pem")
    listener.ssl_context.load_cert_chain(startup / "server.crt", startup / "server.key")
    client = ssl.create_default_context(ssl.Purpose.SERVER_AUTH)
    client.check_hostname = False
    client.load_verify_locations(startup / "rootCA.pem")
    client.load_cert_chain(kit / "client.crt", kit / "client.key")
    with (
        socket.create_server(("127.0.0.1", 0)) as door,
        listener.ssl_context.wrap_socket(
            door, server_side=True, do_handshake_on_connect=False
        ) as guarded,
    ):
        listener.socket = guarded

        def serve():
            request, address = listener.get_request()
            with request:
                listener.finish_request(request, address)

        server = threading.Thread(target=serve)
        server.start()
        with (
            socket.create_connection(guarded.getsockname()) as line,
            pytest.raises(OSError, match="expired"),
            client.wrap_socket(line) as secure,
        ):
            secure.recv(1)
        server.join(timeout=10)
    [event] = refusals(Kit.open(kits / "server", "server"))
    assert event["why"] == "tls"
    assert event["text"] == "TLS turned away a connection from 127.0.0.1: certificate has expired"


def test_fifty_refused_identities_are_written_down_and_change_nothing(kits, porter, clock):
    for name in ("us-c", "us-d", "us-e"):
        add_site(kits, name, modality="US", organ="breast")
    old = crt(kits, "us-d")
    revoke(kits, "us-c")
    renew(kits, "us-d")
    renew(kits, "us-e", days=1)
    clock.now += 1.5 * 86400
    assert comes(porter, kits, "us-a") is None
    admitted = (kits / "server" / "admitted.json").read_bytes()
    unrecorded = signed_by_the_authority(kits, "us-b")
    own = crt(kits, "us-b")
    kinds = {
        "unknown": lambda n: porter.register("site", f"us-{n}", f"us-{n}", own),
        "person": lambda _: porter.register("person", "us-b", "_admin_1", own),
        "borrowed": lambda _: porter.register("site", "us-b", "us-b", crt(kits, "us-a")),
        "rubbish": lambda n: porter.register("site", "us-b", "us-b", own[: 30 * n]),
        "unrecorded": lambda _: porter.register("site", "us-b", "us-b", unrecorded),
        "elsewhere": lambda n: porter.register("site", "us-b", f"us-a.job-{n}", own),
        "revoked": lambda _: porter.register("site", "us-c", "us-c", crt(kits, "us-c")),
        "replaced": lambda _: porter.register("site", "us-d", "us-d", old),
        "expired": lambda _: porter.register("site", "us-e", "us-e", crt(kits, "us-e")),
        "token": lambda n: porter.message("us-a", "us-a", f"token {n}"),
    }
    for n in range(5):
        for kind, attempt in kinds.items():
            clock.now += 301
            assert attempt(n) is not None, kind
    assert Counter(words(porter)) == {
        "unknown": 10,
        "foreign": 20,
        "revoked": 5,
        "replaced": 5,
        "expired": 5,
        "unregistered": 5,
    }
    assert (kits / "server" / "admitted.json").read_bytes() == admitted
    assert porter.message("us-a", "us-a", "token of us-a") is None


def test_a_revoked_kit_cannot_fill_the_servers_journal(kits, porter, clock):
    own = crt(kits, "us-b")
    for n in range(1000):
        why = porter.register("site", f"us-{n}", "o" * 1_000_000, own)
        assert why == f"'us-{n}' is no site of the consortium"
    assert words(porter) == ["unknown"] * 100 + ["many"]
    assert porter.journal.path.stat().st_size < 60_000
    clock.now += 301
    porter.register("site", "us-x", "us-x", own)
    assert porter.journal.read()[-1]["who"] == "us-x"
    assert porter.register("site", "us-x", "us-x", own) == "'us-x' is no site of the consortium"
    assert len(words(porter)) == 102

"""Kits that are added, renewed and revoked: files, certificates, and what the porter says."""

from __future__ import annotations

import datetime
import json
import shutil
import socket
import ssl
import threading
from collections import Counter

import pytest

pytest.importorskip("nvflare", reason="needs the extra 'network'")

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from nvflare.fuel.f3.cellnet.defs import ReturnCode
from nvflare.fuel.f3.cellnet.utils import make_reply
from nvflare.fuel.hci.proto import InternalCommands
from nvflare.fuel.hci.server.constants import ConnProps
from nvflare.lighter.utils import Identity, generate_cert, serialize_cert
from nvflare.private.defs import CellMessageHeaderKeys, new_cell_message

from flames.errors import FlamesError
from flames.federation.network.commands import refusals, server_status
from flames.federation.network.consortium import load_consortium, load_record
from flames.federation.network.door import GuardedListener, OwnName
from flames.federation.network.engine_log import Exit
from flames.federation.network.identity import check_identity, join_kit, make_request
from flames.federation.network.journal import Journal
from flames.federation.network.kits import Kit
from flames.federation.network.membership import add_site, found_consortium, renew, revoke
from flames.federation.network.porter import Knock, Porter
from flames.federation.network.status import server_words

PERSON = "lead@example.org"
TOML = f"""
name = "tests"
server = "localhost:8102"
valid-days = 30
[[sites]]
name = "us-a"
modality = "US"
organ = "breast"
[[sites]]
name = "us-b"
modality = "US"
organ = "breast"
[[people]]
name = "{PERSON}"
"""


@pytest.fixture(scope="module")
def founded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("consortium")
    (folder / "consortium.toml").write_text(TOML)
    found_consortium(folder / "consortium.toml", folder / "kits")
    return folder / "kits"


@pytest.fixture
def kits(founded, tmp_path):
    return shutil.copytree(founded, tmp_path / "kits")


class Clock:
    def __init__(self):
        self.now = datetime.datetime.now(datetime.UTC).timestamp()

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def porter(kits, clock):
    return Porter(Kit.open(kits / "server", "server"), clock)


def crt(kits, name):
    folder = "people" if "@" in name else "sites"
    return (kits / folder / name / "startup" / "client.crt").read_bytes()


def comes(porter, kits, name, certificate=None):
    """Register as the engine does; return why it is turned away."""
    kind = "person" if "@" in name else "site"
    origin = "_admin_1" if kind == "person" else name
    certificate = certificate or crt(kits, name)
    why = porter.register(kind, name, origin, certificate)
    if why is None:
        porter.admit(name, origin, certificate, f"token of {name}")
    return why


def contents(folder):
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def words(porter):
    return [event["why"] for event in porter.journal.read()]


def test_one_more_site_changes_no_other_kit(kits, porter):
    before = {n: contents(kits / n) for n in ("sites/us-a", "sites/us-b", "people", "authority")}
    startup = contents(kits / "server" / "startup")
    assert "no site" in porter.register("site", "mr-a", "mr-a", crt(kits, "us-a"))
    kit = add_site(kits, "mr-a", modality="MR", organ="brain", days=7)
    assert all(contents(kits / name) == files for name, files in before.items())
    assert contents(kits / "server" / "startup") == startup
    record = load_record(kits / "server" / "local" / "record.json")
    assert record == load_record(kits / "record.json")
    assert (record.sites["mr-a"].modality, record.sites["mr-a"].organ) == ("MR", "brain")
    authority = x509.load_pem_x509_certificate((kit / "startup" / "rootCA.pem").read_bytes())
    made = x509.load_pem_x509_certificate(crt(kits, "mr-a"))
    made.verify_directly_issued_by(authority)
    assert (made.not_valid_after_utc - made.not_valid_before_utc).days == 7
    check_identity(Kit.open(kit, "site"))
    assert comes(porter, kits, "mr-a") is None, "the running porter must read the record again"
    with pytest.raises(FlamesError, match="belongs to tests already"):
        add_site(kits, "MR-A", modality="MR", organ="brain")
    with pytest.raises(FlamesError, match="modality"):
        add_site(kits, "xx", modality="XX", organ="brain")


def test_who_knocks_cannot_steer_the_terminal_of_whoever_reads_of_it(kits, porter):
    odd = "us-a\x1b[2J"
    assert porter.message(odd, odd, "a token") is not None
    assert porter.message("server", odd, "a token") is not None
    kit = Kit.open(kits / "server", "server")
    events = refusals(kit)
    assert len(events) == 2
    assert all(event["text"].isprintable() and event["who"].isprintable() for event in events)


def test_nobody_else_may_read_the_authoritys_key(founded):
    state = founded / "authority"
    files = [path for path in state.rglob("*") if path.is_file()]
    assert state.stat().st_mode & 0o777 == 0o700
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in files} == {"cert.json": "0o600"}


def test_the_record_is_made_of_the_certificates_in_the_kits(kits, porter):
    assert [comes(porter, kits, name) for name in ("us-a", "us-b", PERSON)] == [None] * 3
    assert porter.message("us-a", "us-a.job", "token of us-a") is None
    assert porter.message("server", "server.job", "server") is None
    assert words(porter) == []


@pytest.mark.parametrize("name", ["us-b", PERSON])
def test_who_is_revoked_is_out_at_the_next_message(kits, porter, name):
    assert comes(porter, kits, name) is None
    origin = "_admin_1" if "@" in name else name
    assert porter.message(name, origin, f"token of {name}") is None
    revoke(kits, name, "left the trial")
    assert "is revoked since" in porter.message(name, origin, f"token of {name}")
    assert "left the trial" in comes(porter, kits, name)
    assert "is revoked since" in porter.shut_out(f"token of {name}")
    assert comes(porter, kits, "us-a") is None
    assert porter.shut_out("token of us-a") is None
    assert words(porter) == ["revoked"], "the same refusal is told once"
    for change in (revoke, renew):
        with pytest.raises(FlamesError, match="is revoked since"):
            change(kits, name)


def test_a_revoked_name_is_not_given_again(kits):
    revoke(kits, "us-a")
    with pytest.raises(FlamesError, match="already, and is revoked since"):
        add_site(kits, "us-a", modality="US", organ="breast")


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


def test_a_damaged_record_is_told_and_the_one_before_stays_in_force(kits, porter):
    assert comes(porter, kits, "us-a") is None
    path, kit = kits / "server" / "local" / "record.json", Kit.open(kits / "server", "server")
    good = json.loads(path.read_text())
    bad = json.loads(path.read_text())
    bad["sites"]["us-a"] |= {"revoked": "today", "note": "a typing error"}
    path.write_text(json.dumps(bad))
    for _ in range(3):
        assert porter.message("us-a", "us-a", "token of us-a") is None
    (told,) = [e["text"] for e in porter.journal.read() if e["event"] == "record"]
    assert "the one before stays in force" in told
    assert "note" in told
    for latest in (porter.latest, None):
        said = server_words({"running": True, **server_status(kit, latest)})
        assert "the record cannot be read, changes in it count not" in said
    assert "site us-a" in server_words({"running": True, **server_status(kit, porter.latest)})
    path.unlink()
    assert porter.message("us-a", "us-a", "token of us-a") is None
    good["sites"]["us-a"]["revoked"] = "today"
    path.write_text(json.dumps(good))
    assert "is revoked since today" in porter.message("us-a", "us-a", "token of us-a")
    texts = [e["text"] for e in porter.journal.read() if e["event"] == "record"]
    assert texts[-1] == "the record is in force again"
    assert server_status(kit)["record"] == ""


def test_the_status_shows_refusals(kits, porter, clock):
    revoke(kits, "us-b", "left")
    for _ in range(3):
        comes(porter, kits, "us-b")
    clock.now += 400
    comes(porter, kits, "us-b")
    kit = Kit.open(kits / "server", "server")
    assert [event["why"] for event in refusals(kit)] == ["revoked", "revoked"]
    said = server_words({"running": True, **server_status(kit)})
    assert "us-b is revoked since" in said
    assert "(2 more times before)" in said


@pytest.mark.parametrize(
    ("status", "number", "words"),
    [
        ("running", 2, "run r: running, round 2 of 2"),
        ("running", 3, "run r: running, closing"),
        ("running", None, "run r: running, round 1 of 2"),
        ("finished", 3, "run r: finished"),
        ("failed", 1, "run r: failed, round 1 of 2: no site"),
    ],
)
def test_the_status_says_where_a_run_stands(kits, status, number, words):
    run = {"status": status, "round": number, "rounds": 2, "sites": {}}
    run["cause"] = "no site" if status == "failed" else ""
    report = {
        "running": True,
        **server_status(Kit.open(kits / "server", "server")),
        "runs": {"r": run},
    }
    assert server_words(report).splitlines()[-1].strip() == words


def test_a_key_that_the_site_made_never_leaves_it(kits, porter, tmp_path):
    key, request = make_request("mr-a", tmp_path / "at the site")
    assert key.stat().st_mode & 0o777 == 0o600
    add_site(kits, "mr-a", modality="MR", organ="brain", request=request)
    kit = Kit.open(kits / "sites" / "mr-a", "site")
    assert not list(kits.rglob("mr-a/**/*.key"))
    assert key.read_text() not in "".join(
        path.read_text(errors="replace") for path in contents(kits)
    )
    with pytest.raises(FlamesError, match="holds no private key"):
        check_identity(kit)
    other, _ = make_request("mr-a", tmp_path / "another")
    with pytest.raises(FlamesError, match="is not the key of the certificate"):
        join_kit(kit, other)
    join_kit(kit, key)
    check_identity(kit)
    assert comes(porter, kits, "mr-a") is None
    assert str(load_consortium(kits / "consortium.toml").sites[-1].request).endswith(
        "kits/requests/mr-a.csr"
    )
    first = crt(kits, "mr-a")
    renew(kits, "mr-a")
    assert crt(kits, "mr-a") != first
    join_kit(kit, key)
    check_identity(kit)
    _, new_request = make_request("mr-a", tmp_path / "new")
    renew(kits, "mr-a", request=new_request)
    with pytest.raises(FlamesError, match="is not the key"):
        join_kit(kit, key)


def test_a_request_in_another_name_is_refused(kits, tmp_path):
    _, request = make_request("us-b", tmp_path)
    before = contents(kits)
    with pytest.raises(FlamesError, match="is not one of mr-a"):
        add_site(kits, "mr-a", modality="MR", organ="brain", request=request)
    assert contents(kits) == before
    with pytest.raises(FlamesError, match="exists already"):
        make_request("us-b", tmp_path)


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

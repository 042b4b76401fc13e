"""Kits that are added, renewed and revoked: files, certificates and the record."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("nvflare", reason="needs the extra 'network'")

from consortium_kits import PERSON, TOML, comes, contents, crt, words
from cryptography import x509
from typer.testing import CliRunner

from flames.cli.main import app
from flames.errors import FlamesError
from flames.federation.network.commands import refusals, server_status
from flames.federation.network.consortium import load_consortium, load_record
from flames.federation.network.identity import check_identity, join_kit, make_request
from flames.federation.network.kits import Kit
from flames.federation.network.membership import add_site, found_consortium, renew, revoke
from flames.federation.network.status import server_words


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


def cases(kits, *words):
    return CliRunner().invoke(app, ["consortium", "cases", str(kits), *map(str, words)])


def test_an_agreed_number_of_cases_is_in_the_record_and_the_status(kits):
    path, kit = kits / "server" / "local" / "record.json", Kit.open(kits / "server", "server")
    add_site(kits, "mr-a", modality="MR", organ="brain", cases=40)
    assert load_record(path).sites["mr-a"].cases == 40
    assert "cases" not in json.loads(path.read_text())["sites"]["us-a"]
    assert "us-a may have at most 120 training cases" in cases(kits, "us-a", "--most", 120).stdout
    assert load_record(path) == load_record(kits / "record.json")
    assert load_record(path).sites["us-a"].cases == 120
    words = server_words({"running": True, **server_status(kit)})
    assert "us-a (US of breast, at most 120 training cases): not connected" in words
    assert "us-b (US of breast): not connected" in words
    revoke(kits, "us-b")  # other changes keep the number
    sites = {site.name: site.cases for site in load_consortium(kits / "consortium.toml").sites}
    assert sites == {"us-a": 120, "us-b": None, "mr-a": 40}
    assert "us-a may have any number of training cases" in cases(kits, "us-a", "--any").stdout
    assert load_record(path).sites["us-a"].cases is None
    for wrong, message in (
        (["us-a"], "one of --most and --any is needed"),
        (["us-a", "--any", "--most", 3], "one of --most and --any is needed"),
        ([PERSON, "--most", 3], f"{PERSON} is no site"),
        (["us-c", "--most", 3], "knows no 'us-c'"),
        (["us-b", "--most", 3], "us-b is revoked since"),
    ):
        assert message in str(cases(kits, *wrong).exception), wrong


def test_a_consortium_file_may_say_how_many_cases_were_agreed(tmp_path):
    toml = tmp_path / "consortium.toml"
    toml.write_text(TOML.replace('name = "us-a"', 'name = "us-a"\ncases = 120'))
    record = found_consortium(toml, tmp_path / "kits")
    assert {name: site.cases for name, site in record.sites.items()} == {"us-a": 120, "us-b": None}
    toml.write_text(TOML.replace('name = "us-a"', 'name = "us-a"\ncases = 0'))
    with pytest.raises(FlamesError, match="cases"):
        load_consortium(toml)


def test_a_server_without_a_port_is_named_plainly(tmp_path):
    toml = tmp_path / "consortium.toml"
    toml.write_text('name = "two"\nserver = "somewhere"\n', encoding="utf-8")
    with pytest.raises(FlamesError, match="server: write host:port"):
        load_consortium(toml)


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

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import flames.federation.network as network
from flames.errors import FlamesError
from flames.federation.network.gate import Gate
from flames.federation.network.messages import MessageError, encode
from flames.federation.network.outgoing import START, OutgoingLog
from flames.federation.network.outgoing_words import log_words, verdict_words


def sha256(message: bytes) -> str:
    return hashlib.sha256(message).hexdigest()


def fill(log: OutgoingLog, count: int) -> list[dict]:
    return [
        log.write("update", b"x" * n, run="a", server_round=n, holds=["weights"])
        for n in range(1, count + 1)
    ]


@pytest.fixture
def log(tmp_path) -> OutgoingLog:
    return OutgoingLog(tmp_path / "outgoing.jsonl")


# --- nothing leaves unlogged --------------------------------------------------------------------


@pytest.mark.usefixtures("small_network")
def test_whatever_reaches_the_server_is_in_the_log_before(make_hall):
    hall = make_hall()
    arrived: dict[str, list[tuple[str, str]]] = {}

    def line(site, send):
        def note(topic, message):
            logged = {(e["purpose"], e["sha256"]) for e in hall.log(site).read()}
            assert (topic, sha256(message)) in logged
            arrived.setdefault(site, []).append((topic, sha256(message)))
            return send(topic, message)

        return note

    hall.line = line
    assert hall.job("us-a", "us-b", "mr-a")[0] == "finished"
    for site in ("us-a", "us-b", "mr-a"):
        entries = list(hall.log(site).read())
        assert sorted((e["purpose"], e["sha256"]) for e in entries) == sorted(arrived[site])
        assert hall.log(site).verify().broken is None
        assert {e["run"] for e in entries} == {"hall"}
        updates = [e for e in entries if e["purpose"] == "update"]
        assert [e["round"] for e in updates] == [1, 2, 3]
        assert {"weights", "validation scores", "presence curves", "counts of cases"} <= set(
            updates[0]["holds"]
        )
        hello, scores = (
            next(e["holds"] for e in entries if e["purpose"] == word)
            for word in ("hello", "scores")
        )
        assert {"fingerprint", "case names", "counts of cases"} <= set(hello)
        assert {"scores per case", "personal weights"} <= set(scores)


def test_the_gate_is_the_only_way_out():
    """One function of the package hands bytes to the engine; only the gate is given it."""
    sources = {p.name: p.read_text() for p in Path(network.__file__).parent.glob("*.py")}
    sending = re.compile(r"\.(send_request|broadcast_request|fire_and_forget|send_message)\(")
    assert [name for name, text in sources.items() if sending.search(text)] == ["channel.py"]
    uses = {name: len(re.findall(r"\bsender\(", text)) for name, text in sources.items()}
    assert {name for name, count in uses.items() if count} == {"channel.py", "executor.py"}
    assert uses["executor.py"] == 1
    given = re.findall(r"\bsend\b", sources["executor.py"].split("sender(", 1)[1])
    assert given == ["send"], "the executor does something else with it than give it to the gate"
    assert "gate = Gate(send, OutgoingLog(" in sources["executor.py"]


def test_what_cannot_be_logged_does_not_leave(tmp_path):
    sent = []
    gate = Gate(lambda *message: sent.append(message[0]), OutgoingLog(tmp_path), "a")
    with pytest.raises(FlamesError, match="cannot write"):
        gate("update", encode({"round": 1}))
    gate = Gate(lambda *message: sent.append(message[0]), OutgoingLog(tmp_path / "log"), "a")
    with pytest.raises(MessageError):
        gate("update", b"no message at all")
    assert sent == []
    gate("update", encode({"round": 1}))
    assert sent == ["update"]


# --- the chain ----------------------------------------------------------------------------------


def test_an_empty_log_is_whole_and_entries_are_chained(log):
    assert log.verify().last == START
    assert verdict_words(log.verify()) == "nothing has left yet"
    entries = fill(log, 3)
    assert [e["previous"] for e in entries] == [START, entries[0]["hash"], entries[1]["hash"]]
    verdict = log.verify(contains=entries[1]["hash"][:16])
    assert (verdict.entries, verdict.last, verdict.broken) == (3, entries[2]["hash"], None)
    assert log.verify(contains="f" * 64).broken == f"no entry has the hash {'f' * 64}"


def reseal(line: bytes) -> bytes:
    """Change an entry and give it a hash that fits."""
    from flames.federation.network.outgoing import _hash

    entry = json.loads(line) | {"bytes": 5}
    return json.dumps(entry | {"hash": _hash(entry)}).encode() + b"\n"


TAMPERING = {
    "a changed number": (
        lambda ls: [ls[0], ls[1].replace(b'"bytes": 2', b'"bytes": 1'), *ls[2:]],
        2,
    ),
    "a changed number, resealed": (lambda ls: [ls[0], reseal(ls[1]), *ls[2:]], 3),
    "a removed entry": (lambda ls: [ls[0], *ls[2:]], 2),
    "a removed first entry": (lambda ls: ls[1:], 1),
    "a repeated entry": (lambda ls: [ls[0], ls[0], *ls[1:]], 2),
    "two in another order": (lambda ls: [ls[1], ls[0], *ls[2:]], 1),
    "noise": (lambda ls: [*ls[:3], b"{\n", ls[3]], 4),
    "an empty line": (lambda ls: [ls[0], b"\n", *ls[1:]], 2),
    "a list": (lambda ls: [b"[]\n", *ls], 1),
}


@pytest.mark.parametrize(("change", "line"), TAMPERING.values(), ids=TAMPERING)
def test_tampering_is_found_where_it_is(log, change, line):
    fill(log, 4)
    log.path.write_bytes(b"".join(change(log.path.read_bytes().splitlines(keepends=True))))
    broken = log.verify().broken
    assert broken is not None
    assert broken.startswith(f"line {line}: ")
    fill(log, 1)
    assert log.verify().broken == broken, "going on must not heal it"


def test_a_removed_end_is_found_by_a_hash_that_was_noted(log):
    last = fill(log, 4)[-1]["hash"]
    lines = log.path.read_bytes().splitlines(keepends=True)
    log.path.write_bytes(b"".join(lines[:3]))
    assert log.verify().broken is None
    assert log.verify(contains=last).broken


@pytest.mark.parametrize("left", [1, 2, 40, -2, -1])
def test_a_torn_line_is_kept_and_noted(log, left):
    fill(log, 2)
    lines = log.path.read_bytes().splitlines(keepends=True)
    torn = lines[1][:left]
    log.path.write_bytes(lines[0] + torn)
    assert "line 2 is torn" in str(log.verify().broken)
    fill(log, 1)
    verdict = log.verify()
    assert (verdict.broken, verdict.entries, verdict.repairs) == (None, 3, 1)
    note = next(e for e in log.read() if e["purpose"] == "repair")
    assert (note["bytes"], note["sha256"]) == (len(torn), sha256(torn))
    assert log.path.read_bytes().startswith(lines[0] + torn + b"\n")
    assert log.repair() == 0
    assert "1 torn line, noted" in verdict_words(verdict)


def test_a_torn_first_line_is_noted_too(log):
    log.path.write_bytes(b'{"n": 1, "ti')
    assert log.repair() == 12
    assert log.verify().broken is None


def test_a_death_while_a_torn_line_is_noted_breaks_nothing(log):
    fill(log, 2)
    begun = log.path.read_bytes() + b'{"n": 3, "time": "20'
    log.path.write_bytes(begun)
    assert log.repair() == 20
    noted = log.path.read_bytes()
    for cut in range(len(begun), len(noted) + 1):
        log.path.write_bytes(noted[:cut])
        fill(log, 1)
        verdict = log.verify()
        assert (verdict.broken, verdict.entries) == (None, 4), noted[:cut]
        assert verdict.repairs == 1
        assert log.path.read_bytes().startswith(noted[:cut])


def test_several_deaths_in_a_row_are_noted_by_one_entry(log):
    fill(log, 2)
    with log.path.open("ab") as file:
        file.write(b'{"n": 3, "ti')
    for left in (5, 100, 1, 200, 2):
        before = log.path.read_bytes()
        log.repair()
        log.path.write_bytes(log.path.read_bytes()[: len(before) + left])
    torn = log.path.read_bytes().split(b"\n", 2)[2]
    fill(log, 1)
    assert (log.verify().broken, log.verify().repairs) == (None, 1)
    assert next(e for e in log.read() if e["purpose"] == "repair")["sha256"] == sha256(torn)
    assert (torn.count(b"\n"), log.verify().entries) == (4, 4)


def test_what_does_not_begin_like_an_entry_is_not_taken_for_torn(log):
    fill(log, 2)
    with log.path.open("ab") as file:
        file.write(b"noise\n")
    fill(log, 1)
    assert str(log.verify().broken).startswith("line 3: ")


def test_a_torn_line_that_was_changed_later_is_found(log):
    fill(log, 1)
    with log.path.open("ab") as file:
        file.write(b'{"n": 2, "time"')
    fill(log, 1)
    log.path.write_bytes(log.path.read_bytes().replace(b'{"n": 2, "time"\n', b'{"n": 2, "tame"\n'))
    assert str(log.verify().broken).startswith("line 2: ")


def test_long_entries_are_chained(log):
    long = log.write("failed", b"", run="a", server_round=1, holds=["ä" * 90_000])
    assert log.write("ask", b"", run="a", server_round=None, holds=[])["previous"] == long["hash"]
    assert log.verify().entries == 2


WRITER = """
import sys
from pathlib import Path
from flames.federation.network.outgoing import OutgoingLog
log = OutgoingLog(Path(sys.argv[1]))
while True:
    log.write("ask", b"x", run="a" * 3000, server_round=1, holds=[])
"""


def test_a_killed_writer_leaves_a_log_that_goes_on(log):
    for _ in range(3):
        known = log.path.stat().st_size if log.path.exists() else 0
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(log.path)])
        until = time.monotonic() + 60
        while not log.path.exists() or log.path.stat().st_size < known + 100_000:
            assert time.monotonic() < until
            time.sleep(0.005)
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        log.write("update", b"y", run="b", server_round=1, holds=[])
        assert log.verify().broken is None


SOME = WRITER.replace("while True:", "for _ in range(40):")


def test_two_processes_write_one_chain(log):
    writers = [subprocess.Popen([sys.executable, "-c", SOME, str(log.path)]) for _ in range(2)]
    for writer in writers:
        assert writer.wait(60) == 0
    assert (log.verify().entries, log.verify().broken) == (80, None)


def test_the_table_folds_signs_of_life(log):
    for purpose in ("ask", "progress", "update", "ask"):
        log.write(purpose, b"x" * 1000, run="a", server_round=None, holds=["weights"])
    lines = list(log_words(log.read(), every=False))
    assert [line.split()[-3:] for line in lines[1:]] == [
        ["signs", "of", "life"],
        ["1,000", sha256(b"x" * 1000)[:12], "weights"],
        ["sign", "of", "life"],
    ]
    assert len(list(log_words(log.read(), every=True))) == 5


# --- a log that is moved away ---------------------------------------------------------------------


def test_a_log_that_is_moved_is_the_first_entry_of_the_next(log, tmp_path):
    fill(log, 3)
    before, last = log.path.read_bytes(), log.verify().last
    dest = tmp_path / "2027.jsonl"
    entry = log.archive(dest)
    assert dest.read_bytes() == before
    assert OutgoingLog(dest).verify(contains=last).broken is None
    assert (entry["n"], entry["bytes"], entry["sha256"]) == (1, len(before), sha256(before))
    fill(log, 2)
    assert [e["purpose"] for e in log.read()] == ["archive", "update", "update"]
    assert (log.verify().entries, log.verify().broken) == (3, None)
    assert "the 3 entries before are in 2027.jsonl" in list(log_words(log.read(), every=False))[1]
    assert [path.stat().st_mode & 0o077 for path in (log.path, dest)] == [0, 0]


def test_the_next_log_has_the_rights_of_the_one_before(log, tmp_path):
    fill(log, 1)
    log.path.chmod(0o640)
    log.archive(tmp_path / "before.jsonl")
    assert log.path.stat().st_mode & 0o777 == 0o640


def test_a_log_that_is_broken_empty_or_has_no_place_to_go_stays(log, tmp_path):
    with pytest.raises(FlamesError, match="nothing has left yet"):
        log.archive(tmp_path / "new.jsonl")
    fill(log, 3)
    with pytest.raises(FlamesError, match="is there already"):
        log.archive(log.path)
    with pytest.raises(FlamesError, match="cannot write"):
        log.archive(tmp_path / "nowhere" / "new.jsonl")
    log.path.write_bytes(log.path.read_bytes().replace(b'"round": 2', b'"round": 9'))
    before = log.path.read_bytes()
    with pytest.raises(FlamesError, match="is not moved: line 2"):
        log.archive(tmp_path / "new.jsonl")
    assert log.path.read_bytes() == before
    assert not (tmp_path / "new.jsonl").exists()

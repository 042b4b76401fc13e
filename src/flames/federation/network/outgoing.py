"""The log of everything that leaves a site: append-only, each entry chained to the one before.

::

    {"n": 7, "time": …, "run": …, "round": …, "purpose": …, "holds": […],
     "bytes": …, "sha256": …, "previous": …, "hash": …}

``sha256`` is of the message as it leaves, ``previous`` the ``hash`` of the entry before, and
``hash`` the SHA-256 of the entry without it. An entry is on disk before its message leaves. Whoever
changes or removes an entry breaks the chain there; whoever rewrites all that follows changes the
last hash, so note that down elsewhere from time to time.

A process that was killed while it wrote leaves half a line. It is kept: the next entry ends the
line and says how many bytes of which SHA-256 it was. One that was killed while it wrote that leaves
two, which the entry after them notes together.

A log that was moved away is the first entry of the one after it, with its bytes and its SHA-256.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flames.errors import FlamesError, NotWritten
from flames.federation.network.journal import now
from flames.files import flush, writing

START = "0" * 64
SIGNS_OF_LIFE = ("ask", "progress")
"""Purposes of messages that hold nothing of the site's images; hundreds of them a round."""
REPAIR = "repair"
ARCHIVE = "archive"
MOST_TORN = 100
"""Torn lines that one entry notes: so many deaths in a row, each while the last was noted."""
BEGINNING = b'{"n": '
CHUNK = 65536
Entry = dict[str, Any]


@dataclass(frozen=True)
class Verdict:
    """What checking a log found."""

    entries: int
    last: str
    """Hash of the last entry; `START` for an empty log."""
    repairs: int
    """Torn lines, each noted by the entry after it."""
    broken: str | None
    """Where and how the chain is broken, or None."""


@dataclass(frozen=True)
class OutgoingLog:
    """One site's log; several processes may write to it."""

    path: Path

    def write(
        self, purpose: str, payload: bytes, *, run: str, server_round: int | None, holds: list[str]
    ) -> Entry:
        """Write that a message is about to leave, and return the entry.

        Raises:
            FlamesError: It cannot be written; the message must then not leave.
        """
        facts = {
            "time": now(),
            "run": run,
            "round": server_round,
            "purpose": purpose,
            "holds": holds,
            "bytes": len(payload),
            "sha256": hashlib.sha256(payload).hexdigest(),
        }
        with self._open() as file:
            self._mend(file)
            return _append(file, facts, durable=purpose not in SIGNS_OF_LIFE)

    def repair(self) -> int:
        """Note a line that was torn; return its bytes, 0 where none is.

        Raises:
            FlamesError: The log cannot be written.
        """
        with self._open() as file:
            return self._mend(file)

    def archive(self, dest: Path) -> Entry:
        """Move the log to ``dest``, begin a new one with an entry of that, and return it.

        Nobody else may write to it meanwhile.

        Raises:
            FlamesError: There is no whole log, or ``dest`` is there or cannot be written.
        """
        verdict = self.verify()
        if verdict.broken or not verdict.entries:
            found = verdict.broken or "nothing has left yet"
            raise FlamesError(
                f"{self.path} is not moved: {found}", "see 'flames site log --verify'"
            )
        if dest.exists():
            raise FlamesError(f"{dest} is there already", "name a new file")
        with writing(dest):
            shutil.copy(self.path, dest)
            flush(dest)
            with dest.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        facts = {
            "time": now(),
            "run": "",
            "round": None,
            "purpose": ARCHIVE,
            "holds": [f"nothing left: the {verdict.entries} entries before are in {dest.name}"],
            "bytes": dest.stat().st_size,
            "sha256": digest,
        }
        begun = self.path.with_name(f".{self.path.name}.partial")
        begun.unlink(missing_ok=True)
        with OutgoingLog(begun)._open() as file:
            entry = _append(file, facts, durable=True)
        with writing(self.path):
            owned = self.path.stat()  # the site's, whoever moves its log
            os.chown(begun, owned.st_uid, owned.st_gid)
            begun.chmod(stat.S_IMODE(owned.st_mode))
            begun.replace(self.path)
        return entry

    def read(self) -> Iterator[Entry]:
        """Return all entries, oldest first; lines that are none are left out."""
        for line in self._lines():
            entry = _parse(line)
            if entry is not None:
                yield entry

    def verify(self, *, contains: str | None = None) -> Verdict:
        """Return whether the chain is whole.

        Args:
            contains: Hash of an entry, or its start, that must be in it.
        """
        entries, repairs, previous = 0, 0, START
        seen = contains is None
        for number, line in self._whole_lines():
            if not line.endswith(b"\n"):
                found = f"line {number} is torn: the next entry, or a start of the site, notes it"
                return Verdict(entries, previous, repairs, found)
            wrong = _wrong(_parse(line), entries + 1, previous)
            if wrong:
                return Verdict(entries, previous, repairs, f"line {number}: {wrong}")
            entry = json.loads(line)
            entries, previous = entries + 1, entry["hash"]
            repairs += entry["purpose"] == REPAIR
            seen = seen or previous.startswith(str(contains))
        missing = None if seen else f"no entry has the hash {contains}"
        return Verdict(entries, previous, repairs, missing)

    def _whole_lines(self) -> Iterator[tuple[int, bytes]]:
        """Return lines with their numbers, but for torn ones that the entry after them notes."""
        held: list[tuple[int, bytes]] = []
        for number, line in enumerate(self._lines(), start=1):
            if _notes(line, b"".join(torn for _, torn in held)):
                held = []
            if held and (len(held) == MOST_TORN or _parse(held[-1][1]) is not None):
                yield from held
                held = []
            held.append((number, line))
        yield from held

    def _lines(self) -> Iterator[bytes]:
        if self.path.exists():
            with self.path.open("rb") as file:
                yield from file

    @contextmanager
    def _open(self) -> Iterator[int]:
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                yield descriptor
            finally:
                os.close(descriptor)
        except OSError as error:
            raise NotWritten(
                f"cannot write {self.path}: {error.strerror}",
                "free some space: nothing leaves the site that is not written there",
            ) from error

    def _mend(self, file: int) -> int:
        """Note the torn lines at the end, where there are some; return their bytes."""
        torn = _torn_lines(file)
        if not torn:
            return 0
        ending = b"" if torn.endswith(b"\n") else b"\n"
        if _is_note(torn.rpartition(b"\n")[2]):
            # Only its line feed was missing: it notes what is above it.
            _write(file, ending)
            os.fsync(file)
            return 0
        facts = {
            "time": now(),
            "run": "",
            "round": None,
            "purpose": REPAIR,
            "holds": ["nothing left: the line above was torn while it was written"],
            "bytes": len(torn.removesuffix(b"\n")),
            "sha256": hashlib.sha256(torn.removesuffix(b"\n")).hexdigest(),
        }
        _append(file, facts, durable=True, above=len(torn), ending=ending)
        return len(torn)


def _append(
    file: int, facts: Entry, *, durable: bool, above: int = 0, ending: bytes = b""
) -> Entry:
    """Append an entry; ``above`` bytes at the end are torn lines, which ``ending`` ends."""
    line = _last_line(file, os.fstat(file).st_size - above)
    last = _parse(line) or {}
    if line and not last:
        # Somebody damaged it; the chain is broken there and says so, and goes on from what is.
        last = {"n": 0, "hash": hashlib.sha256(line).hexdigest()}
    entry = {"n": int(last.get("n", 0)) + 1, **facts, "previous": last.get("hash", START)}
    entry["hash"] = _hash(entry)
    _write(file, ending + json.dumps(entry, ensure_ascii=False).encode() + b"\n")
    if durable:
        os.fsync(file)
    return entry


def _write(file: int, content: bytes) -> None:
    while content:
        content = content[os.write(file, content) :]


def _last_line(file: int, end: int) -> bytes:
    """Return the last line before byte ``end``, with its line feed where it has one."""
    found = b""
    while end > 0:
        start = max(0, end - CHUNK)
        found = os.pread(file, end - start, start) + found
        cut = found.rfind(b"\n", 0, len(found) - 1)
        if cut >= 0:
            return found[cut + 1 :]
        end = start
    return found


def _torn_lines(file: int) -> bytes:
    """Return the lines at the end that somebody was killed in: the last one, where it has no line
    feed, and those above it that begin like an entry and are none.
    """
    end, torn = os.fstat(file).st_size, b""
    while torn.count(b"\n") < MOST_TORN and (line := _last_line(file, end)):
        unfinished = not line.endswith(b"\n")
        if not unfinished and (_parse(line) is not None or not _begins_like_one(line)):
            break
        torn, end = line + torn, end - len(line)
    return torn


def _begins_like_one(line: bytes) -> bool:
    """Return whether a line is the beginning of an entry, however short."""
    return len(line) > 1 and line[: len(BEGINNING)].rstrip(b"\n") == BEGINNING[: len(line) - 1]


def _is_note(line: bytes) -> bool:
    entry = _parse(line)
    return entry is not None and entry.get("purpose") == REPAIR and _hash(entry) == entry["hash"]


def _parse(line: bytes) -> Entry | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    whole = isinstance(entry, dict) and isinstance(entry.get("n"), int)
    return entry if whole and isinstance(entry.get("hash"), str) else None


def _wrong(entry: Entry | None, number: int, previous: str) -> str | None:
    if entry is None:
        return "it is no entry"
    if _hash(entry) != entry["hash"]:
        return "its content does not fit its hash"
    if entry.get("previous") != previous:
        return "it does not follow the entry before it"
    if entry["n"] != number:
        return f"it is entry {entry['n']}, where {number} was to follow"
    return None


def _notes(following: bytes, lines: bytes) -> bool:
    """Return whether the line after ``lines`` notes that they were torn."""
    entry = _parse(following) if lines else None
    if entry is None or entry.get("purpose") != REPAIR:
        return False
    return bool(entry.get("sha256") == hashlib.sha256(lines.removesuffix(b"\n")).hexdigest())


def _hash(entry: Entry) -> str:
    content = {key: value for key, value in entry.items() if key != "hash"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()

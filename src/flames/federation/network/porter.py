"""The porter: who may register at the server, and whose messages go on.

The engine makes sure that a certificate is the authority's, that whoever shows it holds its key,
and that a message carries a token which the server signed. That is not enough: the authority has
signed revoked and replaced certificates too, and a token outlives all of that. The porter asks the
consortium's record, which it reads again as soon as it changes, at every registration and at every
message. What it turns away it writes into the server's journal. It knows no engine.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from cryptography import x509

from flames.errors import FlamesError
from flames.federation.network.consortium import RESERVED, Identity, Latest, Member, Record
from flames.federation.network.identity import common_name, fingerprint
from flames.federation.network.journal import Journal
from flames.federation.network.kits import Kit
from flames.federation.network.said import plain
from flames.files import save_json

Kind = Literal["site", "person"]
ALIVE_SECONDS = 10.0
"""A site that was heard this long ago still holds its name: two signs of life."""
LINGER_SECONDS = 12.0
"""How long the last process of a site that died may still be heard after a new one knocks."""
TELL_AGAIN_SECONDS = 300.0
MOST_TOLD = 100
"""Different refusals that are written down in `TELL_AGAIN_SECONDS`: whoever has a certificate, also
a revoked one, may try as many names as there are."""
LONGEST_FACT = 200
"""Characters of what a line says beside its text, such as the cell that asked."""
BEFORE = "the consortium's record cannot be read, and the one before stays in force"
SESSIONS = 20
"""Connections of one person that are remembered."""


@dataclass(frozen=True)
class Admitted:
    """One registration: who, with which certificate, from which cell of the engine."""

    name: str
    certificate: str
    origin: str


@dataclass(frozen=True)
class Refusal:
    """Why somebody is turned away: a word for machines, a sentence for people."""

    word: str
    text: str


NOBODY = "-"
TOO_MANY = Refusal(
    "many", f"more than {MOST_TOLD} different refusals in five minutes: the others are not told"
)


class Knock(Exception):
    """A registration that is to come again in a moment."""


class Porter:
    """The consortium's record, asked at every registration and message; one a server."""

    def __init__(self, kit: Kit, clock: Callable[[], float] = time.time) -> None:
        """Read who was admitted before: a server that starts again knows its sites.

        Args:
            kit: The server's.
            clock: Seconds since 1970.
        """
        self.latest = Latest(kit.record)
        self.journal = Journal(kit.events)
        self.clock = clock
        self.lock = threading.RLock()
        self.heard: dict[str, float] = {}
        self.knocked: dict[str, float] = {}
        self._admitted_file = kit.admitted
        self._admitted = _load_admitted(kit.admitted)
        self._trouble = ""
        self._told: dict[tuple[str, str], tuple[float, int]] = {}

    def register(self, kind: Kind, name: str, origin: str, certificate: Any) -> str | None:
        """Return why a registration is turned away, or None when the engine may go on with it.

        Args:
            kind: What it wants to be.
            name: That it claims.
            origin: The engine's cell that asks; a site's is its name.
            certificate: What it shows, PEM; the engine checks that it holds the key.

        Raises:
            Knock: Its name was in use a moment ago: it died and was started anew, or this is a
                copy. Which of both shows when it has knocked for a while.
        """
        with self.lock:
            shown = _parse(certificate)
            digest = fingerprint(shown) if shown else ""
            refusal = self._look(kind, name, origin, shown)
            return self.refuse(name, refusal, origin=origin, certificate=digest)

    def connect(self, name: str, cell: str, heard: float) -> str | None:
        """Return why a second connection under a name is turned away, or None when the first is.

        Args:
            name: Of the site or person that both say they are; TLS proved that they may.
            cell: The engine's cell whose name both want.
            heard: When the first was last heard, in seconds since 1970.

        Raises:
            Knock: The first was heard a moment ago; see :meth:`register`.
        """
        with self.lock:
            return self.refuse(name, self._copied(name, cell, heard), origin=cell)

    def admit(self, name: str, origin: str, certificate: Any, token: str) -> None:
        """Remember a registration that the engine completed.

        A site has one at a time; the earlier one counts no more.
        """
        shown = _parse(certificate)
        assert shown is not None
        with self.lock:
            record = self.record()
            own = [key for key, known in self._admitted.items() if known.name == name]
            keep = 0 if record is not None and name in record.sites else SESSIONS - 1
            for key in own[: max(0, len(own) - keep)]:
                del self._admitted[key]
            self._admitted[_key(token)] = Admitted(name, fingerprint(shown), origin)
            self.heard[name] = self.clock()
            self.knocked.pop(name, None)
            try:
                content = {key: asdict(known) for key, known in self._admitted.items()}
                save_json(self._admitted_file, content)
            except FlamesError as error:
                self.journal.write("trouble", error.found, remedy=error.remedy)

    def message(self, name: str, origin: str, token: str) -> str | None:
        """Return why a message is turned away, or None.

        Args:
            name: Of whom it says it is.
            origin: The engine's cell that sent it.
            token: That the engine gave at registration; it has checked its own signature.
        """
        with self.lock:
            if name in RESERVED:
                # Every reply of the server shows sites the signature of its own name.
                own = _within(origin, "server")
                lie = Refusal("foreign", f"a message from {origin[:100]} says it is the server's")
                return self.refuse(name, None if own else lie, origin=origin)
            admitted = self._admitted.get(_key(token))
            if admitted is None:
                refusal: Refusal | None = Refusal(
                    "unregistered", f"{name} is not registered, or another process is since"
                )
            elif admitted.name != name or not _within(origin, admitted.origin):
                refusal = Refusal(
                    "foreign", f"a message of {admitted.name} says it is of {name}, from {origin}"
                )
            else:
                refusal = self._standing(name, admitted.certificate)
            if refusal is None:
                self.heard[name] = self.clock()
            digest = admitted.certificate if admitted else ""
            return self.refuse(name, refusal, origin=origin, certificate=digest)

    def person(self, name: str) -> str | None:
        """Return why a person may not act, whatever session is shown, or None."""
        with self.lock:
            record = self.record()
            known = record.people.get(name) if record else None
            if known is None:
                unknown = Refusal("unknown", f"{name[:100]!r} is no person of the consortium")
                return self.refuse(name, unknown)
            return self.refuse(name, self._standing(name, known.certificate))

    def left(self, name: str) -> None:
        """Note that a site went: its name is free at once."""
        with self.lock:
            self.heard.pop(name, None)

    def shut_out(self, token: str) -> str | None:
        """Return why whoever has a token may not stay connected, or None."""
        with self.lock:
            known = self._admitted.get(_key(token))
            if known is None:
                return None
            refusal = self._standing(known.name, known.certificate)
            return self.refuse(known.name, refusal, certificate=known.certificate)

    def refuse(self, name: str, refusal: Refusal | None, **facts: Any) -> str | None:
        """Write a refusal into the journal, the same one not again and again; return its text."""
        if refusal is None:
            return None
        why = refusal.text
        with self.lock:
            key = (name, refusal.text)
            if key not in self._told and self._told_many():
                name, refusal, facts = NOBODY, TOO_MANY, {}
                key = (name, refusal.text)
            told, times = self._told.get(key, (float("-inf"), 0))
            if self.clock() - told >= TELL_AGAIN_SECONDS:
                more = {"times": times} if times else {}
                text, who = plain(refusal.text, 500), plain(name, 100)
                short = {word: str(fact)[:LONGEST_FACT] for word, fact in facts.items()}
                self.journal.write("refused", text, who=who, why=refusal.word, **short, **more)
                told, times = self.clock(), 0
            else:
                times += 1
            self._told[key] = (told, times)
        return why

    def _told_many(self) -> bool:
        """Return whether no other refusal is written down now; forget those of long ago."""
        if len(self._told) < MOST_TOLD:
            return False
        now = self.clock()
        self._told = {
            key: known for key, known in self._told.items() if now - known[0] < TELL_AGAIN_SECONDS
        }
        return len(self._told) >= MOST_TOLD

    def record(self) -> Record | None:
        """Return the record; None, and a word of it in the journal, while there never was one.

        While the one on disk is damaged it is the last good one; the journal says so once.
        """
        try:
            record = self.latest.read()
        except FlamesError as error:
            self.refuse("the record", Refusal("record", error.found))
            return None
        if self.latest.trouble != self._trouble:
            self._trouble = self.latest.trouble
            text = f"{BEFORE}: {self._trouble}" if self._trouble else "the record is in force again"
            self.journal.write("record", text)
        return record

    def _look(
        self, kind: Kind, name: str, origin: str, shown: x509.Certificate | None
    ) -> Refusal | None:
        record = self.record()
        known = record.find(name) if record else None
        if known is None or isinstance(known, Member) != (kind == "site"):
            return Refusal("unknown", f"{name[:100]!r} is no {kind} of the consortium")
        if shown is None:
            return Refusal("foreign", f"{name} shows no certificate")
        if common_name(shown) != name:
            holder = common_name(shown)[:100]
            return Refusal("foreign", f"{name} shows the certificate of {holder}")
        refusal = self._standing(name, fingerprint(shown))
        if refusal is not None:
            return refusal
        if kind == "site" and origin != name:
            return Refusal("foreign", f"{name} comes as {origin[:100]}")
        heard = self.heard.get(name, float("-inf"))
        return self._copied(name, name, heard) if kind == "site" else None

    def _copied(self, name: str, cell: str, heard: float) -> Refusal | None:
        """Return a refusal where who holds a name is heard long after another one knocked."""
        now = self.clock()
        if now - heard >= ALIVE_SECONDS:
            return None
        knocked = self.knocked.get(cell, float("-inf"))
        if now - knocked > 2 * (LINGER_SECONDS + ALIVE_SECONDS):
            knocked = self.knocked[cell] = now
        if heard - knocked <= LINGER_SECONDS:
            raise Knock(cell)
        del self.knocked[cell]
        return Refusal("copied", f"{name} is here already: its kit is in use in two places")

    def _standing(self, name: str, certificate: str) -> Refusal | None:
        """Return why a certificate is not, or no longer, good for a name."""
        record = self.record()
        known: Identity | None = record.find(name) if record else None
        if known is None:
            return Refusal("unknown", f"{name[:100]!r} is nobody of the consortium")
        if known.revoked:
            return Refusal("revoked", f"{name} is revoked since {known.revoked}")
        if certificate in known.replaced:
            when = known.replaced[certificate]
            return Refusal("replaced", f"the certificate of {name} was replaced on {when}")
        if certificate != known.certificate:
            return Refusal("foreign", f"{name} shows a certificate that is not the record's")
        if known.expires and datetime.fromisoformat(known.expires).timestamp() <= self.clock():
            return Refusal("expired", f"the certificate of {name} expired on {known.expires}")
        return None


def _parse(certificate: Any) -> x509.Certificate | None:
    try:
        content = certificate.encode() if isinstance(certificate, str) else bytes(certificate)
        return x509.load_pem_x509_certificate(content)
    except (TypeError, ValueError):
        return None


def _within(origin: str, registered: str) -> bool:
    return origin == registered or origin.startswith(f"{registered}.")


def _key(token: str) -> str:
    """Return what is kept of a token: whoever reads the file cannot use it."""
    return hashlib.sha256(token.encode()).hexdigest()


def _load_admitted(path: Path) -> dict[str, Admitted]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {str(key): Admitted(**known) for key, known in content.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}

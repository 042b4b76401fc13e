"""A kit: the folder with which a server, a site or a person takes part in a consortium."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from flames.errors import FlamesError
from flames.files import save_json

Kind = Literal["server", "site", "person"]
SCORED_FILE = "scored.json"
"""In a site's folder of a run, once the server has its scores and asks for nothing more."""


@dataclass(frozen=True)
class Kit:
    """Paths of a kit, and what it is for."""

    path: Path
    kind: Kind
    name: str
    consortium: str
    server: str
    """``host:port``."""
    role: str | None = None

    @classmethod
    def open(cls, path: Path, kind: Kind) -> Kit:
        """Return the kit at ``path``.

        Raises:
            FlamesError: There is none, or it is of another kind.
        """
        path = path.resolve()
        try:
            content = json.loads((path / "kit.json").read_text(encoding="utf-8"))
            kit = cls(path, **content)
        except (OSError, ValueError, TypeError) as error:
            raise FlamesError(
                f"{path} is not a kit: {error}", "name a folder that 'flames consortium' made"
            ) from error
        if kit.kind != kind:
            raise FlamesError(
                f"{path} is the kit of the {kit.kind} {kit.name}", f"name a {kind}'s kit"
            )
        return kit

    def save(self) -> None:
        """Write ``kit.json``."""
        content: dict[str, Any] = {
            "kind": self.kind,
            "name": self.name,
            "consortium": self.consortium,
            "server": self.server,
            "role": self.role,
        }
        save_json(self.path / "kit.json", content)

    @property
    def certificate(self) -> Path:
        """Return the certificate by which the engine proves who it is."""
        return self.path / "startup" / f"{'server' if self.kind == 'server' else 'client'}.crt"

    @property
    def key(self) -> Path:
        """Return the private key of that certificate."""
        return self.certificate.with_suffix(".key")

    @property
    def admitted(self) -> Path:
        """Return where the server keeps which registrations it admitted."""
        return self.path / "admitted.json"

    @property
    def events(self) -> Path:
        """Return the journal of what happened here."""
        return self.path / "events.jsonl"

    @property
    def outgoing(self) -> Path:
        """Return the log of everything that leaves a site."""
        return self.path / "outgoing.jsonl"

    @property
    def record(self) -> Path:
        """Return the consortium's record, in a server's kit."""
        return self.path / "local" / "record.json"

    @property
    def settings(self) -> Path:
        """Return where a site's kit keeps its store and policy."""
        return self.path / "local" / "site.json"

    @property
    def present(self) -> Path:
        """Return where the server keeps which sites are connected."""
        return self.path / "present.json"

    @property
    def runs(self) -> Path:
        """Return the folder of runs, in a server's kit."""
        return self.path / "runs"

    @property
    def state(self) -> Path:
        """Return the folder of a site's own state, by run."""
        return self.path / "state"

    @property
    def lock(self) -> Path:
        """Return the lock that the one running process holds."""
        return self.path / "running.lock"


def persons_kit(path: Path) -> Kit:
    """Return the person's kit at ``path``, or the only one of the consortium's folder there.

    Raises:
        FlamesError: There is none, or several persons could be meant.
    """
    if (path / "kit.json").exists():
        return Kit.open(path, "person")
    found = sorted((path / "people").glob("*/kit.json"))
    if len(found) == 1:
        return Kit.open(found[0].parent, "person")
    names = ", ".join(kit.parent.name for kit in found)
    raise FlamesError(
        f"{path} is not a person's kit" + (f", and holds several: {names}" if found else ""),
        "name one person's kit: --on CONSORTIUM/people/NAME",
    )

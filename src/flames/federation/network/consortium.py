"""The consortium: its server, its sites with modality and organ, its people with their roles.

``consortium.toml`` is what a person writes. From it come the kits and the record: a file at the
server that says which modality and organ an identity stands for. The record counts, not what a
client says of itself.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from flames.config import Modality, Section
from flames.errors import FlamesError, nearest
from flames.files import save_json

NAME = r"^[A-Za-z0-9][A-Za-z0-9-]{0,59}$"
EMAIL = r"^[A-Za-z0-9._+-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+$"
RESERVED = {"server", "server_job"}
"""Names by which the server's own processes sign."""
Role = Literal["admin", "lead", "member"]


class SiteEntry(Section):
    """A hospital that takes part."""

    name: str = Field(pattern=NAME)
    modality: Modality
    organ: str = Field(min_length=1)
    cases: int | None = Field(None, ge=1)
    """Training cases that it may have at most, as agreed with it; None where nothing is agreed."""
    request: Path | None = None
    """The site's own certificate request; its private key then never leaves the site."""


class PersonEntry(Section):
    """Somebody who may look (`member`), start runs (`lead`), or do both and manage (`admin`)."""

    name: str = Field(pattern=EMAIL)
    role: Role = "lead"


class Consortium(Section):
    """Who belongs together, and where their server is."""

    name: str = Field(pattern=NAME)
    server: str
    """``host:port`` that sites connect to; with ``localhost`` it listens on this machine only."""
    valid_days: int = Field(360, ge=1, le=360)
    """Days until identities expire and must be renewed."""
    sites: tuple[SiteEntry, ...] = Field(min_length=1)
    people: tuple[PersonEntry, ...] = Field(min_length=1)

    @field_validator("server")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        host, sign, port = value.rpartition(":")
        if not sign or not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError("write host:port, such as flames.example.org:8102")
        return value

    @model_validator(mode="after")
    def _names_once(self) -> Consortium:
        entries: tuple[SiteEntry | PersonEntry, ...] = (*self.sites, *self.people)
        names = [entry.name.lower() for entry in entries]
        twice = sorted({name for name in names if names.count(name) > 1} | RESERVED & set(names))
        if twice:
            raise ValueError(f"the name {twice[0]!r} is used twice, or is the server's")
        return self

    @property
    def host(self) -> str:
        """Return the server's host name."""
        return self.server.rpartition(":")[0]

    @property
    def port(self) -> int:
        """Return the one port that everybody connects to."""
        return int(self.server.rpartition(":")[2])


def check_name(name: str) -> str:
    """Return the name of a site.

    Raises:
        FlamesError: It holds other characters than letters, digits and ``-``.
    """
    if not re.match(NAME, name) or name.lower() in RESERVED:
        raise FlamesError(f"{name!r} cannot be a site's name", "use letters, digits and -")
    return name


def load_consortium(path: Path) -> Consortium:
    """Return the consortium that ``path`` describes.

    Raises:
        FlamesError: The file is missing, no TOML, or holds an unknown key or a bad value.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise FlamesError(f"cannot read {path}: {error}", "name a consortium file") from error
    except tomllib.TOMLDecodeError as error:
        raise FlamesError(f"{path} is not valid TOML: {error}", "mend that line") from error
    consortium: Consortium = validated(Consortium, content, str(path))
    sites = tuple(
        site
        if site.request is None
        else site.model_copy(update={"request": (path.parent / site.request).resolve()})
        for site in consortium.sites
    )
    return consortium.model_copy(update={"sites": sites})


def validated(model: type[Section], content: Mapping[str, Any], where: str) -> Any:
    """Return ``content`` as a ``model``.

    Raises:
        FlamesError: A key is unknown or missing, or a value cannot be; names the place.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = [name.replace("_", "-") for name in model.model_fields]
            hint = nearest(str(first["loc"][-1]), known) if len(first["loc"]) == 1 else "remove it"
            raise FlamesError(f"{where}: unknown key {place!r}", hint) from error
        says = first["msg"].removeprefix("Value error, ")
        found = f"{where}: {place or 'content'}: {says}"
        raise FlamesError(found, "mend that value") from error


class Identity(Section):
    """What the record says of one certificate's holder."""

    certificate: str
    """SHA-256 of the one certificate that is valid for this name."""
    expires: str | None = None
    """When that certificate ends."""
    revoked: str | None = None
    """When and why it was shut out."""
    replaced: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of its earlier certificates, and when each was replaced."""


class Member(Identity):
    """What the record says of one site."""

    modality: Modality
    organ: str
    cases: int | None = Field(None, ge=1)
    """Training cases that it may have at most; None where nothing is agreed."""


class PersonMember(Identity):
    """What the record says of one person."""

    role: Role


class Record(Section):
    """What the consortium knows of its sites and people; kept at the server."""

    name: str
    sites: dict[str, Member]
    people: dict[str, PersonMember]

    def find(self, name: str) -> Identity | None:
        """Return what is known of a site or a person, or None."""
        return self.sites.get(name) or self.people.get(name)

    def changed(self, name: str, **changes: Any) -> Record:
        """Return the record with other values for one site or person."""
        kind = "sites" if name in self.sites else "people"
        known = getattr(self, kind)
        new = known | {name: known[name].model_copy(update=changes)}
        return self.model_copy(update={kind: new})


def load_record(path: Path) -> Record:
    """Return the record at ``path``.

    Raises:
        FlamesError: It is missing or damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FlamesError(
            f"cannot read the consortium's record {path}: {error}",
            "use the kit as 'flames consortium' made it",
        ) from error
    record: Record = validated(Record, content, str(path))
    return record


class Latest:
    """The record as it is on disk now; the last good one while it cannot be read."""

    def __init__(self, path: Path) -> None:
        """Read nothing yet."""
        self.path = path
        self.trouble = ""
        """Why the record on disk cannot be read; empty where it can."""
        self._record: Record | None = None
        self._version: tuple[int, int, int] | None = None

    def read(self) -> Record:
        """Return the record, read again only when the file changed.

        While it cannot be read, changes in it are not in force: `trouble` says why.

        Raises:
            FlamesError: It cannot be read, and never could.
        """
        version = self._look()
        if self._record is None or version != self._version:
            self._version = version
            try:
                self._record, self.trouble = load_record(self.path), ""
            except FlamesError as error:
                self.trouble = error.found
                if self._record is None:
                    raise
        return self._record

    def _look(self) -> tuple[int, int, int] | None:
        """Return what changes with the file; None while it is not there."""
        try:
            stat = self.path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino


def save_record(path: Path, record: Record) -> None:
    """Write the record; without `cases` where nothing is agreed, as before there was such a key."""
    content = record.model_dump(mode="json", by_alias=True)
    for site in content["sites"].values():
        if site["cases"] is None:
            del site["cases"]
    save_json(path, content)

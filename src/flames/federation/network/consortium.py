"""The consortium: its server, its sites with modality and organ, its people with their roles.

``consortium.toml`` is what a person writes. From it come the kits and the record: a file at the
server that says which modality and organ an identity stands for. The record counts, not what a
client says of itself.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from flames.config import Section
from flames.errors import FlamesError, nearest
from flames.files import save_json

NAME = r"^[A-Za-z0-9][A-Za-z0-9-]{0,59}$"
EMAIL = r"^[A-Za-z0-9._+-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+$"
Role = Literal["admin", "lead", "member"]


class SiteEntry(Section):
    """A hospital that takes part."""

    name: str = Field(pattern=NAME)
    modality: Literal["US", "MR", "CT"]
    organ: str = Field(min_length=1)
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
        twice = sorted({name for name in names if names.count(name) > 1} | {"server"} & set(names))
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
        found = f"{where}: {place or 'content'}: {first['msg']}"
        raise FlamesError(found, "mend that value") from error


class Member(Section):
    """What the record says of one site."""

    modality: Literal["US", "MR", "CT"]
    organ: str
    certificate: str
    """SHA-256 of the one certificate that is valid for this name."""
    revoked: str | None = None
    """When and why it was shut out."""


class Record(Section):
    """What the consortium knows of its sites; kept at the server."""

    name: str
    sites: dict[str, Member]
    people: dict[str, Role]
    revoked_people: dict[str, str] = Field(default_factory=dict)


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


def save_record(path: Path, record: Record) -> None:
    """Write the record."""
    save_json(path, record.model_dump(mode="json", by_alias=True))

"""The consortium's folder: kits for everybody, and the record that says who stands for what.

::

    CONSORTIUM/consortium.toml     what was asked for
    CONSORTIUM/record.json         modality, organ and certificate of every site; who is shut out
    CONSORTIUM/authority/          the authority's key: keep it offline, and a copy of it
    CONSORTIUM/server/             the server's kit
    CONSORTIUM/sites/NAME/         a site's kit
    CONSORTIUM/people/NAME/        a person's kit
"""

from __future__ import annotations

from pathlib import Path

import tomli_w

from flames.errors import FlamesError
from flames.federation.network.consortium import (
    Consortium,
    Member,
    Record,
    load_consortium,
    save_record,
)
from flames.federation.network.provisioning import issue_kits
from flames.files import save_text


def found_consortium(toml: Path, folder: Path) -> Record:
    """Make every kit of a new consortium in ``folder``; return its record.

    Raises:
        FlamesError: The file is bad, or the folder holds something.
    """
    consortium = load_consortium(toml)
    if folder.exists() and any(folder.iterdir()):
        raise FlamesError(f"{folder} is not empty", "name a new --out")
    folder.mkdir(parents=True, exist_ok=True)
    names = _names(consortium)
    prints = issue_kits(consortium, folder, names, {n: _kit(folder, consortium, n) for n in names})
    record = Record(
        name=consortium.name,
        sites={
            s.name: Member(modality=s.modality, organ=s.organ, certificate=prints[s.name])
            for s in consortium.sites
        },
        people={person.name: person.role for person in consortium.people},
    )
    _save(folder, consortium, record)
    return record


def _save(folder: Path, consortium: Consortium, record: Record) -> None:
    content = consortium.model_dump(mode="json", by_alias=True, exclude_none=True)
    save_text(folder / "consortium.toml", tomli_w.dumps(content))
    save_record(folder / "record.json", record)
    save_record(folder / "server" / "local" / "record.json", record)


def _names(consortium: Consortium) -> list[str]:
    sites = [site.name for site in consortium.sites]
    return ["server", *sites, *(person.name for person in consortium.people)]


def _kit(folder: Path, consortium: Consortium, name: str) -> Path:
    if name == "server":
        return folder / "server"
    people = {person.name for person in consortium.people}
    return folder / ("people" if name in people else "sites") / name

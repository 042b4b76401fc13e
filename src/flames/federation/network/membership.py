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

import shutil
from pathlib import Path

import tomli_w

from flames.errors import FlamesError, nearest
from flames.federation.network.consortium import (
    Consortium,
    Member,
    Record,
    SiteEntry,
    load_consortium,
    load_record,
    save_record,
)
from flames.federation.network.journal import now
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


def add_site(folder: Path, site: SiteEntry) -> Path:
    """Add one site and return its new kit.

    Raises:
        FlamesError: There is no consortium, or the name is taken.
    """
    consortium, record = _load(folder)
    if site.name.lower() in {name.lower() for name in _names(consortium)}:
        raise FlamesError(
            f"{site.name} belongs to {consortium.name} already",
            "choose another name, or renew it with 'flames consortium renew'",
        )
    consortium = Consortium.model_validate(
        consortium.model_dump() | {"sites": [*consortium.sites, site]}
    )
    kit = _kit(folder, consortium, site.name)
    prints = issue_kits(consortium, folder, [site.name], {site.name: kit})
    member = Member(modality=site.modality, organ=site.organ, certificate=prints[site.name])
    _save(folder, consortium, _with_site(record, site.name, member))
    return kit


def revoke(folder: Path, name: str, reason: str) -> None:
    """Shut a site or a person out.

    Raises:
        FlamesError: Nobody has that name.
    """
    consortium, record = _load(folder)
    _known(record, name)
    why = f"{now()}: {reason}"
    if name in record.people:
        record = record.model_copy(update={"revoked_people": record.revoked_people | {name: why}})
    else:
        member = record.sites[name].model_copy(update={"revoked": why})
        record = _with_site(record, name, member)
    _save(folder, consortium, record)


def renew(folder: Path, name: str, request: Path | None = None) -> Path:
    """Give a name a new certificate and return its kit; the old certificate stops to count.

    A site that was shut out is taken in again.

    Raises:
        FlamesError: Nobody has that name.
    """
    consortium, record = _load(folder)
    if name != "server":
        _known(record, name)
    if request is not None:
        sites = [
            s.model_copy(update={"request": request.resolve()}) if s.name == name else s
            for s in consortium.sites
        ]
        consortium = consortium.model_copy(update={"sites": tuple(sites)})
    kit = _kit(folder, consortium, name)
    shutil.rmtree(kit / "startup", ignore_errors=True)
    prints = issue_kits(consortium, folder, [name], {name: kit})
    if name in record.sites:
        update = {"certificate": prints[name], "revoked": None}
        record = _with_site(record, name, record.sites[name].model_copy(update=update))
    elif name in record.people:
        left = {person: why for person, why in record.revoked_people.items() if person != name}
        record = record.model_copy(update={"revoked_people": left})
    _save(folder, consortium, record)
    return kit


def _load(folder: Path) -> tuple[Consortium, Record]:
    if not (folder / "authority").exists():
        raise FlamesError(
            f"{folder} is no consortium's folder: it has no authority",
            "name the folder that 'flames consortium init' made",
        )
    return load_consortium(folder / "consortium.toml"), load_record(folder / "record.json")


def _save(folder: Path, consortium: Consortium, record: Record) -> None:
    content = consortium.model_dump(mode="json", by_alias=True, exclude_none=True)
    save_text(folder / "consortium.toml", tomli_w.dumps(content))
    save_record(folder / "record.json", record)
    save_record(folder / "server" / "local" / "record.json", record)


def _with_site(record: Record, name: str, member: Member) -> Record:
    return record.model_copy(update={"sites": record.sites | {name: member}})


def _names(consortium: Consortium) -> list[str]:
    sites = [site.name for site in consortium.sites]
    return ["server", *sites, *(person.name for person in consortium.people)]


def _kit(folder: Path, consortium: Consortium, name: str) -> Path:
    if name == "server":
        return folder / "server"
    people = {person.name for person in consortium.people}
    return folder / ("people" if name in people else "sites") / name


def _known(record: Record, name: str) -> None:
    known = [*record.sites, *record.people]
    if name not in known:
        raise FlamesError(f"{record.name} knows no {name!r}", nearest(name, known))

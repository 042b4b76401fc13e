"""The consortium's folder: kits for everybody, and the record that says who stands for what.

::

    CONSORTIUM/consortium.toml     what was asked for
    CONSORTIUM/record.json         modality, organ and certificate of everybody; who is shut out
    CONSORTIUM/authority/          the authority's key: keep it offline, and a copy of it
    CONSORTIUM/requests/           certificate requests of sites that keep their key
    CONSORTIUM/server/             the server's kit
    CONSORTIUM/sites/NAME/         a site's kit
    CONSORTIUM/people/NAME/        a person's kit
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import tomli_w

from flames.errors import FlamesError, nearest
from flames.federation.network.consortium import (
    Consortium,
    Member,
    PersonMember,
    Record,
    SiteEntry,
    load_consortium,
    load_record,
    save_record,
    validated,
)
from flames.federation.network.journal import now
from flames.federation.network.provisioning import Issued, issue_kits
from flames.files import save_text

SERVERS_RECORD = Path("server") / "local" / "record.json"


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
    issued = issue_kits(consortium, folder, names, {n: _kit(folder, consortium, n) for n in names})
    record = Record(
        name=consortium.name,
        sites={s.name: _member(s, issued[s.name]) for s in consortium.sites},
        people={
            p.name: PersonMember(role=p.role, **vars(issued[p.name])) for p in consortium.people
        },
    )
    _save(folder, consortium, record)
    return record


def add_site(
    folder: Path,
    name: str,
    *,
    modality: str,
    organ: str,
    cases: int | None = None,
    request: Path | None = None,
    days: int | None = None,
) -> Path:
    """Add one site, signed by the same authority, and return its kit; no other kit changes.

    Args:
        folder: The consortium's.
        name: Of the new site.
        modality: That it stands for.
        organ: That it stands for.
        cases: Training cases that it may have at most; None where nothing is agreed.
        request: The site's own certificate request; the kit then holds no key.
        days: Until its certificate expires; None for the consortium's own number.

    Raises:
        FlamesError: There is no consortium, the name is taken, or the request is bad.
    """
    consortium, record = _load(folder)
    content = {"name": name, "modality": modality, "organ": organ, "cases": cases}
    site: SiteEntry = validated(SiteEntry, content | {"request": request}, f"the site {name}")
    if name.lower() in {known.lower() for known in _names(consortium)}:
        shut = record.find(name)
        raise FlamesError(
            f"{name} belongs to {consortium.name} already"
            + (f", and is revoked since {shut.revoked}" if shut and shut.revoked else ""),
            "choose another name"
            if shut and shut.revoked
            else "choose another name, or renew it with 'flames consortium renew'",
        )
    consortium = _with_sites(consortium, [*consortium.sites, site])
    kit = _kit(folder, consortium, name)
    issued = issue_kits(_lasting(consortium, days), folder, [name], {name: kit})
    sites = record.sites | {name: _member(site, issued[name])}
    _save(folder, consortium, record.model_copy(update={"sites": sites}))
    return kit


def agree_on(folder: Path, name: str, cases: int | None) -> None:
    """Note how many training cases a site may have at most; with None, as many as it says.

    Raises:
        FlamesError: No site has that name, it is shut out, or the number is below 1.
    """
    consortium, record = _load(folder)
    _open(record, name)
    if name not in record.sites:
        raise FlamesError(f"{name} is no site", "only sites have training cases")
    sites = [
        s.model_copy(update={"cases": cases}) if s.name == name else s for s in consortium.sites
    ]
    _save(folder, _with_sites(consortium, sites), record.changed(name, cases=cases))


def revoke(folder: Path, name: str, reason: str = "") -> None:
    """Shut a site or a person out for good; the record keeps when, and why.

    Raises:
        FlamesError: Nobody has that name, or it is shut out already.
    """
    consortium, record = _load(folder)
    _open(record, name)
    why = f"{now()}: {reason}" if reason else now()
    _save(folder, consortium, record.changed(name, revoked=why))


def renew(folder: Path, name: str, *, request: Path | None = None, days: int | None = None) -> Path:
    """Give a name, or ``server``, a new certificate and return its kit; the old one counts no more.

    A site that keeps its key gets a certificate for the same key, or for a new ``request``'s.

    Raises:
        FlamesError: Nobody has that name, it is shut out, or the request is bad.
    """
    consortium, record = _load(folder)
    if name != "server":
        _open(record, name)
    if request is not None:
        if name not in record.sites:
            raise FlamesError(f"{name} is no site", "only sites send certificate requests")
        sites = [
            s.model_copy(update={"request": request.resolve()}) if s.name == name else s
            for s in consortium.sites
        ]
        consortium = _with_sites(consortium, sites)
    kit = _kit(folder, consortium, name)
    issued = issue_kits(_lasting(consortium, days), folder, [name], {name: kit})[name]
    old = record.find(name)
    if old is not None:
        replaced = old.replaced | {old.certificate: now()}
        record = record.changed(name, replaced=replaced, **vars(issued))
    _save(folder, consortium, record)
    return kit


def _load(folder: Path) -> tuple[Consortium, Record]:
    if not (folder / "authority").exists():
        raise FlamesError(
            f"{folder} is no consortium's folder: it has no authority",
            "name the folder that 'flames consortium init' made, with its authority",
        )
    return load_consortium(folder / "consortium.toml"), load_record(folder / "record.json")


def _save(folder: Path, consortium: Consortium, record: Record) -> None:
    """Write the record first: whoever is shut out in it is shut out, whatever happens next."""
    save_record(folder / "record.json", record)
    if (folder / "server" / "kit.json").exists():
        save_record(folder / SERVERS_RECORD, record)
    content: dict[str, Any] = consortium.model_dump(mode="json", by_alias=True, exclude_none=True)
    for entry, site in zip(content["sites"], consortium.sites, strict=True):
        if site.request is not None:
            entry["request"] = str(_kept_request(folder, site).relative_to(folder))
    save_text(folder / "consortium.toml", tomli_w.dumps(content))


def _kept_request(folder: Path, site: SiteEntry) -> Path:
    """Return the consortium's own copy of a site's request, for the next renewal."""
    assert site.request is not None
    kept = folder / "requests" / f"{site.name}.csr"
    if kept.resolve() != site.request.resolve():
        kept.parent.mkdir(exist_ok=True)
        shutil.copyfile(site.request, kept)
    return kept


def _with_sites(consortium: Consortium, sites: list[SiteEntry]) -> Consortium:
    content = consortium.model_dump(by_alias=True) | {"sites": [s.model_dump() for s in sites]}
    made: Consortium = validated(Consortium, content, "the consortium")
    return made


def _lasting(consortium: Consortium, days: int | None) -> Consortium:
    if days is None:
        return consortium
    content = consortium.model_dump(by_alias=True) | {"valid-days": days}
    made: Consortium = validated(Consortium, content, "the consortium")
    return made


def _member(site: SiteEntry, issued: Issued) -> Member:
    return Member(modality=site.modality, organ=site.organ, cases=site.cases, **vars(issued))


def _names(consortium: Consortium) -> list[str]:
    sites = [site.name for site in consortium.sites]
    return ["server", *sites, *(person.name for person in consortium.people)]


def _kit(folder: Path, consortium: Consortium, name: str) -> Path:
    if name == "server":
        return folder / "server"
    people = {person.name for person in consortium.people}
    return folder / ("people" if name in people else "sites") / name


def _open(record: Record, name: str) -> None:
    """Raise where nobody has that name, or it is shut out."""
    known = record.find(name)
    if known is None:
        names = [*record.sites, *record.people]
        raise FlamesError(f"{record.name} knows no {name!r}", nearest(name, names))
    if known.revoked:
        raise FlamesError(
            f"{name} is revoked since {known.revoked}", "take it in again under another name"
        )

"""A run over the network, from a person's desk: hand it in, follow it, leave it, fetch it."""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flames.config import RunConfig, SiteConfig, differing_keys, dump_config, load_config
from flames.errors import FlamesError, nearest
from flames.federation.network.engine_files import job_folder
from flames.federation.network.kits import Kit, persons_kit
from flames.federation.network.person import Person, Unreachable
from flames.federation.network.run_book import CONFIG_FILE, JOB_FILE, refuse_files
from flames.federation.progress import Event, OnEvent
from flames.files import save_json, save_text
from flames.runs import RunFolder

LOOK_SECONDS = 1.0
PATIENCE_SECONDS = 3600.0
"""How long following goes on while the server gives no answer."""


@dataclass(frozen=True)
class Ticket:
    """What a person's run folder remembers of a run elsewhere."""

    run: str
    job: str
    kit: str

    @classmethod
    def read(cls, out: Path) -> Ticket:
        """Return the ticket in ``out``.

        Raises:
            FlamesError: There is none.
        """
        try:
            return cls(**json.loads((out / "network.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise FlamesError(
                f"{out} belongs to no run over a network", "name a folder of 'flames run … --on'"
            ) from error

    def save(self, out: Path) -> None:
        """Write the ticket into ``out``."""
        content = {"run": self.run, "job": self.job, "kit": self.kit}
        save_json(out / "network.json", content)


def run_there(
    federation: Path,
    overrides: Mapping[str, str],
    on: Path,
    out: Path,
    *,
    resume: bool,
    on_event: OnEvent,
) -> RunFolder:
    """Run a federation in its consortium and return its finished run folder.

    Args:
        federation: The TOML file.
        overrides: Keys that win over it.
        on: A person's kit, or the folder of a consortium with one person.
        out: A new folder, or with ``resume`` that of a run that was left or stopped.
        resume: Go on with the run in ``out``.
        on_event: Called as the run goes on.

    Raises:
        FlamesError: The configuration is bad, the server does not answer, or the run failed.
    """
    kit = persons_kit(on)
    with Person(kit) as person:
        known = person.ask("sites")
        config, everybody = _prepare(federation, overrides, known)
        if (out / "network.json").exists():
            if not resume:
                raise FlamesError(
                    f"{out} already holds a run", "add --resume to continue it, or name a new --out"
                )
            ticket = Ticket.read(out)
            _check_same(config, out)
            person.ask("continue", ticket.run)
        elif out.exists() and any(out.iterdir()):
            raise FlamesError(f"{out} is not empty and holds no run", "name a new --out")
        else:
            ticket = _hand_in(person, config, everybody, kit, out)
        return _follow(person, ticket, out, on_event)


def attach(out: Path, *, on: Path | None, run: str | None, on_event: OnEvent) -> RunFolder:
    """Join a run that goes on and return its finished run folder.

    Args:
        out: Folder of the run here.
        on: A person's kit, where ``out`` does not know it.
        run: Name of the run at the server, where ``out`` does not know it.
        on_event: Called as the run goes on.

    Raises:
        FlamesError: There is no such run, or it failed.
    """
    if run is not None and on is not None and not (out / "network.json").exists():
        Ticket(run, "", str(persons_kit(on).path)).save(out)
    ticket = Ticket.read(out)
    with Person(persons_kit(Path(ticket.kit) if on is None else on)) as person:
        return _follow(person, ticket, out, on_event)


def stop(out: Path) -> str:
    """End a run everywhere and return its name.

    Raises:
        FlamesError: There is no such run, the server does not answer, or it is somebody else's.
    """
    ticket = Ticket.read(out)
    with Person(persons_kit(Path(ticket.kit))) as person:
        person.ask("stop", ticket.run, *([ticket.job] if ticket.job else []))
    return ticket.run


def status(on: Path) -> dict[str, Any]:
    """Return what the server says of its sites and runs."""
    with Person(persons_kit(on)) as person:
        return person.ask("status")


def _prepare(
    federation: Path, overrides: Mapping[str, str], known: Mapping[str, Any]
) -> tuple[RunConfig, bool]:
    """Return the configuration that travels, and whether everybody takes part."""
    names = list(known["sites"])
    config, everybody = load_config(federation, overrides, sites=names), False
    listed = load_config(federation, overrides, sites=["nobody-is-listed"])
    if [site.name for site in listed.sites] == ["nobody-is-listed"]:
        everybody = True
    for site in config.sites:
        if site.name not in names:
            raise FlamesError(
                f"{site.name!r} is no site of {known['consortium']}, or is revoked",
                f"{nearest(site.name, names)}; or leave it out of the file",
            )
    if config.strategy.name == "central":
        raise FlamesError(
            "strategy 'central' pools images: it is possible in simulation only",
            "choose another strategy",
        )
    if config.data.dimensions == 3:
        for site in config.sites:
            config.plan_for(known["sites"][site.name]["modality"])
    refuse_files(config)
    if config.start is not None:
        config = config.model_copy(update={"start": Path(Ticket.read(config.start).run)})
    sites = tuple(SiteConfig(name=site.name, local_steps=site.local_steps) for site in config.sites)
    return config.model_copy(update={"sites": sites}), everybody


def _hand_in(person: Person, config: RunConfig, everybody: bool, kit: Kit, out: Path) -> Ticket:
    stem = re.sub(r"[^A-Za-z0-9]+", "-", config.name).strip("-")[:40] or "run"
    run = f"{stem}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    files = {
        CONFIG_FILE: dump_config(config),
        JOB_FILE: json.dumps({"run": run, "everybody": everybody}),
    }
    names = None if everybody else [site.name for site in config.sites]
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / run
        job_folder(folder, run, names, files)
        ticket = Ticket(run, person.submit(folder), str(kit.path))
    ticket.save(out)
    save_text(RunFolder(out).config, files[CONFIG_FILE])
    return ticket


def _check_same(config: RunConfig, out: Path) -> None:
    """Refuse to go on with another configuration: the run keeps that which it was handed in with.

    Its sites may be others since: who joined, or was revoked.
    """
    handed_in = RunFolder(out).config
    if not handed_in.exists():
        return
    different = [key for key in differing_keys(load_config(handed_in), config) if key != "sites"]
    if different:
        raise FlamesError(
            f"{out} was started with another {', '.join(different)}",
            f"give the file and the options that it began with ({handed_in} has all values), "
            "or name a new --out",
        )


def _follow(person: Person, ticket: Ticket, out: Path, on_event: OnEvent) -> RunFolder:
    """Show what happens until the run is finished, then fetch it."""
    seen, lost = 0, 0.0
    while True:
        try:
            answer = person.ask("look", ticket.run, str(seen))
        except Unreachable:
            lost = lost or time.monotonic()
            if time.monotonic() - lost > PATIENCE_SECONDS:
                raise
            time.sleep(2 * LOOK_SECONDS)
            _reconnect(person)
            continue
        lost = 0.0
        seen += len(answer["events"])
        _show(answer, on_event)
        content = answer["run"]
        if content.get("status") == "finished":
            person.fetch_finished(content["jobs"][-1], out)
            return RunFolder(out)
        if content.get("status") in ("failed", "stopped"):
            raise FlamesError(
                f"the run {ticket.run} is {content['status']}: {content.get('cause')}",
                "go on with 'flames run … --on … --resume', once the cause is gone",
            )
        if not answer["events"]:
            time.sleep(LOOK_SECONDS)


def _reconnect(person: Person) -> None:
    try:
        person.connect()
    except (FlamesError, OSError):  # such as of a full disk: it is tried again
        return


def _show(answer: Mapping[str, Any], on_event: OnEvent) -> None:
    desk = answer["desk"]
    number, rounds = desk.get("round") or 1, desk.get("rounds") or 1
    for event in answer["events"]:
        if event["event"] not in ("update", "round"):
            on_event(Event("round", event.get("round", number), rounds, text=event["text"]))
    for name, site in desk.get("sites", {}).items():
        if site["status"] == "here" and site["total"] and site["done"] < site["total"]:
            loss = "" if site["loss"] is None else f"loss {site['loss']:.3f}"
            on_event(Event("train", number, rounds, name, site["done"], site["total"], loss))

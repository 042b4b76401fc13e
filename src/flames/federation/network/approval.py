"""Runs that reached a site, and what a person there decided of them.

::

    STATE/RUN/order.json      what the run asks for, and what it waits for here
    STATE/RUN/order.toml      its configuration, to be read before it is approved
    STATE/RUN/decision.json   approved or denied, by whom, for which configuration

A decision holds for one configuration, by its SHA-256: a changed one needs a new decision.
"""

from __future__ import annotations

import getpass
import json
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from flames.config import RunConfig
from flames.errors import FlamesError, nearest
from flames.federation.network.facts import digest
from flames.federation.network.journal import Journal, now
from flames.federation.network.kits import Kit
from flames.federation.network.sharing import received_by_others
from flames.files import save_json, save_text

Word = Literal["approved", "denied"]
WAITS_FOR_APPROVAL = "a person at the site must approve the run"
SHORT = 12
"""Characters of a digest that people are shown, and at least that many they must give."""


def note_order(folder: Path, run: str, config_text: str, config: RunConfig) -> None:
    """Write what a run asks for into the site's folder of the run."""
    known = _read(folder / "order.json")
    content = {
        "run": run,
        "config": digest(config_text),
        "arrived": now(),
        "strategy": config.strategy.name,
        "model": config.model.name,
        "rounds": config.rounds,
        "local_steps": config.most_steps,
        "sites": [site.name for site in config.sites],
        "others": received_by_others(config),
        "waits": "",
    }
    if known.get("config") == content["config"]:
        content["arrived"] = known["arrived"]
    save_text(folder / "order.toml", config_text)
    save_json(folder / "order.json", content)


def note_waiting(folder: Path, reason: str) -> None:
    """Write what a run waits for at the site; nothing when it goes on."""
    known = _read(folder / "order.json")
    if known and known.get("waits") != reason:
        with suppress(FlamesError):
            save_json(folder / "order.json", known | {"waits": reason})


def orders(kit: Kit) -> list[dict[str, Any]]:
    """Return the runs that reached the site, each with its ``decision`` where it has one."""
    found = []
    for path in sorted(kit.state.glob("*/order.json")):
        order = _read(path)
        if order:
            found.append(order | {"decision": decision(path.parent, str(order["config"]))})
    return found


def decision(folder: Path, config: str) -> dict[str, Any] | None:
    """Return what a person decided of the run with the configuration of SHA-256 ``config``."""
    known = _read(folder / "decision.json")
    return known if known.get("config") == config else None


def decide(kit: Kit, run: str, word: Word, *, digest: str | None, reason: str) -> dict[str, Any]:
    """Keep a person's decision on a run, and return the run's order.

    Args:
        kit: The site's.
        run: Name of the run.
        word: The decision.
        digest: Start of the SHA-256 of the configuration that the person read; None for whatever
            configuration the run has now.
        reason: Shown at the server when denied.

    Raises:
        FlamesError: No such run reached the site, or it has another configuration.
    """
    known = {str(order["run"]): order for order in orders(kit)}
    if run not in known:
        hint = nearest(run, known) if known else "see 'flames site status'"
        raise FlamesError(f"no run {run!r} has reached {kit.name}", hint)
    order = known[run]
    if digest is not None and (
        len(digest) < SHORT or not str(order["config"]).startswith(digest.lower())
    ):
        raise FlamesError(
            f"the configuration of {run} is {order['config'][:SHORT]}…, not {digest}",
            f"read {kit.state / run / 'order.toml'} and decide again",
        )
    content = {
        "config": order["config"],
        "decision": word,
        "by": getpass.getuser(),
        "time": now(),
        "reason": reason,
    }
    save_json(kit.state / run / "decision.json", content)
    text = f"{run} is {word} by {content['by']}: configuration {order['config'][:SHORT]}"
    Journal(kit.events).write(word, text, run=run, config=order["config"])
    return order


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}

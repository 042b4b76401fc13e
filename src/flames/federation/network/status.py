"""How a server or a site stands, for people and for machines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flames.federation.network.approval import SHORT, WAITS_FOR_APPROVAL, orders
from flames.federation.network.consortium import validated
from flames.federation.network.journal import Journal
from flames.federation.network.kits import Kit
from flames.federation.network.policy import Policy
from flames.federation.network.processes import is_running
from flames.federation.network.settings import read_site_settings
from flames.federation.network.sharing import allowed_to_others

LAST_EVENTS = 10


def server_report(path: Path) -> dict[str, Any]:
    """Return how the server stands, by its own kit or by asking it with a person's.

    Raises:
        FlamesError: It is no such kit, or the server gives no answer.
    """
    if (path / "kit.json").exists() and _kind(path) == "server":
        from flames.federation.network.commands import server_status

        kit = Kit.open(path, "server")
        return {"running": is_running(kit) is not None, **server_status(kit)}
    from flames.federation.network.follow import status

    return {"running": True, **status(path)}


def server_words(report: dict[str, Any]) -> str:
    """Return the report as lines for a person."""
    state = "is running" if report["running"] else "is not running"
    lines = [f"{report['consortium']}: the server at {report['server']} {state}"]
    if report.get("record"):
        lines.append(f"  the record cannot be read, changes in it count not: {report['record']}")
    for name, site in report["sites"].items():
        here = "connected" if site["connected"] else "not connected"
        if site["revoked"]:
            here = f"revoked {site['revoked']}"
        agreed = f", at most {site['cases']} training cases" if site.get("cases") else ""
        lines.append(f"  site {name} ({site['modality']} of {site['organ']}{agreed}): {here}")
    for name, person in report["people"].items():
        gone = f": revoked {person['revoked']}" if person["revoked"] else ""
        lines.append(f"  {name} ({person['role']}){gone}")
    for event in report["refusals"]:
        times = f" ({event['times']} more times before)" if "times" in event else ""
        lines.append(f"  refused {event['time']}: {event['text']}{times}")
    for name, run in report["runs"].items():
        where = ""
        if run["rounds"] and run["status"] != "finished":
            number = run["round"] or 1
            closing = number > run["rounds"]
            where = ", closing" if closing else f", round {number} of {run['rounds']}"
        cause = f": {run['cause']}" if run["cause"] else ""
        lines.append(f"  run {name}: {run['status']}{where}{cause}")
        for site, about in run["sites"].items():
            if about["reason"]:
                lines.append(f"    {site} {about['status']}: {about['reason']}")
    return "\n".join(lines)


def site_report(path: Path) -> dict[str, Any]:
    """Return how a site stands.

    Raises:
        FlamesError: It is no site's kit.
    """
    kit = Kit.open(path, "site")
    settings = read_site_settings(kit) if kit.settings.exists() else None
    return {
        "site": kit.name,
        "consortium": kit.consortium,
        "server": kit.server,
        "running": is_running(kit) is not None,
        "policy": settings.policy.model_dump(mode="json", by_alias=True) if settings else None,
        "runs": orders(kit),
        "events": Journal(kit.events).read()[-LAST_EVENTS:],
    }


def site_words(report: dict[str, Any]) -> str:
    """Return the report as lines for a person."""
    state = "is running" if report["running"] else "is not running"
    lines = [f"{report['site']} of {report['consortium']} {state}; server {report['server']}"]
    if report["policy"]:
        policy = validated(Policy, report["policy"], "the policy")
        lines.append(f"  {allowed_to_others(policy)}")
    for order in report["runs"]:
        lines += _order_words(order)
    lines += [f"  {event['time']}  {event['text']}" for event in report["events"]]
    return "\n".join(lines)


def _order_words(order: dict[str, Any]) -> list[str]:
    decided = order["decision"]
    if not order["waits"] and not decided:
        return []
    lines = [
        f"  run {order['run']}: {order['strategy']}, {order['model']}, {order['rounds']} rounds of "
        f"{order['local_steps']} steps, {len(order['sites'])} sites; "
        f"configuration {order['config'][:SHORT]}"
    ]
    if "others" in order:
        lines.append(f"    {order['others']}")
    if decided:
        lines.append(f"    {decided['decision']} by {decided['by']}, {decided['time']}")
    if order["waits"]:
        lines.append(f"    waits: {order['waits']}")
    if order["waits"] == WAITS_FOR_APPROVAL:
        lines.append(f"    flames site approve {order['run']} --kit KIT, or deny")
    return lines


def _kind(path: Path) -> str:
    return str(json.loads((path / "kit.json").read_text(encoding="utf-8")).get("kind"))

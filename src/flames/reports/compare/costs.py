"""What a strategy costs: steps, minutes, bytes that travel, bytes that are kept."""

from __future__ import annotations

from typing import Any

from flames.reports.compare.content import Comparison
from flames.reports.numbers import is_number
from flames.reports.records import Records


def cost_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Return a row a strategy, means over its seeds; None for what a run did not record.

    ``up`` and ``down`` are bytes a client and round, ``total`` all bytes of the run, ``client`` and
    ``server`` bytes kept between rounds, by one client in the mean and by the server.
    """
    return [
        {"strategy": name} | _mean([_cost(records) for records in runs])
        for name, runs in comparison.runs.items()
    ]


def _cost(records: Records) -> dict[str, float | None]:
    rounds = records.site_rounds()
    trained = [r for r in rounds if r.get("loss") is not None]
    clients = max(1, len(records.clients()))
    stored = records.summary.get("stored") or {}
    return {
        "steps": sum(max(r["steps"] for r in records.site_rounds(c)) for c in records.clients())
        / max(1, len(records.sites())),
        "minutes": (records.summary.get("seconds") or {}).get("total", 0) / 60,
        "up": _average([r["bytes_up"] for r in trained]),
        # What a client receives after its first round: then everybody gets the same start.
        "down": _average([r["bytes_down"] for r in trained if r["round"] > 1] or [0]),
        "total": sum(r["bytes_up"] + r["bytes_down"] for r in rounds),
        "client": stored["clients"] / clients if is_number(stored.get("clients")) else None,
        "server": stored.get("server"),
    }


def _mean(costs: list[dict[str, float | None]]) -> dict[str, float | None]:
    return {key: _average([c[key] for c in costs if c[key] is not None]) for key in costs[0]}


def _average(values: list[Any]) -> float | None:
    return sum(values) / len(values) if values else None

"""Where the strategies fail: the hardest cases, and where the reference loses most."""

from __future__ import annotations

from typing import Any

from flames.metrics.statistics import mean_of_case
from flames.metrics.tables import number
from flames.reports.compare.content import Comparison
from flames.reports.gallery import load_gallery

HARDEST = 25
LOST = 15


def case_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Return a row a site and test case: its Dice under each strategy, seeds averaged."""
    values = comparison.dice["personal"]
    return [
        {"site": site, "case_id": case}
        | {n: mean_of_case(found.get(site, {}).get(case)) for n, found in values.items()}
        for site, cases in sorted(values[comparison.reference].items())
        for case in sorted(cases)
    ]


def hardest_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Return the cases with tumour and the lowest mean over strategies, the hardest first."""
    shown = {
        (row["site"], row["case_id"])
        for row in next(iter(comparison.tables.values()))[0]
        if number(row["tumour_present"])
    }
    rows = [r for r in case_rows(comparison) if (r["site"], r["case_id"]) in shown and _scores(r)]
    return sorted(rows, key=lambda row: (_average(_scores(row)), row["case_id"]))[:HARDEST]


def lost_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Return the cases that the reference does worst against the best other strategy."""
    rows = []
    for row in case_rows(comparison):
        own = row[comparison.reference]
        others = {n: v for n, v in _named(row).items() if n != comparison.reference}
        if own is not None and others:
            best = max(others, key=lambda name: others[name])
            rows.append(row | {"best": best, "lost": others[best] - own})
    rows = [row for row in rows if row["lost"] > 0]
    return sorted(rows, key=lambda row: (-row["lost"], row["case_id"]))[:LOST]


def count_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Return each strategy's missed tumours and false alarms, means over seeds, with totals."""
    rows = []
    for name, tables in comparison.tables.items():
        counts = []
        for table in tables:
            mine = [r for r in table if r["model_kind"] == "personal"]
            told = [(number(r["tumour_present"]), number(r["tumour_predicted"])) for r in mine]
            counts.append(
                {
                    "missed": sum(bool(p and not q) for p, q in told),
                    "with_tumour": sum(bool(p) for p, _ in told),
                    "false_alarm": sum(bool(q and not p) for p, q in told),
                    "without_tumour": sum(not p for p, _ in told),
                    "empty_overlap": sum(
                        r["dice"] != "" and number(r["dice"]) == 0 and bool(p and q)
                        for r, (p, q) in zip(mine, told, strict=True)
                    ),
                }
            )
        rows.append(
            {"strategy": name} | {k: sum(c[k] for c in counts) / len(counts) for k in counts[0]}
        )
    return rows


def failure_pictures(comparison: Comparison) -> list[dict[str, Any]]:
    """Return each site's worst case by strategy, of one run, where its owner allows it."""
    sites: dict[str, list[dict[str, str]]] = {}
    for name, runs in comparison.runs.items():
        for entry in load_gallery(runs[0].run):
            worst = [p for p in entry["pictures"] if p["rank"].startswith("Worst")]
            sites.setdefault(entry["site"], []).extend(p | {"strategy": name} for p in worst)
    return [{"site": site, "pictures": pictures} for site, pictures in sites.items() if pictures]


def _named(row: dict[str, Any]) -> dict[str, float]:
    return {n: v for n, v in row.items() if n not in ("site", "case_id") and v is not None}


def _scores(row: dict[str, Any]) -> list[float]:
    return list(_named(row).values())


def _average(values: list[float]) -> float:
    return sum(values) / len(values)

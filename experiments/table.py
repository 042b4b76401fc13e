"""Tables of finished runs: Dice by site and strategy, and paired differences between strategies.

usage: python experiments/table.py OUT RUN [RUN…]

Writes OUT-dice.csv and OUT-paired.csv, and prints both. Runs of one strategy with several seeds are
averaged case by case. A difference is flames minus the other strategy on the same test cases, with
a 95 % bootstrap interval over cases (patients where they are known); p-values of the means over
sites are corrected by Holm's method.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from flames.metrics.statistics import (
    bootstrap_interval,
    holm,
    mean_over_sites,
    paired_difference,
    paired_difference_over_sites,
)
from flames.metrics.tables import groups_by_site, values_by_site
from flames.runs import RunFolder, save_csv

REFERENCE = "flames"
Values = dict[str, dict[str, float | None]]


def main(out: str, paths: list[str]) -> None:
    runs: dict[str, list[RunFolder]] = defaultdict(list)
    notes: dict[str, dict[str, Any]] = {}
    for path in paths:
        run = RunFolder(Path(path))
        summary = run.load_summary()
        runs[summary["strategy"]].append(run)
        environment = json.loads(run.environment.read_text(encoding="utf-8"))
        notes.setdefault(
            summary["strategy"],
            {
                "commit": str(environment["commit"])[:10],
                "minutes": round(summary["seconds"]["total"] / 60, 1),
            },
        )
        notes[summary["strategy"]].setdefault("seeds", []).append(str(summary["seed"]))
    tables = {name: [run.load_cases() for run in found] for name, found in runs.items()}
    values = {name: average(rows, "personal") for name, rows in tables.items()}
    servers = {name: average(rows, "server") for name, rows in tables.items()}
    groups = groups_by_site(next(iter(runs.values()))[0].load_cases())
    rows = dice_rows(values, groups, notes, "personal")
    rows += dice_rows({n: v for n, v in servers.items() if v}, groups, notes, "server")
    save_csv(Path(f"{out}-dice.csv"), rows)
    paired = paired_rows(values, groups)
    save_csv(Path(f"{out}-paired.csv"), paired)
    for name in (f"{out}-dice.csv", f"{out}-paired.csv"):
        print(Path(name).read_text(encoding="utf-8"))


def average(tables: list[list[dict[str, str]]], kind: str) -> Values:
    """Return site → case → Dice of one kind of model, averaged over seeds."""
    every = [values_by_site(rows, "dice", model_kind=kind) for rows in tables]
    result: Values = {}
    for site, cases in every[0].items():
        result[site] = {}
        for case in cases:
            known = [v for table in every if (v := table[site][case]) is not None]
            result[site][case] = sum(known) / len(known) if known else None
    return result


def dice_rows(
    values: dict[str, Values],
    groups: dict[str, Any],
    notes: dict[str, dict[str, Any]],
    kind: str,
) -> list[dict[str, Any]]:
    rows = []
    for name, sites in values.items():
        note = notes[name]
        start = {
            "strategy": name,
            "model": kind,
            "seeds": " ".join(note["seeds"]),
            "commit": note["commit"],
        }
        for site, cases in sites.items():
            units = [groups[site][case] for case in cases]
            score = bootstrap_interval(cases.values(), seed=0, groups=units)
            rows.append(start | {"site": site} | rounded(score.as_dict()) | {"minutes": ""})
        score = mean_over_sites({s: list(c.values()) for s, c in sites.items()}, seed=0)
        rows.append(
            start
            | {"site": "mean over sites"}
            | rounded(score.as_dict())
            | {"minutes": note["minutes"]}
        )
    return rows


def paired_rows(values: dict[str, Values], groups: dict[str, Any]) -> list[dict[str, Any]]:
    if REFERENCE not in values:
        return []
    rows, means = [], []
    ours = values[REFERENCE]
    for name, sites in values.items():
        if name == REFERENCE:
            continue
        for site in ours:
            found = paired_difference(ours[site], sites[site], seed=0, groups=groups[site])
            rows.append({"minus": name, "site": site} | rounded(found.as_dict()) | {"p_holm": ""})
        found = paired_difference_over_sites(ours, sites, seed=0, groups_by_site=groups)
        row = {"minus": name, "site": "mean over sites"} | rounded(found.as_dict())
        means.append(row)
        rows.append(row)
    for row, p_value in zip(means, holm([row["p_value"] for row in means]), strict=True):
        row["p_holm"] = round(p_value, 4)
    return rows


def rounded(record: dict[str, Any]) -> dict[str, Any]:
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in record.items()}


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2:])

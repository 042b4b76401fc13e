"""What does a setting of [wire] cost in Dice? Runs of one federation, setting by setting.

usage: python experiments/wire_cost.py RUNS [--reference float32] [--out experiments/wire-dice.csv]

RUNS holds finished run folders called SETTING-SEED. A case's Dice is its mean over seeds;
differences to the reference, with the same seeds, are paired by case. Megabytes are of one client
in one round, from the second on, in the mean over sites and rounds.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import fmean

from flames.metrics.comparison import case_values, paired_rows, site_scores
from flames.metrics.tables import groups_by_site
from flames.runs import RunFolder, save_csv


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", type=Path)
    parser.add_argument("--reference", default="float32")
    parser.add_argument("--out", type=Path, default=Path("experiments/wire-dice.csv"))
    given = parser.parse_args()
    settings: dict[str, dict[str, RunFolder]] = {}
    for path in sorted(given.runs.iterdir()):
        run = RunFolder(path)
        if run.cases.exists():
            setting, seed = path.name.rsplit("-", 1)
            settings.setdefault(setting, {})[seed] = run
    theirs = settings[given.reference]
    groups = groups_by_site(theirs[min(theirs)].load_cases())
    rows = []
    for kind in ("personal", "server"):
        for setting, runs in settings.items():
            seeds = sorted(set(runs) & set(theirs))
            values = {
                name: case_values([those[s].load_cases() for s in seeds], "dice", model_kind=kind)
                for name, those in ((given.reference, theirs), (setting, runs))
            }
            paired = paired_rows(values, groups, reference=given.reference, seed=0)
            minus = {row["site"]: row for row in paired}
            travelled = megabytes([runs[seed] for seed in seeds])
            for score in site_scores(values[setting], groups, seed=0):
                found = minus.get(score["site"], {})
                rows.append(
                    {
                        "setting": setting,
                        "model": kind,
                        "seeds": " ".join(seeds),
                        "site": score["site"],
                        "cases": score["n"],
                        "dice": rounded(score["mean"]),
                        "minus_reference": rounded(found.get("mean")),
                        "low": rounded(found.get("low")),
                        "high": rounded(found.get("high")),
                        "p_value": rounded(found.get("p_value")),
                        "mb_up": rounded(travelled["bytes_up"]),
                        "mb_down": rounded(travelled["bytes_down"]),
                    }
                )
    save_csv(given.out, rows)
    for row in rows:
        if row["site"] == "mean over sites":
            print(row)


def rounded(value: float | None) -> float | str:
    return "" if value is None else round(value, 6)


def megabytes(runs: list[RunFolder]) -> dict[str, float]:
    records = [
        record
        for run in runs
        for record in run.load_rounds()
        if record["kind"] == "site" and record["round"] > 1 and record["loss"] is not None
    ]
    return {key: fmean(r[key] for r in records) / 1e6 for key in ("bytes_up", "bytes_down")}


if __name__ == "__main__":
    main()

"""Students of several runs in three tables: Dice, differences to their teachers, and costs.

usage: python experiments/student_tables.py STUDIES --name NAME [--out experiments]

STUDIES holds folders of `flames distill` called TEACHERS-SEED. Rows of seed "all" are the means
over seeds, with the same patients in each.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from flames.metrics.comparison import by_repetition, site_scores
from flames.metrics.tables import groups_by_site, number
from flames.reports.compare.tables import rounded
from flames.reports.distillation import student_pairs
from flames.runs import load_csv, save_csv

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("studies", type=Path)
    parser.add_argument("--name", required=True, help="what the tables' files begin with")
    parser.add_argument("--out", type=Path, default=Path("experiments"))
    given = parser.parse_args()
    dice: list[Row] = []
    paired: list[Row] = []
    costs: list[Row] = []
    for teachers, studies in by_teachers(given.studies).items():
        for seed, study in studies.items():
            about = {"teachers": teachers, "seed": seed}
            dice += [about | row for row in load_csv(study / "tables" / "scores.csv")]
            paired += [about | row for row in load_csv(study / "tables" / "paired.csv")]
            costs += [about | row for row in load_csv(study / "costs.csv")]
        about = {"teachers": teachers, "seed": "all"}
        scores, differences = over_seeds(list(studies.values()))
        dice += [about | rounded(row) for row in scores]
        paired += [about | rounded(row) for row in differences]
    save_csv(given.out / f"{given.name}-dice.csv", dice)
    save_csv(given.out / f"{given.name}-paired.csv", paired)
    save_csv(given.out / f"{given.name}-costs.csv", costs)
    for row in [*dice, *paired]:
        if row["site"] == "mean over sites":
            print(row)


def by_teachers(folder: Path) -> dict[str, dict[str, Path]]:
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(folder.iterdir()):
        if (path / "costs.csv").exists():
            teachers, seed = path.name.rsplit("-", 1)
            found.setdefault(teachers, {})[seed] = path
    return found


def over_seeds(studies: list[Path]) -> tuple[list[Row], list[Row]]:
    tables = [load_csv(study / "cases.csv") for study in studies]
    values = {
        name: by_repetition([dice_of(table, name) for table in tables])
        for name in dict.fromkeys(row["student"] for row in tables[0])
    }
    groups = groups_by_site(tables[0])
    scores = [
        {"model": name} | row
        for name, found in values.items()
        for row in site_scores(found, groups, seed=0)
    ]
    return scores, student_pairs(values, groups)


def dice_of(rows: list[dict[str, str]], name: str) -> dict[str, dict[str, float | None]]:
    found: dict[str, dict[str, float | None]] = {}
    for row in rows:
        if row["student"] == name:
            found.setdefault(row["site"], {})[row["case_id"]] = number(row["dice"])
    return found


if __name__ == "__main__":
    main()

"""The sites of a run as a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flames.reports.numbers import DASH, decimal, estimate, whole
from flames.reports.records import load_records
from flames.runs import RunFolder


def print_summary(run: RunFolder, console: Console) -> None:
    """Print a line a site: test cases, and Dice of its personalised and the server's model."""
    records = load_records(run)
    if not records.finished:
        console.print("No scores yet: the run is not finished.")
        return
    table = Table(title="Dice on test cases, mean [95 % interval]", box=box.SIMPLE_HEAD)
    for name in ("Site", "Organ"):
        table.add_column(name, overflow="fold")
    for name in ("Test", "Personalised", "Server"):
        table.add_column(name, justify="right", no_wrap=True)
    for site, fields in records.sites().items():
        table.add_row(
            Text(site),
            Text(str(fields.get("organ") or DASH)),
            whole((fields.get("cases") or {}).get("test")),
            *(Text(estimate(records.score(site, k).get("dice"))) for k in ("personal", "server")),
        )
    console.print(table)


def print_scores(summary: Mapping[str, Any], console: Console) -> None:
    """Print a line a model and site: Dice, and how well tumour presence is told."""
    table = Table(
        title="Scores, mean [95 % interval]",
        box=box.SIMPLE_HEAD,
        collapse_padding=True,  # eight columns in a terminal of eighty
        pad_edge=False,
    )
    for name in ("Model", "Site"):
        table.add_column(name, overflow="fold", min_width=11)
    for name in ("n", "Dice", "AUC", "Sens.", "Spec.", "Missed"):
        table.add_column(name, justify="right", no_wrap=True)
    for score in summary["scores"]:
        presence = score["presence"]
        table.add_row(
            Text(score["model"]),
            Text(score["site"]),
            whole(score["cases"]),
            Text(estimate(score["dice"])),
            *(decimal(presence[key], 2) for key in ("auc", "sensitivity", "specificity")),
            whole(score["missed"]),
        )
    console.print(table)

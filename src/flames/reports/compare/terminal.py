"""The comparison as a table for the terminal."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flames.metrics.comparison import MEAN
from flames.metrics.tables import number
from flames.reports.compare.content import PRIOR
from flames.reports.numbers import decimal
from flames.runs import load_csv

COLUMNS = {
    "Dice": ("dice", 3), "Server": ("server_dice", 3), "Worst": ("worst_dice", 3),
    "Clearly\nharmed": ("sites_clearly_below_local", 0), "AUC": ("auc", 2),
    "Spec.": ("specificity", 2), "ECE\n≥ 0.05": ("ece_raised", 3), "Minutes": ("minutes", 1),
}  # fmt: skip


def print_comparison(tables: Path, console: Console) -> None:
    """Print a line a strategy, and the Dice that takes no look at an image."""
    table = Table(
        title="Strategies, means over sites on test cases",
        box=box.SIMPLE_HEAD,
        collapse_padding=True,  # nine columns in a terminal of eighty
        pad_edge=False,
    )
    table.add_column("Strategy", overflow="fold")
    for name in COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    for row in load_csv(tables / "overview.csv"):
        cells = [decimal(number(row[name]), digits) for name, digits in COLUMNS.values()]
        table.add_row(Text(row["strategy"]), *cells)
    console.print(table)
    for row in load_csv(tables / "scores.csv"):
        if row["strategy"] == PRIOR and (row["measure"], row["site"]) == ("dice", MEAN):
            mean = decimal(number(row["mean"]))
            console.print(f"A mask that does not look at the image has {mean}.", highlight=False)

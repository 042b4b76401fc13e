"""The reference of the command line has every command, with every option and its default."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from flames.cli.main import app

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "command-line.md"


def commands(found: Any, *names: str) -> Iterator[tuple[str, Any]]:
    for name, command in getattr(found, "commands", {}).items():
        yield from commands(command, *names, name)
    if not hasattr(found, "commands"):
        yield " ".join(names), found


def rows(name: str) -> dict[str, str]:
    """Return the first cells of the tables of a command's part, and the defaults beside them."""
    parts = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    (part,) = [part for part in parts if f"`flames {name}`" in part.splitlines()[0]]
    table = re.findall(r"^\| (`.*?) \|(.*?)\|.*\|$", part, re.MULTILINE)
    return {cell: default.strip() for cell, default in table}


@pytest.mark.parametrize(
    ("name", "command"), [*commands(typer.main.get_command(app))], ids=lambda v: str(v)[:20]
)
def test_every_option_is_in_the_reference_with_its_default(name: str, command: Any) -> None:
    table = rows(name)
    for one in command.params:
        if one.name == "help":
            continue
        argument = one.param_type_name == "argument"
        shown = [(one.metavar or one.name).upper().strip(".")] if argument else one.opts
        cells = [cell for cell in table if all(f"`{word}" in cell for word in shown)]
        assert cells, f"flames {name}: {shown}"
        if isinstance(one.default, str) and one.default:
            assert table[cells[0]] == f"`{one.default}`", (name, shown)
        elif type(one.default) in (int, float) and one.default > 0:
            assert table[cells[0]] == f"{one.default:g}", (name, shown)

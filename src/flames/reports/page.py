"""A page of tables and figures: the form that every study's report has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from flames import __version__
from flames.files import save_text
from flames.reports.compare.html import environment


@dataclass(frozen=True)
class PageTable:
    """A table of text; its first column names the row."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    note: str = ""
    last_apart: bool = False
    """Whether the last row is a mean."""
    by_site: Sequence[Sequence[str]] = ()
    """Rows of single sites, which are shown when they are asked for."""


@dataclass(frozen=True)
class Figure:
    """A drawing with what it shows."""

    caption: str
    svg: Markup
    legend: Sequence[dict[str, Any]] = ()
    wide: bool = False


@dataclass(frozen=True)
class PageSection:
    """A part of the page."""

    title: str
    note: str = ""
    tables: Sequence[PageTable] = ()
    figures: Sequence[Figure] = ()


@dataclass(frozen=True)
class Page:
    """A study's report."""

    kicker: str
    name: str
    lead: str
    facts: Sequence[tuple[str, str]]
    sections: Sequence[PageSection]
    limits: Sequence[str]
    made_up: bool = False
    config_text: str = field(default="")


def write_page(path: Path, page: Page) -> Path:
    """Write ``page`` as one HTML file that opens anywhere; return its path."""
    template = environment().get_template("page.html.j2")
    save_text(path, template.render(page=page, version=__version__))
    return path

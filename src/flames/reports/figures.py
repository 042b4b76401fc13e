"""Records become figures: learning curves by modality, and the sites side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from markupsafe import Markup

from flames.reports.numbers import DASH, is_number
from flames.reports.records import Records, modality_of
from flames.reports.svg import Dot, Line, forest_plot, line_chart, swatch
from flames.reports.tables import shown_kinds


def sites_figure(records: Records) -> Markup:
    """Return the mean Dice of every site with its interval, for both kinds of model."""
    cases = _dice_by_model_and_site(records)
    dots = []
    for site, fields in records.sites().items():
        note = " · ".join([modality_of(fields), str(fields.get("organ") or DASH)])
        for kind in shown_kinds(records):
            score = records.score(site, kind)
            found = cases.get((str(score.get("model")), site), [])
            dots.append(Dot(site, note, kind, score.get("dice") or {}, found))
    return forest_plot(dots, title="Mean Dice of every site with its 95 % interval")


def curve_panels(records: Records) -> list[dict[str, Any]]:
    """Return one entry a modality: its charts, each with a title, and the legend of its sites."""
    groups: dict[str, list[str]] = {}
    for client, fields in records.clients().items():
        groups.setdefault(modality_of(fields), []).append(client)
    return [_panel(records, modality, sites) for modality, sites in groups.items()]


def _panel(records: Records, modality: str, sites: list[str]) -> dict[str, Any]:
    server = [
        Line(name, points, thick=True)
        for group, name in ((modality, f"server, {modality}"), ("all", "server, all modalities"))
        if (points := _server_points(records, group))
    ]
    charts = [
        ("Training loss", _lines(records, sites, lambda r: r.get("loss")), None),
        ("Validation Dice", [*_lines(records, sites, _validation), *server], (0.0, 1.0)),
        ("α, share of own weights", _lines(records, sites, lambda r: r.get("alpha")), (0.0, 1.0)),
    ]
    numbers = [r["round"] for r in records.rounds if is_number(r.get("round"))]
    rounds = (min(numbers, default=1), max(numbers, default=1))
    drawn = [
        {"title": title, "svg": svg}
        for title, lines, bounds in charts
        if (svg := line_chart(lines, title=f"{title}, {modality}", rounds=rounds, bounds=bounds))
    ]
    legend = [{"name": site, "swatch": swatch(index)} for index, site in enumerate(sites)]
    legend += [{"name": line.name, "swatch": swatch(0, thick=True)} for line in server]
    return {"modality": modality, "charts": drawn, "legend": legend}


def _lines(
    records: Records, sites: list[str], value: Callable[[dict[str, Any]], Any]
) -> list[Line]:
    lines = []
    for index, site in enumerate(sites):
        found = [(r.get("round"), value(r)) for r in records.site_rounds(site)]
        points = [(x, y) for x, y in found if is_number(x) and is_number(y)]
        lines.append(Line(site, sorted(points), index))
    return lines


def _validation(record: dict[str, Any]) -> Any:
    """Return the validation Dice after training, else of the start, else of the best tried."""
    tried = {k: v for k, v in (record.get("validation") or {}).items() if is_number(v)}
    known = [tried[key] for key in ("trained", record.get("chosen")) if key in tried]
    return known[0] if known else max(tried.values(), default=None)


def _server_points(records: Records, group: str) -> list[tuple[float, float]]:
    found = [
        (r.get("round"), r.get("validation"))
        for r in records.server_rounds()
        if r.get("group") == group
    ]
    return sorted((x, y) for x, y in found if is_number(x) and is_number(y))


def _dice_by_model_and_site(records: Records) -> dict[tuple[str, str], list[float]]:
    found: dict[tuple[str, str], list[float]] = {}
    for row in records.cases:
        if row.get("dice"):
            found.setdefault((row["model"], row["site"]), []).append(float(row["dice"]))
    return found

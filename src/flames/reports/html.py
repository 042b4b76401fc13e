"""The report: one HTML file that opens anywhere, offline, made from the run folder alone."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from flames import __version__
from flames.files import save_text
from flames.reports.differences import mean_difference
from flames.reports.figures import curve_panels, sites_figure
from flames.reports.gallery import load_gallery
from flames.reports.numbers import DASH, is_number, signed, whole
from flames.reports.records import Records, load_records, modality_of
from flames.reports.tables import (
    cost_rows,
    mean_rows,
    server_rows,
    shown_kinds,
    site_rows,
    tile_rows,
    time_shares,
)
from flames.reports.words import LIMITS, MEANINGS, strategy_sentence
from flames.runs import RunFolder

_DATES = ("date", "started", "finished", "created", "time")


def write_report(run: RunFolder) -> Path:
    """Write ``report.html`` into the run folder, and return its path.

    The same folder gives the same bytes. An unfinished run gives a report of what there is.

    Raises:
        FlamesError: The folder is no run, or a record in it cannot be read.
    """
    records = load_records(run)
    environment = Environment(
        loader=PackageLoader("flames", "reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.j2").render(**_content(records))
    save_text(run.report, page)
    return run.report


def _content(records: Records) -> dict[str, Any]:
    return {
        "name": str(records.setting("name") or records.run.path.resolve().name),
        "facts": _facts(records),
        "finished": records.finished,
        "made_up": True in (records.setting("made_up"), records.environment.get("made_up")),
        "sentences": _sentences(records),
        "tiles": tile_rows(records) if records.finished else [],
        "forest": sites_figure(records),
        "sites": site_rows(records),
        "means": mean_rows(records),
        "kinds": shown_kinds(records),
        "difference": signed(mean_difference(records)),
        "tolerances": _tolerances(records),
        "unseen": _unseen(records),
        "servers": server_rows(records),
        "panels": curve_panels(records),
        "closing": _closing(records),
        "costs": cost_rows(records),
        "times": time_shares(records),
        "gallery": load_gallery(records.run),
        "meanings": MEANINGS,
        "limits": LIMITS,
        "config_text": records.config_text,
        "environment": list(_flat(records.environment)),
        "version": __version__,
        "dash": DASH,
    }


def _facts(records: Records) -> list[tuple[str, str]]:
    environment = records.environment
    packages = environment.get("packages") or environment.get("versions") or {}
    version = environment.get("flames") or dict(packages).get("flames") or DASH
    date = next((environment[key] for key in _DATES if environment.get(key)), DASH)
    network = records.setting("network") or records.setting("model") or DASH
    parameters = records.summary.get("parameters")
    size = f" ({whole(parameters)} parameters)" if is_number(parameters) else ""
    seed = records.setting("seed")
    return [
        ("Strategy", str(records.setting("strategy") or DASH)),
        ("Network", f"{network}{size}"),
        ("Rounds", _rounds(records)),
        ("Seed", DASH if seed is None else str(seed)),
        *([("Began with", Path(str(start)).name)] if (start := records.setting("start")) else []),
        ("Date", _minute(str(date))),
        ("FLAMES", str(version)),
    ]


def _last(records: Records) -> Any:
    return max((r["round"] for r in records.rounds if is_number(r.get("round"))), default=0)


def _closing(records: Records) -> str:
    """Return the number by which curves show the closing pass, or nothing if there is none yet."""
    last, planned = _last(records), records.setting("rounds")
    return whole(last) if is_number(planned) and last > planned else ""


def _minute(date: str) -> str:
    """Return a time of day as people write it, anything else as it is.

    >>> _minute("2026-11-30T06:15:34+00:00"), _minute("2026-11-30")
    ('2026-11-30 06:15 UTC', '2026-11-30')
    """
    try:
        found = datetime.fromisoformat(date)
    except ValueError:
        return date
    return date if "T" not in date else found.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def _rounds(records: Records) -> str:
    done, planned = _last(records), records.setting("rounds")
    if is_number(planned):
        done = min(done, planned)  # the closing pass is recorded too, but trains nothing
    return whole(done) if planned in (None, done) else f"{whole(done)} of {whole(planned)}"


def _sentences(records: Records) -> list[str]:
    sites = records.sites()
    modalities = sorted({modality_of(fields) for fields in sites.values()})
    organs = sorted({str(f["organ"]) for f in sites.values() if f.get("organ")})
    cases = [(f.get("cases") or {}).get("train") for f in sites.values()]
    train = sum(n for n in cases if is_number(n))
    strategy = records.setting("strategy")
    number = f"{len(sites)} site" if len(sites) == 1 else f"{len(sites)} sites"
    what = f"{number} of {_listed(modalities) or 'unknown modality'}"
    what += f", with tumours of {_listed(organs)}," if organs else ""
    learned = f" on {whole(train)} training cases" if train else ""
    return [
        f"In this run {what} trained models that outline tumours{learned}.",
        strategy_sentence(None if strategy is None else str(strategy)),
    ]


def _listed(words: list[str]) -> str:
    return " and ".join(part for part in (", ".join(words[:-1]), *words[-1:]) if part)


def _tolerances(records: Records) -> list[str]:
    """Return the tolerances at which NSD was measured, such as ``"2 mm"``."""
    found = {
        (float(row["nsd_tolerance"]), row.get("distance_unit") or "")
        for row in [*records.cases, *records.scores]
        if row.get("nsd_tolerance")
    }
    return [f"{value:g}\u00a0{unit}".strip() for value, unit in sorted(found)]


def _unseen(records: Records) -> str:
    """Return the sites with scores of no single case, as words."""
    if not records.run.cases.exists():
        return ""
    seen = {row["site"] for row in records.cases}
    scored = {str(score["site"]) for score in records.scores if "site" in score}
    return _listed(sorted(scored - seen))


def _flat(content: dict[str, Any], before: str = "") -> Any:
    for key, value in content.items():
        name = f"{before}{key}"
        if isinstance(value, dict):
            yield from _flat(value, f"{name} › ")
        elif isinstance(value, list):
            yield name, ", ".join(str(part) for part in value)
        else:
            yield name, DASH if value is None else str(value)

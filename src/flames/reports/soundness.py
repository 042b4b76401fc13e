"""Whether the files of a finished run are whole: of half a file a comparison gets wrong numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from math import isfinite

from flames.errors import FlamesError
from flames.metrics.calibration import BINS
from flames.metrics.tables import number
from flames.reports.records import Records, made_again

CASES = {
    "words": ("model", "model_kind", "site", "case_id"),
    "numbers": ("dice", "nsd", "presence_score", "tumour_present", "tumour_predicted"),
}
"""Columns of ``cases.csv`` that a comparison reads."""
CALIBRATION = {
    "words": ("model", "site"),
    "numbers": ("bin", "pixels", "probability", "tumour"),
}
Row = Mapping[str, str | None]


def check_whole(records: Records) -> None:
    """Refuse a finished run of whose files something is missing.

    ``summary.json`` says what was scored and for how many rounds, and the other files must hold it.
    A site that gave aggregates only has no cases, and an old run has no ``calibration.csv``.

    Raises:
        FlamesError: A file is damaged or cut short; it is named, with what helps.
    """
    run, summary = records.run, records.summary
    remedy = f"restore the file, or {made_again(run)}"
    if why := _of_cases(records):
        raise FlamesError(f"{run.cases} is damaged: {why}", remedy)
    if why := _of_calibration(records):
        raise FlamesError(f"{run.calibration} is damaged: {why}", remedy)
    last = max((int(r.get("round") or 0) for r in records.site_rounds()), default=0)
    if last < int(summary.get("rounds") or 0):
        raise FlamesError(
            f"{run.rounds} is missing or damaged: the run has {summary['rounds']} rounds, and "
            f"{last} are there",
            remedy,
        )


def _of_cases(records: Records) -> str:
    """Return what is wrong with the scores of cases, or nothing."""
    if why := _of_rows(records.cases, CASES):
        return why
    found = Counter((row["model"], row["site"]) for row in records.cases)
    with_cases = {site for _, site in found}
    for score in records.scores:
        key, cases = (str(score.get("model")), str(score.get("site"))), score.get("cases")
        if cases is not None and key[1] in with_cases and found[key] != cases:
            return f"it has {found[key]} of the {cases} cases of {key[0]} at {key[1]}"
    return ""


def _of_calibration(records: Records) -> str:
    """Return what is wrong with the reliability tables, or nothing."""
    if not records.run.calibration.exists():
        return ""
    rows = records.run.load_calibration()
    if why := _of_rows(rows, CALIBRATION):
        return why
    bins: dict[tuple[str, str], list[int]] = {}
    for row in rows:
        bins.setdefault((row["model"], row["site"]), []).append(int(row["bin"]))
    scored = {(str(score.get("model")), str(score.get("site"))) for score in records.scores}
    for model, site in sorted(scored | bins.keys()):
        if sorted(bins.get((model, site), [])) != list(range(BINS)):
            return f"it does not have the {BINS} bins of {model} at {site}"
    return ""


def _of_rows(rows: Iterable[Row], columns: Mapping[str, tuple[str, ...]]) -> str:
    """Return what is wrong with a file's columns or cells, or nothing."""
    read = None
    for read, row in enumerate(rows):
        for name in (*columns["words"], *columns["numbers"]):
            if name not in row:
                return f"it has no column {name!r}"
            if row[name] is None:
                return f"line {read + 2} is cut short"
        for name in columns["numbers"]:
            if not _is_number(row[name]):
                return f"line {read + 2} has {row[name]!r} for {name}"
    return "" if read is not None else "nothing is in it"


def _is_number(cell: str | None) -> bool:
    try:
        value = number(cell)
    except ValueError:
        return False
    return value is None or isfinite(value)

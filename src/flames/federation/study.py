"""The folder of a study: what it was made with, and the scores that are kept in it."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flames.data.store import SiteStore, Split
from flames.errors import FlamesError
from flames.files import nothing_in, save_json
from flames.metrics.tables import number
from flames.runs import load_csv

COLUMNS = {"site", "modality", "organ", "case_id", "group", "dice"}
"""What reports read of a kept score."""
MADE_OF = "made_of"
"""Column of kept scores: a digest of all that decides them."""
COMPARISON, UNSEEN = "tables/overview.csv", "plan.json"
WORKS = {
    "config.toml": "a run",
    COMPARISON: "a comparison of strategies",
    UNSEEN: "a study of unseen organs and hospitals",
    "adapt.json": "a study of a hospital that joins",
    "distil.json": "a study of students",
    "shifts.json": "scores under shifts",
}
"""What a folder holds, by a file in it."""


def refuse_others(out: Path, *, own: str, runs: Iterable[Path]) -> None:
    """Refuse a folder in which a study would write its report and tables over those of another.

    Args:
        out: Folder of the study.
        own: The study's own file of `WORKS`, once it is finished.
        runs: Folders of the study's runs; one that is there says that it has begun.

    Raises:
        FlamesError: The folder holds something else, and no such study.
    """
    if (out / own).exists() or any(run.exists() for run in runs):
        return
    for name, what in WORKS.items():
        if (out / name).exists():
            raise FlamesError(f"{out} holds {what}", "name a new --out")


def claim(record: Path, mine: Mapping[str, Any], *, beside: Collection[str] = ()) -> None:
    """Make the record's folder this study's own, or check that it already is.

    Args:
        record: File that says what the study is made with; its folder is the study's.
        mine: What decides the study's numbers, as JSON has it.
        beside: Names that may lie in the folder of a study that has not begun.

    Raises:
        FlamesError: The folder is no folder, holds something else or another study, or the record
            is damaged.
    """
    found = load_record(record, beside=beside)
    if found is None:
        save_json(record, dict(mine))
        return
    if missing := sorted(mine.keys() - found.keys()):
        raise FlamesError(
            f"{record} does not say with which {_words(missing)} it was made", "name a new --out"
        )
    if different := sorted(_differences(found, mine)):
        raise FlamesError(
            f"{record.parent} was made with another {_words(different)}", "name a new --out"
        )


def load_record(record: Path, *, beside: Collection[str] = ()) -> dict[str, Any] | None:
    """Return what a study was made with; None where its folder is free for a new one.

    Raises:
        FlamesError: The folder is no folder or holds something else, or the record is damaged.
    """
    out = record.parent
    if out.exists() and not out.is_dir():
        raise FlamesError(f"{out} is not an empty folder", "name a new --out")
    if not record.exists():
        if not nothing_in(out, beside=beside):
            raise FlamesError(
                f"{out} is not an empty folder, and holds no such study", "name a new --out"
            )
        return None
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _damaged(record, str(error)) from error
    if not isinstance(found, dict):
        raise _damaged(record, "it holds no object")
    return found


def load_scores(
    path: Path,
    store: SiteStore,
    *,
    splits: Sequence[Split] = ("test",),
    each: Sequence[Mapping[str, str]] = ({},),
    beside: Collection[str] = (),
    made_of: str = "",
) -> list[dict[str, str]] | None:
    """Return kept scores of a store's cases; None where they must be made again.

    That is where the file is missing, empty or damaged, holds other cases, or was made of something
    else. What a file does not say it was made of is not compared.

    Args:
        path: The kept scores.
        store: Whose cases were scored.
        splits: Sides of the split that were scored, in their order.
        each: What the rows of every case say besides, in turn; one row a case as it is.
        beside: Columns that are needed besides `COLUMNS`.
        made_of: What they must be made of, see `digest_of`.
    """
    rows = read_scores(path, beside=set().union(beside, *each))
    if rows is None or any(row.get(MADE_OF) not in (None, made_of) for row in rows if made_of):
        return None
    wanted = [
        {"case_id": case.case_id} | dict(said)
        for side in splits
        for case in store.split(side)
        for said in each
    ]
    found = [{key: row[key] for key in {"case_id"}.union(*each)} for row in rows]
    return rows if found == wanted else None


def read_scores(path: Path, *, beside: Collection[str] = ()) -> list[dict[str, str]] | None:
    """Return kept scores as they are; None where the file is missing or damaged.

    Args:
        path: The kept scores.
        beside: Columns that are needed besides `COLUMNS`.
    """
    try:
        rows = load_csv(path)
        for row in rows:
            if not row.keys() >= COLUMNS.union(beside) or None in row or None in row.values():
                return None
            number(row["dice"])
    except (OSError, ValueError, csv.Error):
        return None
    return rows


def digest_of(stores: Iterable[SiteStore], *beside: object) -> str:
    """Return a digest of stores, as they were prepared and split, and of what else is named."""
    said = [store.info.model_dump_json() + store.splits.model_dump_json() for store in stores]
    return hashlib.sha256("\n".join([*said, *map(str, beside)]).encode()).hexdigest()


def _differences(found: Mapping[str, Any], mine: Mapping[str, Any]) -> Iterator[str]:
    for key, value in mine.items():
        if found[key] == value:
            continue
        if isinstance(value, dict) and isinstance(found[key], dict):
            parts = sorted(
                part for part in value.keys() | found[key].keys()
                if value.get(part) != found[key].get(part)
            )  # fmt: skip
            yield f"{key} ({', '.join(parts)})"
        else:
            yield key


def _words(keys: Collection[str]) -> str:
    return ", ".join(keys).replace("_", " ")


def _damaged(record: Path, why: str) -> FlamesError:
    return FlamesError(
        f"{record} is damaged: {why}", "restore the file, or name a new --out and do all again"
    )

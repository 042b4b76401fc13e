"""Pictures of cases, embedded; only sites whose owner allows them have any."""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path
from typing import Any

from flames.errors import FlamesError
from flames.reports.numbers import decimal
from flames.reports.words import RANKS
from flames.runs import RunFolder

_PNG = b"\x89PNG\r\n\x1a\n"


def load_gallery(run: RunFolder) -> list[dict[str, Any]]:
    """Return the pictures by site, the best case first; no index, no pictures.

    Raises:
        FlamesError: The index cannot be read, or names a file outside the folder of pictures.
    """
    index = run.pictures / "index.json"
    if not index.exists():
        return []
    try:
        entries = json.loads(index.read_text(encoding="utf-8"))
        ordered = sorted(entries, key=lambda e: (str(e["site"]), _order(e.get("rank"))))
        sites: dict[str, list[dict[str, str]]] = {}
        for entry in ordered:
            if picture := _picture(run.pictures, entry):
                sites.setdefault(str(entry["site"]), []).append(picture)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise FlamesError(
            f"{index} cannot be read: {error!r}", "remove the folder of pictures, then try again"
        ) from error
    return [{"site": site, "pictures": pictures} for site, pictures in sites.items()]


def _picture(folder: Path, entry: dict[str, Any]) -> dict[str, str] | None:
    path = folder / str(entry["file"])
    if not path.resolve().is_relative_to(folder.resolve()):
        raise FlamesError(
            f"{folder / 'index.json'} names {entry['file']}, which lies outside {folder}",
            "a picture's file is a plain name in the folder of pictures",
        )
    content = path.read_bytes() if path.is_file() else b""
    if not content.startswith(_PNG):
        return None
    rank = RANKS.get(str(entry.get("rank")), "Case")
    model = (
        "server’s model" if str(entry.get("model")).startswith("server") else "personalised model"
    )
    return {
        "rank": rank,
        "case_id": str(entry.get("case_id")),
        "caption": f"Dice {decimal(entry.get('dice'))}, {model}",
        "alt": f"{rank} of {entry['site']}: case {entry.get('case_id')} with outlines",
        "data": b64encode(content).decode("ascii"),
    }


def _order(rank: Any) -> int:
    return list(RANKS).index(rank) if rank in RANKS else len(RANKS)

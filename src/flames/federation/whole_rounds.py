"""Rounds on a disk, one subfolder each: whole and safe from a power cut, or set aside."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from flames.array_files import load_metadata
from flames.errors import FlamesError
from flames.files import flush, writing


def rounds_in(folder: Path) -> list[int]:
    """Return the numbers of the finished rounds in a folder."""
    return sorted(int(path.name[6:]) for path in folder.glob("round-*"))


def round_place(folder: Path, server_round: int) -> Path:
    """Return the folder of a round."""
    return folder / f"round-{server_round:04d}"


def finish_round(partial: Path, place: Path) -> None:
    """Rename a round into place once all of it is on the disk, so that no power cut halves it.

    Raises:
        NotWritten: The disk is full; it can be tried again.
    """
    with writing(place):
        for folder, _, names in os.walk(partial):
            for name in names:
                flush(Path(folder) / name)
            flush(Path(folder))
        partial.rename(place)
        flush(place.parent)


def set_damaged_aside(folder: Path) -> list[str]:
    """Rename newest rounds that cannot be read to ``damaged-round-…``; return a sentence each.

    Of arrays the head and the size are looked at, of JSON all.
    """
    told: list[str] = []
    for server_round in reversed(rounds_in(folder)):
        place = round_place(folder, server_round)
        found = _damaged(place)
        if found is None:
            break
        aside = place.with_name(f"damaged-{place.name}")
        shutil.rmtree(aside, ignore_errors=True)
        place.rename(aside)
        told.append(
            f"{found.relative_to(folder)} in {folder} cannot be read, as after a power cut: the "
            f"round is set aside as {aside.name}, and done again from the one before"
        )
    return told


def _damaged(place: Path) -> Path | None:
    """Return the first file of a round that cannot be read."""
    for path in sorted(place.rglob("*")):
        try:
            if path.suffix == ".safetensors":
                load_metadata(path)
            elif path.suffix == ".json":
                json.loads(path.read_text(encoding="utf-8"))
        except (FlamesError, ValueError):
            return path
    return None

"""The log of what leaves a site, as lines for a person."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from flames.federation.network.outgoing import SIGNS_OF_LIFE, START, Entry, Verdict

HEAD = ("time", "run", "round", "purpose", "bytes", "SHA-256", "holds")


def log_words(entries: Iterable[Entry], *, every: bool) -> Iterator[str]:
    """Return a table, a line an entry, oldest first.

    Args:
        entries: Of the log.
        every: Show each sign of life; otherwise those in a row are one line.
    """
    yield _line(*HEAD)
    folded: list[Entry] = []
    for entry in entries:
        if not every and entry.get("purpose") in SIGNS_OF_LIFE:
            folded.append(entry)
            continue
        yield from _folded(folded)
        folded = []
        number = "" if entry.get("round") is None else str(entry["round"])
        holds = ", ".join(entry.get("holds", []))
        yield _line(
            entry["time"],
            entry["run"],
            number,
            entry["purpose"],
            f"{entry['bytes']:,}",
            entry["sha256"][:12],
            holds,
        )
    yield from _folded(folded)


def verdict_words(verdict: Verdict) -> str:
    """Return what checking a whole log found."""
    if verdict.last == START:
        return "nothing has left yet"
    torn = {0: "", 1: "; 1 torn line, noted"}.get(
        verdict.repairs, f"; {verdict.repairs} torn lines, noted"
    )
    return f"whole: {verdict.entries:,} entries{torn}\nlast hash {verdict.last}"


def _folded(entries: list[Entry]) -> Iterator[str]:
    if entries:
        size = f"{sum(entry['bytes'] for entry in entries):,}"
        first = entries[0]
        note = f"{len(entries):,} signs of life" if len(entries) > 1 else "a sign of life"
        yield _line(first["time"], first["run"], "", "", size, "", note)


def _line(*cells: str) -> str:
    time, run, number, purpose, size, digest, holds = cells
    return (
        f"{time:<25}  {run:<32}  {number:>5}  {purpose:<8}  {size:>13}  {digest:<12}  {holds}"
    ).rstrip()

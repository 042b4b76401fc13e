"""How numbers look: one rounding a kind of number, and a dash for what is undefined."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite, sqrt
from typing import Any, TypeGuard

DASH = "–"
MINUS = "−"


def decimal(value: Any, digits: int = 3) -> str:
    """Return ``value`` with ``digits`` decimals and a true minus, or a dash when undefined.

    >>> decimal(0.71249), decimal(-3.25, 1), decimal(None)
    ('0.712', '−3.2', '–')
    """
    if not is_number(value):
        return DASH
    text = f"{value:.{digits}f}"
    return text.replace("-", MINUS) if float(text) else text.lstrip("-")


def is_number(value: Any) -> TypeGuard[float]:
    """Return whether ``value`` is a finite number; a flag is none.

    >>> is_number(0), is_number(None), is_number(float("nan")), is_number(True)
    (True, False, False, False)
    """
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def whole(value: Any) -> str:
    """Return a count with narrow gaps between thousands, or a dash.

    >>> whole(31264705) == "31\\u202f264\\u202f705", whole(None)
    (True, '–')
    """
    return f"{round(value):,}".replace(",", "\u202f") if is_number(value) else DASH


def size(value: float) -> str:
    """Return an area or a volume with four figures, and from a thousand on as a whole number.

    >>> size(43.1234), size(0.36), size(7940.0), size(32220.4)
    ('43.12', '0.36', '7,940', '32,220')
    """
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def estimate(score: Mapping[str, Any] | None, digits: int = 3) -> str:
    """Return a mean with its interval; the interval is left out when there is none.

    >>> estimate({"mean": 0.7123, "low": 0.65, "high": 0.7712})
    '0.712 [0.650, 0.771]'
    >>> estimate({"mean": 0.5, "low": None, "high": None}), estimate(None)
    ('0.500', '–')
    >>> estimate({"mean": 0.5, "low": 0.5, "high": 0.5})  # one patient: nothing to draw from
    '0.500'
    """
    score = score or {}
    mean, span = decimal(score.get("mean"), digits), interval(score, digits)
    return f"{mean} {span}" if span else mean


def interval(score: Mapping[str, Any] | None, digits: int = 3) -> str:
    """Return ``[low, high]``, or nothing when either end is undefined or both are the same."""
    score = score or {}
    if not (is_number(score.get("low")) and is_number(score.get("high"))):
        return ""
    if score["low"] == score["high"]:
        return ""
    return f"[{decimal(score['low'], digits)}, {decimal(score['high'], digits)}]"


def signed(score: Mapping[str, Any] | None, digits: int = 3) -> str:
    """Return a difference with its sign, and its interval if it has one; nothing if undefined.

    The sign stays where rounding leaves zeros: whether an interval holds zero is looked for.

    >>> signed({"mean": 0.0514, "low": -0.01, "high": 0.112})
    '+0.051 [−0.010, +0.112]'
    >>> signed({"mean": -0.007, "low": -0.014, "high": -0.0004})
    '−0.007 [−0.014, −0.000]'
    >>> signed({"mean": -0.25, "low": None, "high": None}), signed({"mean": None})
    ('−0.250', '')
    """
    found = [(score or {}).get(key) for key in ("mean", "low", "high")]
    mean, low, high = (
        ("+" if end > 0 else MINUS if end < 0 else "") + decimal(abs(end), digits)
        if is_number(end)
        else ""
        for end in found
    )
    return f"{mean} [{low}, {high}]" if low and high and found[1] != found[2] else mean


def duration(seconds: Any) -> str:
    """Return a time that a person can take in.

    >>> duration(8.25), duration(125), duration(7380), duration(None)
    ('8.2 s', '2 min 5 s', '2 h 3 min', '–')
    """
    if not is_number(seconds):
        return DASH
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def megabytes(count: Any) -> str:
    """Return bytes as megabytes of a million bytes.

    >>> megabytes(8_040_000), megabytes(None)
    ('8.0', '–')
    """
    return decimal(count / 1e6, 1) if is_number(count) else DASH


def wilson(successes: int, trials: int) -> dict[str, Any]:
    """Return a proportion with its 95 % Wilson score interval; undefined without trials.

    With ``p = s/n`` and ``z = 1.96``, the ends are
    ``(p + z²/2n ± z·sqrt(p(1−p)/n + z²/4n²)) / (1 + z²/n)`` (Wilson, JASA 1927).

    >>> estimate(wilson(9, 10), 2)
    '0.90 [0.60, 0.98]'
    >>> estimate(wilson(0, 0))
    '–'
    """
    if not trials:
        return {"mean": None, "low": None, "high": None, "n": 0}
    p, z = successes / trials, 1.959964
    middle = p + z * z / (2 * trials)
    reach = z * sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    low, high = max(0.0, (middle - reach) / scale), min(1.0, (middle + reach) / scale)
    return {"mean": p, "low": low, "high": high, "n": trials}

"""``KEY=VALUE`` options."""

from __future__ import annotations

from collections.abc import Iterable

from flames.errors import FlamesError


def parse_overrides(pairs: Iterable[str]) -> dict[str, str]:
    """Return ``key=value`` texts as a dictionary.

    >>> parse_overrides(["rounds=3"])
    {'rounds': '3'}
    """
    overrides = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign or not key:
            raise FlamesError(f"--set {pair!r} is not KEY=VALUE", "write --set rounds=3")
        overrides[key.strip()] = value.strip()
    return overrides


def parse_numbers(text: str, option: str) -> tuple[int, ...]:
    """Return whole numbers from 0, with commas between.

    >>> parse_numbers("0, 5,20", "--cases")
    (0, 5, 20)
    """
    try:
        numbers = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise FlamesError(f"{option} {text!r} is not a list of numbers", "write 0,5,20") from error
    if not numbers or min(numbers) < 0:
        raise FlamesError(f"{option} {text!r} holds no number from 0", "write 0,5,20")
    return numbers


def positive(value: float, option: str) -> None:
    """Refuse a value that is not above zero."""
    if not value > 0:
        raise FlamesError(f"{option} {value} is not above 0", "write a number such as 0.001")

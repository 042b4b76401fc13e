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

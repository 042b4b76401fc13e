"""No federation: every client keeps its own weights and the server learns nothing."""

from __future__ import annotations

from flames.strategies.base import Download, Strategy


def local() -> Strategy:
    """Return the strategy that sends nothing and keeps nothing at the server."""
    return Strategy(
        "local",
        models=lambda _: {},
        download=lambda _client, _updates: Download(None, use="keep"),
        group_of=lambda _: None,
        personal=True,
    )

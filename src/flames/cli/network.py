"""What the commands of a network federation share."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flames.errors import FlamesError

if TYPE_CHECKING:
    from flames.federation.network.kits import Kit


def need_network() -> None:
    """Say how to install the engine where it is missing.

    Raises:
        FlamesError: NVIDIA FLARE is not installed.
    """
    if importlib.util.find_spec("nvflare") is None:
        raise FlamesError(
            "federations over a network need NVIDIA FLARE, which is not installed",
            "install it with: scripts/setup network",
        )


def prune(kit: Kit, *, days: int, dry_run: bool) -> None:
    """Delete what a stopped server or site needs no more, and say what, a line each."""
    from flames.federation.network import pruning

    found = pruning.prune(kit, days=days, dry_run=dry_run)
    for one in found:
        sys.stdout.write(f"{one.size:>15,}  {one.path.relative_to(kit.path)}\n")
    total = f"{sum(one.size for one in found):,} bytes"
    sys.stdout.write(f"{total} would be deleted\n" if dry_run else f"{total} deleted\n")


def speaker(json_: bool) -> Callable[[dict[str, Any]], None]:
    """Return what shows events: a calm line each, or JSON for machines."""

    def say(event: dict[str, Any]) -> None:
        if json_:
            line = json.dumps(event, ensure_ascii=False)
        else:
            line = f"{event['time'][11:19]}  {event['text']}"
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    return say

"""What the commands of a network federation share."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from typing import Any

from flames.errors import FlamesError


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

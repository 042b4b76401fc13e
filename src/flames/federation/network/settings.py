"""What a site was started with: its store and its policy, for the jobs that come."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flames.errors import FlamesError
from flames.federation.network.consortium import validated
from flames.federation.network.kits import Kit
from flames.federation.network.policy import Policy
from flames.files import save_json


@dataclass(frozen=True)
class SiteSettings:
    """A site's own choices; nothing of them comes from the server."""

    store: Path
    policy: Policy


def save_site_settings(kit: Kit, settings: SiteSettings) -> None:
    """Keep what a site is started with."""
    policy = settings.policy.model_dump(mode="json", by_alias=True)
    save_json(kit.settings, {"store": str(settings.store.resolve()), "policy": policy})


def read_site_settings(kit: Kit) -> SiteSettings:
    """Return what a site was started with.

    Raises:
        FlamesError: It was never started, or the file is damaged.
    """
    try:
        content: dict[str, Any] = json.loads(kit.settings.read_text(encoding="utf-8"))
        store, policy = Path(content["store"]), content["policy"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FlamesError(
            f"cannot read {kit.settings}: {error}", "start the site with 'flames site start'"
        ) from error
    return SiteSettings(store, validated(Policy, policy, str(kit.settings)))

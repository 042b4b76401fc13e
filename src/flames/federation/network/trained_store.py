"""What a site's store held when the site first trained in a run; it stays at the site.

A run goes on in one job after another, and the store may be prepared anew between two of them. The
server has a digest of the cases and what the site said of their sides. That they are seen
otherwise, or changed sides where their names do not leave, shows at the site alone.
"""

from __future__ import annotations

import json
from pathlib import Path

from flames.data.store import SiteStore, prepared_digest
from flames.errors import FlamesError
from flames.federation.earlier import KEEP_SPLIT, seen_before
from flames.federation.environment import change_since, sides_of
from flames.federation.network.facts import AS_IT_WAS
from flames.federation.network.guard import Refusal
from flames.files import save_json

STORE_FILE = "store.json"
"""In a site's folder of a run."""


def note_store(folder: Path, store: SiteStore) -> None:
    """Write down what ``store`` holds, unless the site trained in the run before.

    Args:
        folder: The site's own folder of the run.
        store: The site's, with the split of the run's fold.

    Raises:
        NotWritten: The disk is full; it can be tried again.
    """
    if not (folder / STORE_FILE).exists():
        content = {
            "store": store.splits.cases_digest,
            "prepared": prepared_digest(store.info.cases),
            "splits": sides_of(store),
        }
        save_json(folder / STORE_FILE, content)


def check_store(folder: Path, store: SiteStore) -> None:
    """Let the run go on with the store that the site first trained on, and with no other.

    Raises:
        Refusal: Its cases, how they are seen, or their sides changed. It names no case.
        FlamesError: What was written down cannot be read.
    """
    path = folder / STORE_FILE
    if not path.exists():
        return
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        change = change_since(
            "the site first trained in this run",
            store,
            digest=str(known["store"]),
            prepared=str(known["prepared"]),
            split={side: set(cases) for side, cases in known["splits"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FlamesError(
            f"{path} does not say what the store held when the site first trained in this run",
            "restore the file; delete it only if the store was not prepared anew since",
        ) from error
    if change:
        raise Refusal(f"its store {change}; {AS_IT_WAS}", AS_IT_WAS)


def check_new_to(folder: Path, store: SiteStore) -> None:
    """Refuse to begin with a run in which the site trained on what now tests or validates.

    Args:
        folder: The site's own folder of the earlier run; where it took no part there is none.
        store: The site's, with the split of the new run's fold.

    Raises:
        Refusal: A case is on a side on which that run's models must not have seen it.
        FlamesError: What was written down then cannot be read.
    """
    path = folder / STORE_FILE
    if not path.exists():
        return
    try:
        seen = seen_before(dict(json.loads(path.read_text(encoding="utf-8"))["splits"]), store)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FlamesError(
            f"{path} does not say what the store held when the site trained in {folder.name}",
            "restore the file; delete it only if the store was not split anew since",
        ) from error
    if seen:
        raise Refusal(f"{seen} in {folder.name}, which this run begins with", KEEP_SPLIT)

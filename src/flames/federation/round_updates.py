"""The updates that a server's rounds on disk hold, as strategies take them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from flames.array_files import LazyArrays
from flames.federation.exchange import Reply
from flames.federation.round_folders import RoundFolders
from flames.files import save_json
from flames.strategies import Update

Likes = Mapping[str, Mapping[str, float]]
Place = Literal["updates", "away"]


def known_updates(
    folders: RoundFolders, group_of: Callable[[str], str | None], likes: Likes
) -> dict[str, Update]:
    """Return the last finished round's updates, and the last ones of groups that were away."""
    fresh, away = folders.answers(), folders.away()
    present = {group_of(reply.modality) for reply in fresh.values()}
    kept = {name: reply for name, reply in away.items() if group_of(reply.modality) not in present}
    known = fresh | kept
    return {
        name: last_update(folders, reply, "updates" if name in fresh else "away", known, likes)
        for name, reply in known.items()
    }


def last_update(
    folders: RoundFolders,
    reply: Reply,
    place: Place,
    others: Mapping[str, Reply] | Mapping[str, Update],
    likes: Likes,
) -> Update:
    """Return an update of the last finished round; who joined later is weighed like anyone."""
    known = likes.get(reply.client, {})
    affinity = {
        name: known.get(name, 1.0)
        for name, other in others.items()
        if name != reply.client and other.modality == reply.modality
    }
    return _as_update(reply, folders.last / place, affinity)


def open_updates(folders: RoundFolders, received: Mapping[str, Reply]) -> dict[str, Update]:
    """Return the updates of the open round."""
    return {name: _as_update(r, folders.open / "updates", None) for name, r in received.items()}


def _as_update(reply: Reply, folder: Path, affinity: Mapping[str, float] | None) -> Update:
    arrays = LazyArrays(folder / f"{reply.client}.safetensors")
    return Update(reply.client, reply.modality, arrays, reply.num_examples, affinity)


def carry_away(folders: RoundFolders, received: Mapping[str, Reply]) -> None:
    """Keep in the open round the last update of clients that did not answer in it."""
    if not folders.finished:
        return
    away: dict[str, Reply] = {}
    for place, replies in (("away", folders.away()), ("updates", folders.answers())):
        for name in sorted(set(replies) - set(received)):
            source = folders.last / place / f"{name}.safetensors"
            (folders.open / "away").mkdir(exist_ok=True)
            shutil.copyfile(source, folders.open / "away" / source.name)
            away[name] = replies[name]
    if away:
        content = {name: asdict(reply) for name, reply in sorted(away.items())}
        save_json(folders.open / "away.json", content)

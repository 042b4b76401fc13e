"""The server's side of what travels: tasks as each client can read them, and what they began with.

What a client was sent lies beside the open round, as the client reads it, until the round closes::

    sent/CLIENT/about.json, arrays.safetensors, model.safetensors, best.safetensors
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from flames.array_files import LazyArrays, load_metadata, save_arrays
from flames.config import WireConfig
from flames.errors import FlamesError
from flames.federation.exchange import Reply, Task, begun_with
from flames.files import save_json
from flames.moments import check_moments
from flames.strategies import Download
from flames.strategies.movement import part_of
from flames.wire.coding import Coded, code, digest_of, restore

Arrays = Mapping[str, np.ndarray]
Sections = dict[str, Coded]
"""Coded arrays of a download by its field, one of `SECTIONS`."""
SECTIONS = ("arrays", "model", "best", "moments")
WEIGHTS = ("arrays", "model", "best")
"""Those of `SECTIONS` that a client can begin with."""
ABOUT = "about.json"
"""Written when all of a task is."""


@dataclass(frozen=True)
class Held:
    """A client's last update, as the server holds it."""

    server_round: int
    digest: str
    arrays: Arrays


class Parcels:
    """What the server writes down of tasks that it sent, so that it can read the answers."""

    def __init__(self, wire: WireConfig) -> None:
        """Keep how arrays travel."""
        self.wire = wire

    def dispatch(
        self, task: Task, place: Path, held: Held | None, holds: Mapping[str, str]
    ) -> tuple[Task, Sections]:
        """Return the task as its client will read it, and its arrays as they travel.

        Args:
            task: With exact arrays.
            place: Folder to note them in.
            held: The client's last update here.
            holds: Digests of the updates the client still has, by round.
        """
        shared = held is not None and holds.get(str(held.server_round)) == held.digest
        base = held.arrays if held is not None and shared else None
        download, coded = task.download, {}
        read: dict[str, Arrays] = {}
        for name in SECTIONS:
            if (arrays := getattr(download, name)) is not None:
                coded[name] = code(arrays, base, self.wire)
                read[name] = restore(coded[name], base)
                if name in WEIGHTS:
                    save_arrays(place / f"{name}.safetensors", read[name])
        number = held.server_round if held is not None and shared else 0
        about = {"use": download.use, "held": number, "own_head": download.own_head}
        about["wants_moments"] = download.wants_moments
        about["lost"] = held is not None and not holds
        save_json(place / ABOUT, about)
        download = replace(
            download,
            arrays=read.get("arrays"),
            model=read.get("model"),
            best=read.get("best"),
            moments=read.get("moments"),
        )
        return replace(task, download=download, held=number), coded

    def read(
        self, reply: Reply, coded: Coded, digest: str, place: Path, held: Held | None
    ) -> Arrays:
        """Return the arrays of an update.

        Raises:
            FlamesError: Its client was sent nothing in the open round, so that nobody could say how
                far it moved; or it is a difference from what the server does not have, or damaged.
        """
        if not (place / ABOUT).exists():
            raise FlamesError(
                f"{reply.client} was not asked in the open round",
                "let it ask for the round's task first",
            )
        base = None
        if coded.needs_base:
            known = held if held is not None and _about(place).get("held") else None
            base = self._begun(reply, place, known)
            if base is None or digest_of(common(base, coded.values)) != digest:
                raise FlamesError(
                    f"the update of {reply.client} is a difference from other weights than it was "
                    "sent",
                    "let every client run the same version",
                )
        try:
            return restore(coded, base)
        except (ValueError, TypeError) as error:
            raise FlamesError(f"the update of {reply.client} cannot be read: {error}") from error

    def begun(self, reply: Reply, place: Path, held: Held | None) -> Arrays | None:
        """Return what a client began its round with; None where nothing was noted.

        Raises:
            FlamesError: It says that it began with what it was not sent.
        """
        if not (place / ABOUT).exists():
            return None
        begun = self._begun(reply, place, held)
        if begun is None:
            raise FlamesError(
                f"{reply.client} says it began with {reply.chosen!r} (α {reply.alpha}), which it "
                "was not sent",
                "let every client run the same version",
            )
        return begun

    def mark(self, arrays: Arrays, server_round: int) -> dict[str, str]:
        """Return what is written beside a kept update, by which both sides know it again."""
        if self.wire.plain:
            return {}
        return {"round": str(server_round), "digest": digest_of(arrays)}

    def _begun(self, reply: Reply, place: Path, held: Held | None) -> Arrays | None:
        about = _about(place)
        use, own_head = about.get("use", "replace"), about.get("own_head", False)
        files = {name: place / f"{name}.safetensors" for name in WEIGHTS}
        found = {name: LazyArrays(path) for name, path in files.items() if path.exists()}
        arrays, model, best = (found.get(name) for name in WEIGHTS)
        download = Download(arrays, use, model=model, own_head=own_head, best=best)
        own = None if held is None else held.arrays
        return begun_with(download, own, reply.chosen, reply.alpha)


def read_held(path: Path) -> Held | None:
    """Return a kept update; None where there is none."""
    if not path.exists():
        return None
    mark = load_metadata(path)
    return Held(int(mark.get("round", 0)), mark.get("digest", ""), LazyArrays(path))


def had_lost_all(place: Path) -> bool:
    """Return whether a client was sent, in place of its group's model, what it lost itself."""
    return bool(_about(place).get("lost"))


def refuse_moments(client: str, moments: Arrays, place: Path, like: Arrays, longest: float) -> None:
    """Refuse an optimiser's moments that were not asked for, are missing, or cannot be.

    Args:
        client: Who sent them.
        moments: What came; mostly nothing.
        place: Folder of what its client was sent.
        like: The first weights of what travels.
        longest: L2 norm that gradients are clipped to.

    Raises:
        FlamesError: As above.
    """
    if bool(moments) != bool(_about(place).get("wants_moments")):
        found = "sent moments that nobody asked for" if moments else "sent no moments"
        raise FlamesError(
            f"{client} {found}", "let every client run the same version and configuration"
        )
    if moments:
        weights = {
            name: array
            for name, array in like.items()
            if part_of(name) == "weights" and np.issubdtype(array.dtype, np.floating)
        }
        check_moments(moments, weights, client, longest=longest)


def common(base: Arrays, names: Mapping[str, object]) -> dict[str, np.ndarray]:
    """Return those arrays of ``base`` that an update has too."""
    return {name: base[name] for name in names if name in base}


def _about(place: Path) -> dict[str, Any]:
    path = place / ABOUT
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}

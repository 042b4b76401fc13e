"""The client's side of what travels: an update is changed, coded and kept until it has arrived.

In the folder of a client's round, where weights do not travel as they are::

    sent.safetensors      the update as the server reads it
    parcel.safetensors    the same as it travels
    residual.safetensors  what it left out; the next update carries it along
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from flames.array_files import load_arrays, load_metadata, save_arrays
from flames.config import WireConfig
from flames.federation.exchange import LEAVING, Reply, transform
from flames.federation.parcels import common
from flames.strategies.rules import last_levels
from flames.wire.coding import Coded, code, digest_of, restore

Arrays = Mapping[str, np.ndarray]
SENT, PARCEL, RESIDUAL = "sent.safetensors", "parcel.safetensors", "residual.safetensors"
PARTS = ("values", "scales", "masks")
WHOLE_ROUNDS = 2
"""First rounds whose movements travel with all their entries: they tell who is alike, and what the
first left out would come with the second, see `flames.federation.likeness`."""


def wrap(
    arrays: Arrays,
    place: Path,
    *,
    server_round: int,
    reply: Reply,
    begun: Arrays | None,
    waiting: Path,
    own_head: bool,
    wire: WireConfig,
) -> None:
    """Write what leaves after a round, and what is left out of it.

    What the update before left out is added first, as in Karimireddy et al., Error Feedback Fixes
    SignSGD, ICML 2019, but for the share of it that the client's own weights in the round's
    beginning already brought along: α in a mixture, all in own weights and own last levels.

    Args:
        arrays: Everything that may leave.
        place: Folder of the round.
        server_round: From 1; up to `WHOLE_ROUNDS` nothing is left out.
        reply: Of the round.
        begun: What the client began with, as both sides know it.
        waiting: File of what the last update left out.
        own_head: As the download said.
        wire: How arrays travel.
    """
    if server_round <= WHOLE_ROUNDS:
        wire = wire.model_copy(update={"top_k": 1.0})
    whole = dict(arrays)
    if wire.feeds_back and waiting.exists():
        alpha = reply.alpha or 0.0
        brought = {"own": 1.0, "mixture": alpha}.get(str(reply.chosen), 0.0)
        mixed = own_head and reply.chosen == "mixture" and alpha > 0
        owned = last_levels(whole) if mixed else frozenset()
        for name, left in load_arrays(waiting).items():
            if name in whole and name not in owned and whole[name].shape == left.shape:
                whole[name] = whole[name] + np.float32(1 - brought) * left
    leaving = transform(LEAVING, whole, begun, wire)
    coded = code(leaving, begun, wire)
    sent = restore(coded, begun)
    if wire.feeds_back:
        left_out = {
            name: leaving[name] - sent[name]
            for name, letter in zip(sorted(leaving), coded.letters, strict=True)
            if letter not in "px" and np.isfinite(leaving[name]).all()
        }
        save_arrays(place / RESIDUAL, left_out)
    digest = digest_of(common(begun, coded.values)) if begun is not None else ""
    save_arrays(place / SENT, sent, {"digest": digest_of(sent)})
    parts = {
        f"{part}/{name}": array for part in PARTS for name, array in getattr(coded, part).items()
    }
    save_arrays(place / PARCEL, parts, {"letters": coded.letters, "base": digest})


def digests(folders: Mapping[int, Path]) -> dict[str, str]:
    """Return the digest of what left in each round, as far as it was coded."""
    found = {str(number): folder / SENT for number, folder in folders.items()}
    return {n: load_metadata(path)["digest"] for n, path in found.items() if path.exists()}


def unwrap(place: Path) -> tuple[Coded, str]:
    """Return the update of a round as it travels, and the digest of what it counts from."""
    about, arrays = load_metadata(place / PARCEL), load_arrays(place / PARCEL)
    parts: dict[str, dict[str, np.ndarray]] = {part: {} for part in PARTS}
    for key, array in arrays.items():
        part, name = key.split("/", 1)
        parts[part][name] = array
    return Coded(about["letters"], **parts), about["base"]

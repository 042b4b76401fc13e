"""What server and client say to each other in a round, and what the server checks of an update.

Nothing here needs torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flames.config import WireConfig
from flames.errors import FlamesError
from flames.strategies import Download
from flames.strategies.mixture import mixed
from flames.strategies.movement import part_of, shortened
from flames.strategies.rules import with_controls

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Task:
    """What the server asks of a client in one round."""

    server_round: int
    """From 1; one more than the last round asks only to receive the last weights."""
    steps: range
    """Numbers of the optimiser steps to do, out of `total_steps`."""
    total_steps: int
    download: Download
    held: int = 0
    """Round of the client's own update from which differences count, because both sides have it;
    0 where there is none."""

    def digest(self) -> str:
        """Return what tells this task from any other: what is to be done, and every number of the
        weights received.
        """
        digest = hashlib.sha256()
        download = self.download
        digest.update(
            f"{self.server_round} {self.steps} {self.total_steps} {download.use} {download.alpha} "
            f"{download.peers} {download.own_share} {download.own_head} "
            f"{download.wants_moments}".encode()
        )
        for sent in (download.arrays, download.model, download.best, download.moments):
            arrays = sent or {}
            for name in sorted(arrays):
                digest.update(name.encode())
                digest.update(np.asarray(arrays[name], order="C").tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Reply:
    """What leaves the hospital besides its weights: counts, scores and times, no image."""

    client: str
    modality: str
    num_examples: int
    validation: dict[str, float]
    """Mean validation Dice of what was tried, see `flames.strategies.mixture.Candidate`."""
    alpha: float | None
    chosen: str | None
    """What the client began the round with."""
    best: float | None
    """Validation Dice of the weights it would keep today; None where nothing is selected."""
    best_round: int
    """Of the weights it would keep today; 0 for those of an earlier run."""
    loss: float | None
    learning_rate: float
    seconds: dict[str, float]
    validation_cases: int
    curves: dict[str, Any] = field(default_factory=dict)
    """What each presence threshold makes of the validation Dice of what was tried, and of ``kept``
    weights: sums and counts over its cases. See `flames.metrics.presence.operating_curve`."""


class UpdateSetAside(FlamesError):
    """An update that is of this run and whole, but that the server does not believe."""


Transform = Callable[[Arrays, Arrays, WireConfig], dict[str, np.ndarray]]
"""An update and what its client began the round with, by name, become the update that goes on."""


def clip(arrays: Arrays, begun: Arrays, wire: WireConfig) -> dict[str, np.ndarray]:
    """Return an update whose weights moved no further than `WireConfig.clip`."""
    return shortened(arrays, begun, wire.clip) if wire.clip else dict(arrays)


def clip_again(arrays: Arrays, begun: Arrays, wire: WireConfig) -> dict[str, np.ndarray]:
    """Return an update clipped where its client did not; a hundredth is left to rounding."""
    return shortened(arrays, begun, 1.01 * wire.clip) if wire.clip else dict(arrays)


LEAVING: tuple[Transform, ...] = (clip,)
"""What a client does to an update before it is coded and leaves."""
ARRIVING: tuple[Transform, ...] = (clip_again,)
"""What the server does to an update after it is checked and before it is used."""


def transform(
    steps: Iterable[Transform], arrays: Arrays, begun: Arrays | None, wire: WireConfig
) -> dict[str, np.ndarray]:
    """Return an update after every step; unchanged where nobody knows what its client began
    with.
    """
    changed = dict(arrays)
    for step in steps if begun is not None else ():
        changed = step(changed, begun or {}, wire)
    return changed


def begun_with(
    download: Download, own: Arrays | None, chosen: str | None, alpha: float | None
) -> Arrays | None:
    """Return the weights a client began a round with, as both sides can know them.

    Args:
        download: What the client received.
        own: Its own last update, as the server holds it; None where there is none.
        chosen: ``model``, ``best``, ``mixture`` or ``own``, as its reply says.
        alpha: Own share of a mixture.

    Returns:
        The arrays, or None where the two sides share nothing to begin with.
    """
    if chosen == "own":
        return own
    if chosen == "mixture":
        if own is None or download.arrays is None or alpha is None or not 0 <= alpha <= 1:
            return None
        return mixed(own, download.arrays, alpha, own_head=download.own_head)
    if chosen == "best":
        return download.best
    if download.use == "replace" or own is None or download.model is None:
        return download.arrays
    return download.model


def whole(download: Download, own: Arrays, start: Arrays) -> Download:
    """Return a download for a client that lost its own weights: what it would begin with.

    Args:
        download: What it would be sent.
        own: Its last update.
        start: First weights of the run, for arrays that never left the client.

    >>> sent = Download({"w": np.array([4.0])}, use="mix", own_share=0.75)
    >>> found = whole(sent, {"w": np.array([0.0])}, {"w": np.array([9.0]), "p": np.array([9.0])})
    >>> found.use, {name: float(array[0]) for name, array in (found.arrays or {}).items()}
    ('replace', {'w': 1.0, 'p': 9.0})
    """
    arrays = own if download.use == "keep" or download.arrays is None else download.arrays
    if download.use == "mix" and download.arrays is not None:
        alpha = download.own_share if download.alpha is None else download.alpha
        arrays = mixed(own, download.arrays, alpha, own_head=download.own_head)
    return Download(
        {**start, **arrays},
        use="replace",
        moments=download.moments,
        wants_moments=download.wants_moments,
    )


def derive_seed(*parts: object) -> int:
    """Return a seed that depends on every part and on nothing else."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


def check_update(arrays: Arrays, like: Arrays, client: str, *, corrects: bool = False) -> None:
    """Refuse an update whose names, shapes or numbers cannot be of this run.

    Args:
        arrays: The update.
        like: Arrays that it must have, with their shapes and dtypes.
        client: Whose it is.
        corrects: Whether it also holds a control variate of each weight in ``like``; without, it
            may hold none.

    Raises:
        FlamesError: An array is missing, new, of another shape or dtype, or not finite.
    """
    if corrects:
        weights = {name: like[name] for name in like if part_of(name) == "weights"}
        like = with_controls(like, weights)
    for name in sorted(set(arrays) ^ set(like)):
        raise FlamesError(
            f"the update of {client} and the server's model differ in array {name!r}",
            "let every client run the same version and configuration",
        )
    for name, array in arrays.items():
        if array.shape != like[name].shape or array.dtype != like[name].dtype:
            raise FlamesError(
                f"array {name!r} of {client} is {array.dtype}{array.shape}, expected "
                f"{like[name].dtype}{like[name].shape}",
                "let every client run the same version and configuration",
            )
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise FlamesError(
                f"the update of {client} holds NaN or infinity in {name!r}",
                "lower training.learning-rate, or look for damaged images with 'flames data check'",
            )

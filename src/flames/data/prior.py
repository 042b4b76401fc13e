"""Where tumours lie in a site's images: a mask that does not look, for scores to be held against.

Where images are cropped around their tumours, or who makes them puts the lesion into the middle,
one mask for all images scores well without having seen any. What a model is worth is what it has
above that: Dice alone does not say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from flames.data.slices import fit
from flames.data.store import SiteStore


def tumour_share(label: np.ndarray, slice_axis: int | None, image_size: int) -> np.ndarray:
    """Return in what share of a case's slices each pixel of the square is tumour, ``(S, S)``.

    Args:
        label: Mask of a picture or a volume.
        slice_axis: The volume's axis of slices; None of a picture.
        image_size: Sides of the square that slices are fitted into.
    """
    flat = label if slice_axis is None else label.mean(axis=slice_axis, dtype=np.float32)
    return np.asarray(fit(flat[None], image_size, fill=0.0)[0], np.float64)


def spatial_prior(stores: Sequence[SiteStore], image_size: int) -> np.ndarray:
    """Return where tumours lie in the training cases of stores, ``(S, S)`` bool, see `best_mask`.

    Labels are read twice, so that no more than one is in memory.
    """

    def shares() -> Iterator[np.ndarray]:
        for store in stores:
            for case in store.split("train"):
                yield tumour_share(store.label(case.case_id), case.slice_axis, image_size)

    return best_mask(shares, image_size)


def best_mask(shares: Callable[[], Iterable[np.ndarray]], image_size: int) -> np.ndarray:
    """Return the mask of one place that suits cases best, ``(S, S)`` bool.

    Of the pixels that most often show tumour it takes as many as give the highest mean Dice on the
    cases that have one, a volume's slices all alike. No pixel where no case has a tumour.

    Args:
        shares: Gives every case's `tumour_share`; it is called twice.
        image_size: Sides of the square.
    """
    often = np.zeros(image_size**2)
    for share in shares():
        often += share.ravel()
    order = np.argsort(-often, kind="stable")
    taken = np.arange(1, order.size + 1)
    gain = np.zeros(order.size)
    for share in shares():
        if share.any():
            gain += 2 * np.cumsum(share.ravel()[order]) / (taken + share.sum())
    mask = np.zeros(order.size, bool)
    if often.any():
        mask[order[: int(np.argmax(gain)) + 1]] = True
    return mask.reshape(image_size, image_size)


def mask_dice(mask: np.ndarray, share: np.ndarray) -> float:
    """Return the Dice of a mask on a case with tumour, both in the square."""
    return float(2 * share[mask].sum() / (mask.sum() + share.sum()))

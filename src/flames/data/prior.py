"""Where tumours lie in a site's images: a mask that does not look, for scores to be held against.

Where images are cropped around their tumours, or who makes them puts the lesion into the middle,
one mask for all images scores well without having seen any. What a model is worth is what it has
above that: Dice alone does not say.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from flames.data.slices import fit
from flames.data.store import SiteStore, Split


def spatial_prior(stores: Sequence[SiteStore], image_size: int) -> np.ndarray:
    """Return where tumours lie in the training cases of stores, ``(S, S)`` bool, in the square.

    Of the pixels that most often show tumour it takes as many as give the highest mean Dice on
    these cases, a volume's slices all alike. No pixel where no case has a tumour.
    """
    often = np.zeros(image_size**2)
    for share in _case_maps(stores, image_size, ("train",)):
        often += share
    order = np.argsort(-often, kind="stable")
    taken = np.arange(1, order.size + 1)
    gain = np.zeros(order.size)
    for share in _case_maps(stores, image_size, ("train",)):
        gain += 2 * np.cumsum(share[order]) / (taken + share.sum())
    mask = np.zeros(order.size, bool)
    if often.any():
        mask[order[: int(np.argmax(gain)) + 1]] = True
    return mask.reshape(image_size, image_size)


def prior_dice(mask: np.ndarray, store: SiteStore, sides: Sequence[Split]) -> list[float]:
    """Return the Dice of the mask ``(S, S)`` on each case with tumour of these sides, as fitted."""
    return [
        float(2 * share[mask.ravel()].sum() / (mask.sum() + share.sum()))
        for share in _case_maps([store], len(mask), sides)
    ]


def _case_maps(
    stores: Sequence[SiteStore], image_size: int, sides: Sequence[Split]
) -> Iterator[np.ndarray]:
    """Yield, of each case with tumour, in what share of its slices each pixel is tumour."""
    for store in stores:
        for case in (case for side in sides for case in store.split(side)):
            label = np.asarray(store.label(case.case_id))
            axis = case.slice_axis
            slices = label[None] if axis is None else np.moveaxis(label, axis, 0)
            share = fit(slices, image_size, fill=0.0).mean(axis=0).ravel().astype(np.float64)
            if share.any():
                yield share

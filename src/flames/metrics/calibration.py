"""Does a probability of 0.7 mean tumour in 7 of 10 pixels?

A reliability table has one row a bin of probability, ``(BINS, 3)``: pixels, sum of their tumour
probabilities, and how many of them are tumour. Tables of cases add up.

C. Guo et al., On Calibration of Modern Neural Networks, ICML 2017, for the error over bins.
"""

from __future__ import annotations

import numpy as np

BINS = 20
RAISED = 1
"""Bins left out where most pixels are plainly background: probabilities below 0.05."""


def reliability(probabilities: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Return the reliability table of one case, ``(BINS, 3)`` float64.

    Bins are of equal width; a probability of 1 belongs to the last.

    >>> table = reliability(np.array([0.02, 0.31, 0.33, 1.0]), np.array([0, 0, 1, 1]))
    >>> [[round(float(v), 2) for v in row] for row in table if row[0]]
    [[1.0, 0.02, 0.0], [2.0, 0.64, 1.0], [1.0, 1.0, 1.0]]
    """
    probs = np.asarray(probabilities, np.float64).ravel()
    tumour = (np.asarray(label).ravel() > 0).astype(np.float64)
    index = np.minimum((probs * BINS).astype(np.int64), BINS - 1)
    columns = (None, probs, tumour)
    return np.stack([np.bincount(index, weights=c, minlength=BINS) for c in columns], axis=1)


def calibration_error(table: np.ndarray, *, first_bin: int = 0) -> float | None:
    """Return ``Σ n_b |mean p_b − tumour share_b| / Σ n_b`` over bins; None without a pixel.

    0 is perfect. Over all bins the many pixels that are plainly background make any model look
    good; ``first_bin=RAISED`` leaves out those that the model itself calls background.

    >>> table = np.zeros((BINS, 3))
    >>> table[0], table[10] = (90, 1.8, 0), (10, 5.2, 8)  # |1.8 − 0| and |5.2 − 8| over 100
    >>> round(calibration_error(table), 3), round(calibration_error(table, first_bin=RAISED), 3)
    (0.046, 0.28)
    """
    used = np.asarray(table, np.float64)[first_bin:]
    pixels = used[:, 0].sum()
    return float(np.abs(used[:, 1] - used[:, 2]).sum() / pixels) if pixels else None

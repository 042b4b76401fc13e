"""Writing that was burned into a picture: found as rows of small bright strokes on flat ground.

Names, dates and settings stand beside the fan of an ultrasound image, on black. A stroke counts
when it is as high as a letter, and the ground around it is flat; three in a row are writing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

LETTER = (4, 32)
"""Height of a letter in pixels."""
WIDEST = 48
"""A stroke may join a few letters."""
STROKE = 9
"""A stroke is narrower."""
FLAT = 0.06
"""Standard deviation of the ground around a letter, as a share of the picture's range."""
STEP = 0.25
"""How much brighter a stroke is than its ground, as a share of the picture's range."""
FEWEST = 3
"""Letters in a row."""
PASSES = 4


@dataclass(frozen=True)
class Box:
    """A rectangle of writing, rows and columns from upper left, ends excluded."""

    top: int
    left: int
    bottom: int
    right: int


def find_writing(picture: np.ndarray) -> list[Box]:
    """Return the lines of writing in a picture ``(H, W)``.

    >>> find_writing(np.zeros((40, 40)))
    []
    """
    values = _of_range(picture)
    return [] if values is None else _written(values, _strokes(values))


def shows_writing(picture: np.ndarray, *, upright: bool) -> bool:
    """Return whether there is writing in a picture ``(H, W)``, which may lie on its side."""
    values = _of_range(picture)
    if values is None:
        return False
    strokes = _strokes(values)
    return bool(_written(values, strokes) or (not upright and _written(values.T, strokes.T)))


def blank_writing(picture: np.ndarray) -> np.ndarray:
    """Return the picture with every line of writing painted over by the ground around it.

    Lines that touch each other show one by one, so it looks again until nothing is left.
    """
    for _ in range(PASSES):
        boxes = find_writing(picture)
        if not boxes:
            break
        painted = picture.copy()
        for box in boxes:
            top, left = max(0, box.top - 2), max(0, box.left - 2)
            frame = picture[top : box.bottom + 2, left : box.right + 2]
            edge = np.concatenate([frame[0], frame[-1], frame[:, 0], frame[:, -1]])
            painted[box.top : box.bottom, box.left : box.right] = np.median(edge)
        picture = painted
    return picture


def _of_range(picture: np.ndarray) -> np.ndarray | None:
    """Return a picture from 0 to 1, or None of one that has no range."""
    values = picture.astype(np.float32)
    low, high = float(values.min(initial=0)), float(values.max(initial=0))
    return None if high <= low else (values - low) / (high - low)


def _strokes(values: np.ndarray) -> np.ndarray:
    """Return what is brighter than all around and narrower than `STROKE`: the white top-hat."""
    ground = values
    for extreme, edge in ((np.minimum, np.inf), (np.maximum, -np.inf)):
        for _ in range(2):
            ground = _running(ground, extreme, edge).T
    return np.asarray(values - ground > STEP)


def _running(values: np.ndarray, extreme: np.ufunc, edge: float) -> np.ndarray:
    """Return the extreme of `STROKE` rows around each, by doubling: SciPy's takes six times longer.

    It is that of 2, of 4 and of 8 rows, then of these and the ninth.
    """
    one = np.pad(values, ((STROKE // 2, STROKE // 2), (0, 0)), constant_values=edge)
    two = extreme(one[:-1], one[1:])
    four = extreme(two[:-2], two[2:])
    eight = extreme(four[:-4], four[4:])
    return extreme(eight[:-1], one[STROKE - 1 :])


def _written(values: np.ndarray, strokes: np.ndarray) -> list[Box]:
    labels, _ = ndimage.label(strokes, np.ones((3, 3)))
    letters = [
        Box(rows.start, columns.start, rows.stop, columns.stop)
        for number, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1)
        if _letter(values, labels, number, rows, columns)
    ]
    return _lines(letters)


def _letter(
    values: np.ndarray, labels: np.ndarray, number: int, rows: slice, columns: slice
) -> bool:
    height, width = rows.stop - rows.start, columns.stop - columns.start
    if not LETTER[0] <= height <= LETTER[1] or not 1 <= width <= WIDEST:
        return False
    around = (
        slice(max(0, rows.start - 3), rows.stop + 3),
        slice(max(0, columns.start - 3), columns.stop + 3),
    )
    part, mine = values[around], labels[around]
    ink = mine == number
    if ink.mean() > 0.75 and width > 3:
        return False  # a filled block, not a stroke
    ground = part[~ndimage.binary_dilation(mine > 0, iterations=1)]
    return len(ground) > 0.15 * part.size and float(ground.std()) < FLAT


def _lines(letters: list[Box]) -> list[Box]:
    """Return rows of at least `FEWEST` letters that stand beside each other."""
    lines: list[list[Box]] = []
    for letter in sorted(letters, key=lambda b: b.left):
        for line in lines:
            if _follows(line[-1], letter):
                line.append(letter)
                break
        else:
            lines.append([letter])
    return [_around(line) for line in lines if len(line) >= FEWEST]


def _follows(last: Box, letter: Box) -> bool:
    high = max(last.bottom - last.top, letter.bottom - letter.top)
    shared = min(last.bottom, letter.bottom) - max(last.top, letter.top)
    return shared >= 0.5 * min(last.bottom - last.top, letter.bottom - letter.top) and (
        letter.left - last.right <= 2 * high
    )


def _around(line: list[Box]) -> Box:
    return Box(
        max(0, min(b.top for b in line) - 1),
        max(0, min(b.left for b in line) - 1),
        max(b.bottom for b in line) + 1,
        max(b.right for b in line) + 1,
    )

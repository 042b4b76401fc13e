"""Masks as pictures: whatever a program wrote the shape with, the shape is read, or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from source_folders import save, speckle, square

from flames.data.cases import read_case
from flames.data.pictures import read_mask, read_picture, read_values
from flames.data.scans import read_scan
from flames.data.sources import Source, SourceOptions
from flames.errors import FlamesError

SHAPE = square() > 0
"""100 pixels of 40 x 48."""


def labels(**areas: int) -> np.ndarray:
    """Return a label map: ``v20=60`` is 60 pixels of value 20."""
    flat = np.zeros(40 * 48, np.uint8)
    start = 100
    for name, count in areas.items():
        flat[start : start + count] = int(name[1:])
        start += count + 48
    return flat.reshape(40, 48)


def palette(index: np.ndarray, *colours: tuple[int, int, int]) -> Image.Image:
    picture = Image.fromarray(index.astype(np.uint8)).convert("L")
    picture = Image.frombytes("P", picture.size, picture.tobytes())
    picture.putpalette([value for colour in colours for value in colour])
    return picture


def rgba(inside: tuple[int, ...], outside: tuple[int, ...]) -> Image.Image:
    return Image.fromarray(np.where(SHAPE[..., None], inside, outside).astype(np.uint8))


BLACK, WHITE, DARK, GREEN = (0, 0, 0), (255, 255, 255), (20, 0, 0), (0, 255, 0)
TWO = labels(v1=75, v2=25)
READ: dict[str, tuple[Callable[[], Image.Image], int]] = {
    "a dark label": (lambda: Image.fromarray(labels(v20=75, v255=25)), 100),
    "a label of half the other": (lambda: Image.fromarray(labels(v1=16, v2=84)), 100),
    "16 bits": (lambda: Image.fromarray(labels(v1=16, v2=84).astype(np.uint16) * 3000), 100),
    "only ones": (lambda: Image.fromarray(labels(v1=100)), 100),
    "a dark colour": (lambda: Image.fromarray(np.array([BLACK, DARK, GREEN], np.uint8)[TWO]), 100),
    "palette of labels": (lambda: palette(TWO, BLACK, DARK, GREEN), 100),
    "palette all black": (lambda: palette(TWO, BLACK, BLACK, BLACK), 100),
    "palette sorted by use": (lambda: palette(1 - SHAPE, WHITE, BLACK), 100),
    "palette that begins with a colour": (lambda: palette(TWO, DARK, BLACK, GREEN), 1845),
    "palette with doubled black, unused": (lambda: palette(SHAPE, BLACK, GREEN, BLACK), 100),
    "black ink": (lambda: rgba((0, 0, 0, 255), (0, 0, 0, 0)), 100),
    "red everywhere, shown in part": (lambda: rgba((255, 0, 0, 255), (255, 0, 0, 0)), 100),
    "thin red everywhere, shown in part": (lambda: rgba((255, 0, 0, 90), (255, 0, 0, 0)), 100),
    "red on transparent black": (lambda: rgba((255, 0, 0, 255), (0, 0, 0, 0)), 100),
    "red on transparent white": (lambda: rgba((255, 0, 0, 255), (255, 255, 255, 0)), 100),
    "white on opaque black": (lambda: rgba((255, 255, 255, 255), (0, 0, 0, 255)), 100),
    "all of it transparent": (lambda: rgba((255, 255, 255, 0), (0, 0, 0, 0)), 100),
    "white everywhere, nothing of it shown": (
        lambda: rgba((255,) * 3 + (0,), (255,) * 3 + (0,)),
        0,
    ),
    "grey with transparency": (lambda: rgba((9, 9, 9, 255), (9, 9, 9, 0)).convert("LA"), 100),
}


@pytest.mark.parametrize("name", READ)
def test_the_shape_is_read(tmp_path: Path, name: str) -> None:
    picture, expected = READ[name]
    picture().save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png").sum() == expected


def test_a_transparent_palette_colour_is_outside(tmp_path: Path) -> None:
    palette(SHAPE, WHITE, GREEN).save(tmp_path / "m.png", transparency=0)
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), SHAPE)


def test_smoothed_outlines_are_cut_at_half_their_height(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:160, :160]
    far = np.hypot(rows - 80, columns - 80) - 30.2
    save(tmp_path / "m.png", (255 / (1 + np.exp(3 * far))).round().astype(np.uint8))
    np.testing.assert_array_equal(read_mask(tmp_path / "m.png"), far < 0)


REFUSED: dict[str, tuple[Callable[[], Image.Image], str]] = {
    "photograph": (lambda: Image.fromarray(speckle(3)), "of it is grey"),
    "palette without black": (lambda: palette(SHAPE, WHITE, GREEN), "does not tell"),
    "palette with black twice": (lambda: palette(TWO, BLACK, BLACK, GREEN), "does not tell"),
    "black ink on white": (lambda: rgba((0, 0, 0, 255), (255, 255, 255, 0)), "transparency"),
    "many greys and a label apart": (
        lambda: Image.fromarray(np.where(SHAPE, 230 + speckle(0) // 12, labels(v90=9))),
        "away from the bright ones",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_tell_the_shape_is_refused(tmp_path: Path, name: str) -> None:
    picture, said = REFUSED[name]
    picture().save(tmp_path / "m.png")
    with pytest.raises(FlamesError, match=said) as caught:
        read_mask(tmp_path / "m.png")
    assert "m.png" in caught.value.found
    assert caught.value.remedy


def test_values_below_zero_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.where(SHAPE, -1, 0).astype(np.float32)).save(tmp_path / "m.tif")
    with pytest.raises(FlamesError, match="below 0"):
        read_mask(tmp_path / "m.tif")


@pytest.mark.parametrize("any_colour", [False, True])
@pytest.mark.parametrize("top", [255, 64])
def test_jpg_is_cut_at_half_its_brightness(tmp_path: Path, any_colour: bool, top: int) -> None:
    shape = np.zeros((160, 160, 3), np.uint8)
    shape[40:90, 50:100] = top
    Image.fromarray(shape).save(tmp_path / "m.jpg", quality=75)
    assert (read_values(tmp_path / "m.jpg") > 0).sum() > 2600
    inside = read_mask(tmp_path / "m.jpg", any_colour=any_colour)
    np.testing.assert_array_equal(inside, shape[..., 0] > 0)


def test_a_jpg_of_labels_is_refused(tmp_path: Path) -> None:
    Image.fromarray(labels(v9=100)).save(tmp_path / "m.jpg")
    with pytest.raises(FlamesError, match="brightest value is"):
        read_mask(tmp_path / "m.jpg")


def test_labels_that_are_named_come_from_the_index_or_the_opacity(tmp_path: Path) -> None:
    palette(TWO, BLACK, GREEN, DARK).save(tmp_path / "m.png")
    np.testing.assert_array_equal(read_values(tmp_path / "m.png"), TWO)
    rgba((0, 0, 0, 255), (0, 0, 0, 0)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_values(tmp_path / "a.png"), SHAPE * 255)


FAR = np.hypot(*(np.mgrid[:40, :48] - 20)) - 10.2


def smooth(height: int) -> Image.Image:
    """Return a disc whose outline is smeared."""
    return Image.fromarray((height / (1 + np.exp(4 * FAR))).round().astype(np.uint8))


INK, NO_INK = (255, 255, 255, 255), (255, 255, 255, 0)
STACKS: dict[str, tuple[list[Image.Image], list[int]]] = {
    "palette of dark labels": (
        [palette(one, BLACK, (0, 0, 3), DARK) for one in (SHAPE * 2, SHAPE * 0, TWO)],
        [100, 0, 100],
    ),
    "palette that begins with white": (
        [palette(one, WHITE, BLACK) for one in (1 - SHAPE, 1 - SHAPE * 0)],
        [100, 0],
    ),
    "dark blue": (
        [Image.fromarray(np.array([BLACK, (0, 0, 2)], np.uint8)[SHAPE * 1])] * 2,
        [100] * 2,
    ),
    "shown in part": ([rgba(INK, NO_INK), rgba(NO_INK, NO_INK), rgba(INK, INK)], [100, 0, 1920]),
    "smeared outlines": ([smooth(255), *[smooth(0)] * 4], [int((FAR < 0).sum()), 0, 0, 0, 0]),
}


@pytest.mark.parametrize("name", STACKS)
def test_pages_are_masks_as_single_pictures_are(tmp_path: Path, name: str) -> None:
    (first, *rest), expected = STACKS[name]
    first.save(tmp_path / "m.tif", save_all=True, append_images=rest)
    save(tmp_path / "i.tif", speckle(0))
    Image.fromarray(speckle(0)).save(
        tmp_path / "i.tif", save_all=True, append_images=[Image.fromarray(speckle(1))] * len(rest)
    )
    source = Source("a", (tmp_path / "i.tif",), (tmp_path / "m.tif",), "picture")
    assert read_case(source, SourceOptions()).label.sum(axis=(1, 2)).tolist() == expected


def test_labels_of_pages_come_from_the_index_and_photographs_are_refused(tmp_path: Path) -> None:
    pages = [palette(one, BLACK, GREEN, (0, 0, 3)) for one in (TWO, TWO * 0)]
    pages[0].save(tmp_path / "m.tif", save_all=True, append_images=pages[1:])
    np.testing.assert_array_equal(read_values(tmp_path / "m.tif", frames=True), [TWO, TWO * 0])
    # Twenty tumours, numbered on from page to page.
    many = [Image.fromarray(np.where(square() > 0, n, 0).astype(np.uint8)) for n in range(1, 21)]
    many[0].save(tmp_path / "n.tif", save_all=True, append_images=many[1:])
    assert (read_mask(tmp_path / "n.tif", frames=True) == (square() > 0)).all()
    shots = [Image.fromarray(speckle(seed)) for seed in (1, 2)]
    shots[0].save(tmp_path / "p.tif", save_all=True, append_images=shots[1:])
    with pytest.raises(FlamesError, match="of it is grey"):
        read_mask(tmp_path / "p.tif", frames=True)
    odd = [Image.fromarray(square()), Image.fromarray(square((30, 48)))]
    odd[0].save(tmp_path / "o.tif", save_all=True, append_images=odd[1:])
    with pytest.raises(FlamesError, match="several sizes"):
        read_mask(tmp_path / "o.tif", frames=True)


TURNED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.T,
    6: lambda a: np.rot90(a),
    7: lambda a: a[::-1, ::-1].T,
    8: lambda a: np.rot90(a, -1),
}
"""How an upright picture lies in a file, by the orientation that the file says."""


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_turned_pictures_are_read_as_viewers_show_them(
    tmp_path: Path, orientation: int, suffix: str
) -> None:
    upright = np.kron(np.arange(12, dtype=np.uint8).reshape(3, 4) * 20, np.ones((8, 8), np.uint8))
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / f"a{suffix}"
    Image.fromarray(np.ascontiguousarray(TURNED[orientation](upright))).save(path, exif=exif)
    np.testing.assert_array_equal(read_picture(path), upright)
    scan = read_scan(path)
    assert scan.grid.shape == (24, 32)
    np.testing.assert_array_equal(scan.image, upright)


def test_damaged_exif_turns_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(speckle(1)).save(path, exif=b"Exif\x00\x00nothing that is TIFF")
    np.testing.assert_array_equal(read_picture(path), speckle(1))


@pytest.mark.parametrize("mode", ["L", "P", "1", "RGBA"])
def test_a_turned_image_and_its_upright_mask_lie_together(tmp_path: Path, mode: str) -> None:
    exif = Image.Exif()
    exif[274] = 6
    turned = Image.fromarray(np.rot90(square()))
    turned.save(tmp_path / "i.png", exif=exif)
    turned.convert(mode).save(tmp_path / "turned.png", exif=exif)
    save(tmp_path / "upright.png", square())
    for name in ("turned.png", "upright.png"):
        source = Source("a", (tmp_path / "i.png",), (tmp_path / name,), "picture")
        case = read_case(source, SourceOptions())
        np.testing.assert_array_equal(case.label, case.image > 0)

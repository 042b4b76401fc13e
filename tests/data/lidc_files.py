"""A made LIDC-IDRI: CT series with the XML of four readers, and a chest radiograph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from dicom_files import STORAGE, dataset, pixels, series, uid, volume, write

Points = list[tuple[int, int]]
Roi = tuple[int, Points, bool]
"""Slice, outline as (column, row), and whether it is included."""
XML = '<?xml version="1.0" encoding="UTF-8"?>\n'


def ring(left: int, top: int, right: int, bottom: int) -> Points:
    """Return the pixels of a rectangle's frame, one after the other, the first again at the end."""
    across = [(x, top) for x in range(left, right)] + [(right, y) for y in range(top, bottom)]
    back = [(x, bottom) for x in range(right, left, -1)]
    up = [(left, y) for y in range(bottom, top, -1)]
    return [*across, *back, *up, (left, top)]


def roi(images: str, at: int, points: Points, inclusion: bool) -> str:
    edges = "".join(
        f"<edgeMap><xCoord>{x}</xCoord><yCoord>{y}</yCoord></edgeMap>\n" for x, y in points
    )
    return (
        f"<roi><imageZposition>{100 + 3 * at}.0</imageZposition>"
        f"<imageSOP_UID>{uid(*images.split('/'), at)}</imageSOP_UID>"
        f"<inclusion>{str(inclusion).upper()}</inclusion>\n{edges}</roi>\n"
    )


def session(images: str, nodules: list[list[Roi]], small: Points = []) -> str:  # noqa: B006
    large = "".join(
        f"<unblindedReadNodule><noduleID>{number}</noduleID>"
        "<characteristics><subtlety>5</subtlety></characteristics>"
        + "".join(roi(images, *one) for one in rois)
        + "</unblindedReadNodule>\n"
        for number, rois in enumerate(nodules)
    )
    points = "".join(
        f"<unblindedReadNodule><noduleID>s</noduleID>{roi(images, 1, [point], True)}"
        "</unblindedReadNodule>\n"
        for point in small
    )
    other = (
        "<nonNodule><nonNoduleID>9</nonNoduleID><imageZposition>100.0</imageZposition>"
        f"<imageSOP_UID>{uid('elsewhere')}</imageSOP_UID>"
        "<locus><xCoord>1</xCoord><yCoord>1</yCoord></locus></nonNodule>\n"
    )
    return (
        "<readingSession><annotationVersion>3.12</annotationVersion>"
        "<servicingRadiologistID>anonymous</servicingRadiologistID>\n"
        f"{large}{points}{other}</readingSession>\n"
    )


def message(series_uid: str, sessions: list[str]) -> str:
    return (
        f'{XML}<LidcReadMessage uid="1.3.6" xmlns="http://www.nih.gov" '
        'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">\n'
        "<ResponseHeader><Version>1.8.1</Version><TaskDescription>Second unblinded read"
        f"</TaskDescription><SeriesInstanceUid>{series_uid}</SeriesInstanceUid>"
        "<DateService>2005-11-03</DateService></ResponseHeader>\n"
        f"{''.join(sessions)}</LidcReadMessage>\n"
    )


NODULE: list[list[Roi]] = [[(2, ring(2, 3, 6, 8), True), (3, ring(3, 4, 5, 6), True)]]
"""Encloses 3 x 4 pixels on slice 2 and one on slice 3."""


def read_by(images: str) -> list[str]:
    """Return four sessions: two readers agree, one drew smaller, one saw only points."""
    smaller: list[list[Roi]] = [[(2, ring(2, 3, 5, 8), True)]]
    return [
        session(images, NODULE),
        session(images, NODULE, small=[(8, 8)]),
        session(images, smaller),
        session(images, [], small=[(8, 8), (9, 2)]),
    ]


def patient(
    root: Path, name: str, sessions: list[str] | None = None, which: str | None = None
) -> Path:
    """Write a patient with one CT and its XML; return the folder of the series."""
    folder = root / name / uid(name, "study") / uid(name, "CT", "series", which)
    array = volume() + np.random.default_rng(len(name)).integers(0, 9, (6, 10, 12), dtype=np.int16)
    series(folder, array, patient=name, series=which)
    images = f"{name}/CT/{which}"
    text = message(uid(name, "CT", "series", which), sessions or read_by(images))
    (folder / "068.xml").write_text(text, encoding="utf-8")
    return folder


def radiograph(root: Path, name: str, tag: str = "IdriReadMessage") -> Path:
    """Write a chest radiograph (DX) with an XML of its own kind."""
    folder = root / name / uid(name, "chest") / uid(name, "DX")
    data = dataset("CT", name, SeriesInstanceUID=uid(name, "DX"), SOPInstanceUID=uid(name, "dx"))
    data.SOPClassUID, data.Modality = "1.2.840.10008.5.1.4.1.1.1.1", "DX"
    assert data.SOPClassUID not in STORAGE.values()
    write(folder / "000000.dcm", pixels(data, volume()[0]))
    ids = "SeriesInstanceUid" if tag == "LidcReadMessage" else "CXRSeriesInstanceUid"
    (folder / "069.xml").write_text(
        f'{XML}<{tag} xmlns="http://www.nih.gov/idri"><ResponseHeader>'
        f"<{ids}>{uid(name, 'DX')}</{ids}></ResponseHeader>"
        f"<readingSession/><CXRreadingSession/></{tag}>",
        encoding="utf-8",
    )
    return folder


def archive(root: Path, count: int = 3) -> Path:
    """Write patients as the collection names them, the first with a radiograph too."""
    for number in range(1, count + 1):
        patient(root, f"LIDC-IDRI-{number:04d}")
    radiograph(root, "LIDC-IDRI-0001")
    return root

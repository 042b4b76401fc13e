"""``flames predict``: a trained model looks at images that nobody has labelled."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from flames.errors import FlamesError


def predict(
    model: Annotated[Path, typer.Argument(help="A run's or an export's folder, or a model file.")],
    inputs: Annotated[list[Path], typer.Argument(help="Image files, folders or ZIPs of them.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder for what is found.")],
    formats: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="nifti, png, seg, rtstruct; several with commas. Default: as the source.",
        ),
    ] = None,
    site: Annotated[
        str | None, typer.Option(help="Of a run, take this site's personalised model.")
    ] = None,
    modality: Annotated[
        str | None, typer.Option(help="US, MR or CT: what the images are; of a run, its model.")
    ] = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Write tumour probabilities too.")
    ] = False,
    tta: Annotated[
        bool,
        typer.Option("--tta/--no-tta", help="Average with the mirror image, or look only once."),
    ] = True,
    channel: Annotated[
        int | None, typer.Option(help="Channel to take of images with several, counted from 0.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also look at images of another modality.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the last line only.")] = False,
) -> None:
    """Find tumours in images that nobody has labelled.

    Writes masks in the images' own geometry, and tables of images and lesions.

    Ends with 2 when an image could not be read; the others are done all the same.
    """
    from flames.config import MODALITIES
    from flames.data.archives import unpacked
    from flames.data.inputs import find_inputs
    from flames.errors import FlamesError, nearest
    from flames.inference.choose import choose_model
    from flames.inference.load import load_any
    from flames.inference.predict_files import PredictOptions, predict_files
    from flames.models.precision import choose_precision

    if modality is not None and modality not in MODALITIES:
        raise FlamesError(f"there is no modality {modality!r}", nearest(modality, MODALITIES))
    precision = choose_precision()
    trained = load_any(choose_model(model, site=site, modality=modality), precision)
    options = PredictOptions(
        formats=tuple(part.strip() for part in formats.split(",")) if formats else (),
        probabilities=probabilities,
        flip=tta,
        force=force,
        modality=modality,
        channel=channel,
    )
    if not trained.trained_on and not quiet:
        typer.echo(f"Note: {trained.name} does not say what it was trained on.")
    failed: list[FlamesError] = []
    done = with_tumour = 0
    with ExitStack() as rooms:
        places = {
            rooms.enter_context(unpacked(path, out.absolute().parent)): path for path in inputs
        }
        zips = {place: path for place, path in places.items() if place != path}
        found = find_inputs(places, unpacked=zips)
        for looked in predict_files(trained, found, out, precision=precision, options=options):
            if looked.error is not None:
                failed.append(looked.error)
            if "tumour_found" in looked.row:
                done += 1
                with_tumour += looked.row["tumour_found"]
            if not quiet:
                typer.echo(_line(looked.row))
    typer.echo(f"{trained.name}: tumour in {with_tumour} of {done} images; {out}/predictions.csv")
    if failed:
        more = f" (and {len(failed) - 1} more, in predictions.csv)" if len(failed) > 1 else ""
        raise FlamesError(f"{failed[0].found}{more}", failed[0].remedy)


def _line(row: dict[str, Any]) -> str:
    from flames.reports.numbers import size

    if "tumour_found" not in row:
        return f"{row['name']}: not done: {row['error']}"
    what = f"score {row['presence_score']:.2f}"
    if row["lesions"]:
        word = "lesion" if row["lesions"] == 1 else "lesions"
        what += f", {row['lesions']} {word}, {size(row['size'])} {row['size_unit']}"
    else:
        what += ", no tumour found"
    far = f"; unlike the training images: {row['departures']}" if row["departures"] else ""
    lost = f"; slices may be missing, or were never made: {row['doubt']}" if row["doubt"] else ""
    not_all = f"; not all written: {row['error']}" if row["error"] else ""
    return f"{row['name']}: {what}{far}{lost}{not_all}"

"""``flames export``: a trained model for other programs, checked, with a card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    model: Annotated[Path, typer.Argument(help="A run's folder, or one of its model files.")],
    target: Annotated[str, typer.Option("--to", help="onnx, bundle (MONAI) or torchscript.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder for the export.")],
    site: Annotated[
        str | None, typer.Option(help="Of a run, take this site's personalised model.")
    ] = None,
    modality: Annotated[
        str | None,
        typer.Option(help="Of a run, which server model; of one for all, what a bundle is for."),
    ] = None,
    images: Annotated[
        list[Path] | None,
        typer.Option(
            "--images", help="Images, or a store, to check the export on; may be repeated."
        ),
    ] = None,
    licence: Annotated[str, typer.Option(help="Of the weights, for the model card.")] = "",
) -> None:
    """Write a model for other programs: ONNX, MONAI, TorchScript.

    The export is compared with the model before it is kept, and gets a model card.
    """
    import torch

    from flames.config import MODALITIES
    from flames.errors import FlamesError, nearest
    from flames.inference.choose import choose_model
    from flames.inference.export.check import find_images
    from flames.inference.export.targets import export_model
    from flames.inference.score import load_model
    from flames.models.precision import Precision

    if modality is not None and modality not in MODALITIES:
        raise FlamesError(f"there is no modality {modality!r}", nearest(modality, MODALITIES))
    path = choose_model(model, site=site, modality=modality)
    precision = Precision(torch.device("cpu"), torch.float32)
    loaded = load_model(path, precision)
    checked = export_model(
        loaded,
        path,
        target,
        out,
        images=find_images(images or ()),
        licence=licence,
        modality=modality,
    )
    typer.echo(
        f"{out}: checked on {checked.compared}; probabilities differ by at most "
        f"{checked.largest_difference:.2g}, {checked.other_decisions} {checked.points} decided "
        "otherwise"
    )

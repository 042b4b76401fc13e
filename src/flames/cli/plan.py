"""``flames plan``: how a modality's volumes are trained on in three dimensions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flames.errors import FlamesError


def plan(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE...",
            help="Prepared stores, or files of 'flames data fingerprint'; every modality together.",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="New TOML file; default: print it.")
    ] = None,
) -> None:
    """Plan three-dimensional training from stores or fingerprints.

    A plan is a modality's spacing, patch and network.
    """
    from flames.data.fingerprint import fingerprint
    from flames.data.store import SiteStore
    from flames.federation.planning import make_plans, plans_toml, read_fingerprint

    found = [
        fingerprint(SiteStore.open(path)) if path.is_dir() else read_fingerprint(path)
        for path in sources
    ]
    text = plans_toml(make_plans(found))
    if out is None:
        typer.echo(text, nl=False)
        return
    write_new(out, text)
    typer.echo(f"plan: {out}; add its tables to the federation's file, each table once")


def write_new(path: Path, text: str) -> None:
    """Write a file that is not there yet.

    Raises:
        FlamesError: It is there, or cannot be written.
    """
    from flames.files import save_text

    if path.exists():
        raise FlamesError(f"{path} is there already", "name a new file")
    try:
        save_text(path, text)
    except OSError as error:
        raise FlamesError(f"cannot write {path}: {error.strerror}", "name another file") from error

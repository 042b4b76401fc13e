"""``flames data make``: six made-up hospitals, to try everything without anybody's images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def make(
    dest: Annotated[Path, typer.Argument(help="Folder for the six site stores.")],
    seed: Annotated[int, typer.Option(min=0, help="Decides every pixel.")] = 0,
    cases: Annotated[
        int | None,
        typer.Option(min=12, help="Cases of each site in all; else 24 train, 10 val, 24 test."),
    ] = None,
) -> None:
    """Draw six made-up hospitals, to try FLAMES with.

    Two each have ultrasound, MR and CT. A federation.toml is written beside them.
    """
    from flames.data.store import SPLITS, SiteStore
    from flames.data.synthetic import make_federation

    def report(path: Path) -> None:
        store = SiteStore.open(path)
        sides = ", ".join(f"{len(store.split(side))} {side}" for side in SPLITS)
        typer.echo(f"{store.site:<10} {store.modality} {store.organ:<7} {sides}  {path}")

    make_federation(dest, seed=seed, cases=cases, made=report)

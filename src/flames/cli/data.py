"""``flames data``: images become a site store, and a store is looked over."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from flames.data.check import Check
    from flames.data.prepare import Added, StoreRequest
    from flames.data.store import SiteStore

data = typer.Typer(
    name="data", help="Prepare images, and check them.", rich_markup_mode=None, no_args_is_help=True
)


@data.command()
def add(
    source: Annotated[
        Path, typer.Argument(help="Folder with the images, or a ZIP of it; only read.")
    ],
    dest: Annotated[Path, typer.Argument(help="Folder of the site store to make.")],
    source_format: Annotated[
        str,
        typer.Option(
            "--format",
            help="Layout: dicom, msd, pairs, …; or a dataset's name (flames data datasets).",
        ),
    ],
    site: Annotated[str, typer.Option(help="Name of the site, such as the hospital.")],
    modality: Annotated[str, typer.Option(help="US, MR or CT.")],
    organ: Annotated[str, typer.Option(help="What is imaged, such as breast.")],
    where: Annotated[
        list[str] | None,
        typer.Option(help="Only cases with hospital=, category= or patient=, as hospital=CS,DU."),
    ] = None,
    channel: Annotated[
        int | None, typer.Option(help="Channel to take of images with several, counted from 0.")
    ] = None,
    tumour_labels: Annotated[
        str | None, typer.Option(help="Label values that are tumour, as 1,2,3; else all but 0.")
    ] = None,
    other_labels: Annotated[
        str | None, typer.Option(help="Label values that are known and not tumour.")
    ] = None,
    images: Annotated[str | None, typer.Option(help="Glob of the images, for pairs.")] = None,
    masks: Annotated[str | None, typer.Option(help="Glob of the masks, for pairs.")] = None,
    patient: Annotated[
        str | None,
        typer.Option(
            help="For pairs: what names the patient in an image's path, as 'sub-([0-9]+)'.",
            metavar="REGEX",
        ),
    ] = None,
    ct_window: Annotated[str, typer.Option(help="Hounsfield units shown, low,high.")] = "-200,300",
    unknown_spacing: Annotated[
        bool, typer.Option("--unknown-spacing", help="The headers' spacing is a placeholder.")
    ] = False,
    roi: Annotated[
        str | None,
        typer.Option(help="For dicom: names of tumour structures, as 'GTV.*'.", metavar="REGEX"),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(help="For dicom: file of the site's key for hashes; default DEST.key."),
    ] = None,
    blank_text: Annotated[
        bool, typer.Option("--blank-text", help="Paint over writing burned into pictures.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Decides the split.")] = 0,
    keep_split: Annotated[
        Path | None,
        typer.Option(help="An earlier store of the site: its cases stay on their sides."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Cases prepared side by side.")] = 2,
) -> None:
    """Make a site store of a folder of images with tumour masks.

    A stopped preparation goes on where it was: give the same command again.
    """
    from flames.data.prepare import StoreRequest
    from flames.data.sources import SourceOptions, parse_where

    options = SourceOptions(
        channel=channel,
        tumour_labels=_integers(tumour_labels, "--tumour-labels"),
        other_labels=_integers(other_labels, "--other-labels"),
        images=images,
        masks=masks,
        unknown_spacing=unknown_spacing,
        patient=_regex(patient, "--patient 'sub-([0-9]+)'"),
        roi=_regex(roi, "--roi 'GTV.*'"),
        blank_text=blank_text,
        key=_key(key, dest) if source_format in ("dicom", "lidc", "sts") else b"",
    )
    request = StoreRequest(
        source_format=source_format,
        site=site,
        modality=modality,  # type: ignore[arg-type]
        organ=organ,
        where=parse_where(where or []),
        options=options,
        ct_window=_window(ct_window),
        seed=seed,
        keep_split=keep_split,
    )
    _print_added(_with_progress(source, dest, request, workers))


def _with_progress(source: Path, dest: Path, request: StoreRequest, workers: int) -> Added:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from flames.data.prepare import add_store

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True, markup=False)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(f"Preparing {request.site}", total=None)
        return add_store(
            source,
            dest,
            request,
            workers=workers,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )


@data.command()
def datasets(
    name: Annotated[str | None, typer.Argument(help="One dataset, for its page.")] = None,
) -> None:
    """List the public datasets known by name, or show one.

    The page of one has its licence, its citation, where to get it, and the command.
    """
    from flames.data.datasets import DATASETS
    from flames.errors import FlamesError, nearest

    if name is None:
        for key, one in DATASETS.items():
            kinds = "/".join(one.modalities)
            typer.echo(f"{key:<22}{kinds:<6} {one.organ:<9} {one.title}")
        typer.echo("\nOne of them in full: flames data datasets NAME")
        return
    if name not in DATASETS:
        raise FlamesError(f"there is no dataset {name!r}", nearest(name, DATASETS))
    one = DATASETS[name]
    channel = "" if one.options.channel is None else f"\nchannel     {one.options.channel}"
    spacing = ""
    if one.options.unknown_spacing:
        spacing = "\nspacing     not recorded by its source: 1 px"
    elif one.converted is not None and one.converted.unknown_spacing:
        spacing = "\nspacing     in mm; where it is converted not recorded: 1 px"
    typer.echo(
        f"{one.title}\n\n"
        f"modality    {' or '.join(one.modalities)}\n"
        f"organ       {one.organ}\n"
        f"tumour      {one.labels}{channel}{spacing}\n"
        f"licence     {one.licence}\n"
        f"cite        {one.citation}\n"
        f"get it      {one.where}\n"
        f"SOURCE      {one.folder}\n\n"
        f"flames data add SOURCE DEST --format {name} --site NAME "
        f"--modality {one.modalities[0]} --organ {one.organ}"
    )


def _key(path: Path | None, dest: Path) -> bytes:
    from flames.data.dicom.keys import load_key

    dest = dest.resolve()
    return load_key(path or dest.with_name(f"{dest.name}.key"))


def _regex(text: str | None, example: str) -> str | None:
    import re

    from flames.errors import FlamesError

    try:
        re.compile(text or "")
    except re.error as error:
        raise FlamesError(
            f"{example.split()[0]} {text!r} is not a regular expression: {error}",
            f"write it as {example}",
        ) from error
    return text


def _integers(text: str | None, option: str) -> tuple[int, ...]:
    from flames.errors import FlamesError

    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError as error:
        raise FlamesError(
            f"{option} {text!r} is not whole numbers", f"write it as {option} 1,2,3"
        ) from error


def _window(text: str) -> tuple[float, float]:
    from flames.errors import FlamesError

    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise FlamesError(
            f"--ct-window {text!r} is not two numbers", "write it as --ct-window -200,300"
        ) from error
    return low, high


def _print_added(added: Added) -> None:
    from rich.console import Console

    out = Console(highlight=False, markup=False, soft_wrap=True)
    store = added.store
    if added.prepared == 0:
        out.print(f"Nothing new: {store.path} already holds {_counted(added.kept, 'case')}.")
    else:
        again = f", {added.kept} were ready" if added.kept else ""
        out.print(f"Prepared {_counted(added.prepared, 'case')}{again}: {store.path}")
    for note in added.notes:
        out.print(f"Note: {note}.")
    out.print(_split_line(store))


def _split_line(store: SiteStore) -> str:
    from flames.data.store import SPLITS

    parts = []
    for name in SPLITS:
        cases = store.split(name)
        groups = len({case.group for case in cases})
        tumours = sum(case.has_tumour for case in cases)
        parts.append(f"{name} {len(cases)} ({_counted(groups, 'group')}, {tumours} with tumour)")
    return f"{store.site}, {store.modality} {store.organ}: " + ", ".join(parts)


def _counted(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


@data.command()
def check(
    store: Annotated[Path, typer.Argument(help="A site store.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for check.json and pictures; these show patients' images."),
    ] = None,
) -> None:
    """Look over a site store for errors and doubtful masks.

    Ends with 1 when the store must not be used as it is.
    """
    from flames.data.check import check_store
    from flames.data.store import SiteStore

    opened = SiteStore.open(store)
    found = check_store(opened)
    _print_check(found)
    if out is not None:
        from flames.data.check_pictures import draw_check

        for path in draw_check(found, opened, out):
            typer.echo(str(path))
    if not found.sound:
        raise typer.Exit(1)


@data.command(name="fingerprint")
def fingerprint_(
    store: Annotated[Path, typer.Argument(help="A site store.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="New file; default: print it.")
    ] = None,
) -> None:
    """Sum up a store's training images in counts and percentiles.

    It holds nothing of a single case. 'flames plan' takes it in place of the store.
    """
    from flames.cli.plan import write_new
    from flames.data.fingerprint import fingerprint
    from flames.data.store import SiteStore

    text = fingerprint(SiteStore.open(store)).model_dump_json(indent=2) + "\n"
    if out is None:
        typer.echo(text, nl=False)
        return
    write_new(out, text)
    typer.echo(f"fingerprint: {out}")


def _print_check(found: Check) -> None:
    from statistics import median

    from rich import box
    from rich.console import Console
    from rich.table import Table

    from flames.data.store import SPLITS
    from flames.reports.numbers import size

    out = Console(highlight=False, markup=False, soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, title=f"{found.site}: {found.modality} {found.organ}")
    table.add_column("")
    for name in SPLITS:
        table.add_column(name, justify="right")
    sides = [found.side(name) for name in SPLITS]
    sizes = [[c.tumour_size for c in side if c.tumour_share > 0] for side in sides]
    rows: dict[str, list[str]] = {
        "cases": [str(len(side)) for side in sides],
        "with tumour": [str(len(side)) for side in sizes],
        f"tumour size, median ({found.size_unit})": [
            size(median(side)) if side else "-" for side in sizes
        ],
        "with near-duplicates": [str(sum(c.near_duplicates > 0 for c in side)) for side in sides],
        "smallest shape": [_shape(min((c.shape for c in side), default=())) for side in sides],
        "largest shape": [_shape(max((c.shape for c in side), default=())) for side in sides],
    }
    for label, values in rows.items():
        table.add_row(label, *values)
    out.print(table)
    for finding in found.findings:
        names = ", ".join(finding.cases[:5])
        more = f" and {len(finding.cases) - 5} more" if len(finding.cases) > 5 else ""
        word = "Problem" if finding.problem else "Look"
        if finding.cases:
            many = "1 case" if len(finding.cases) == 1 else f"{len(finding.cases)} cases"
            out.print(f"{word}: {many}: {finding.text}: {names}{more}")
        else:
            out.print(f"{word}: {finding.text}")
    if not found.findings:
        out.print("Nothing looks wrong.")


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in shape) or "-"

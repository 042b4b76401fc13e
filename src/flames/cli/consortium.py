"""``flames consortium``: kits for a server, its sites and its people."""

from __future__ import annotations

from pathlib import Path

import typer

consortium = typer.Typer(
    name="consortium",
    help="Make and look after a consortium: its authority, its kits, who belongs to it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@consortium.command("init")
def init(
    file: Path = typer.Argument(..., help="The consortium's TOML file."),
    out: Path = typer.Option(Path("consortium"), "--out", "-o", help="New folder for the kits."),
) -> None:
    """Make the authority and a kit for the server, every site and every person."""
    from flames.cli.network import need_network

    need_network()
    from flames.federation.network.membership import found_consortium

    record = found_consortium(file, out)
    typer.echo(f"{record.name}: kits are in {out}")
    typer.echo(f"  server: {out / 'server'}")
    for name, site in record.sites.items():
        typer.echo(f"  {name} ({site.modality} of {site.organ}): {out / 'sites' / name}")
    for name, role in record.people.items():
        typer.echo(f"  {name} ({role}): {out / 'people' / name}")
    typer.echo(f"keep {out / 'authority'} offline: its key can make new identities")

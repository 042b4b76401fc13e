"""``flames site request`` and ``flames site join``: a site that makes its private key itself."""

from __future__ import annotations

from pathlib import Path

import typer


def request(
    name: str = typer.Argument(..., help="The site's name in the consortium."),
    out: Path = typer.Option(..., "--out", "-o", help="Folder for the key and the request."),
) -> None:
    """Make the site's private key and a certificate request.

    Send the request to the consortium. The key stays at the site.
    """
    from flames.cli.network import need_network

    need_network()
    from flames.federation.network.consortium import check_name
    from flames.federation.network.identity import make_request

    key, csr = make_request(check_name(name), out)
    typer.echo(f"send {csr} to the consortium: it holds nothing secret")
    typer.echo(f"keep {key} here, and give it to nobody")


def join(
    kit: Path = typer.Option(
        ..., "--kit", help="The site's kit, which came without a private key."
    ),
    key: Path = typer.Option(..., "--key", help="The private key of 'flames site request'."),
) -> None:
    """Put the site's own private key into its kit."""
    from flames.cli.network import need_network

    need_network()
    from flames.federation.network.identity import check_identity, join_kit
    from flames.federation.network.kits import Kit

    opened = Kit.open(kit, "site")
    join_kit(opened, key)
    check_identity(opened)
    typer.echo(f"{opened.name} of {opened.consortium}: kit and key fit together")

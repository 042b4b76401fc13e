"""``flames consortium``: kits for a server, its sites and its people."""

from __future__ import annotations

from pathlib import Path

import typer

consortium = typer.Typer(
    name="consortium",
    help="Make a consortium's kits, and say who belongs to it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@consortium.command("init")
def init(
    file: Path = typer.Argument(..., help="The consortium's TOML file."),
    out: Path = typer.Option(Path("consortium"), "--out", "-o", help="New folder for the kits."),
) -> None:
    """Make the authority, and kits for server, sites and people."""
    from flames.cli.network import need_network

    need_network()
    from flames.federation.network.membership import found_consortium

    record = found_consortium(file, out)
    typer.echo(f"{record.name}: kits are in {out}")
    typer.echo(f"  server: {out / 'server'}")
    for name, site in record.sites.items():
        agreed = f", at most {site.cases} training cases" if site.cases else ""
        typer.echo(f"  {name} ({site.modality} of {site.organ}{agreed}): {out / 'sites' / name}")
    for name, person in record.people.items():
        typer.echo(f"  {name} ({person.role}): {out / 'people' / name}")
    typer.echo(f"keep {out / 'authority'} offline: its key can make new identities")


@consortium.command("add-site")
def add_site(
    folder: Path = typer.Argument(..., metavar="CONSORTIUM", help="The consortium's folder."),
    name: str = typer.Argument(..., help="Name of the new site."),
    modality: str = typer.Option(..., "--modality", help="US, MR or CT."),
    organ: str = typer.Option(..., "--organ", help="Organ, as the site's store says."),
    cases: int = typer.Option(
        None, "--cases", help="Training cases that it may have at most. [default: any number]"
    ),
    request: Path = typer.Option(
        None, "--request", help="The site's own certificate request, of 'flames site request'."
    ),
    days: int = typer.Option(
        None, "--days", help="Days until it expires. [default: the consortium's valid-days]"
    ),
) -> None:
    """Make one more site's kit; no other kit changes."""
    from flames.cli.network import need_network

    need_network()
    from flames.federation.network.membership import add_site

    kit = add_site(
        folder, name, modality=modality, organ=organ, cases=cases, request=request, days=days
    )
    key = "it holds no private key: the site has it" if request else "it holds a private key"
    typer.echo(f"{name} ({modality} of {organ}): {kit}; {key}")
    _say_record(folder)


@consortium.command("cases")
def cases(
    folder: Path = typer.Argument(..., metavar="CONSORTIUM", help="The consortium's folder."),
    name: str = typer.Argument(..., help="Name of a site."),
    most: int = typer.Option(
        None, "--most", min=1, help="Training cases that it may have at most, as agreed with it."
    ),
    any_: bool = typer.Option(False, "--any", help="As many as it says: take a number back."),
) -> None:
    """Note how many training cases were agreed with a site.

    With more it does not take part.
    """
    from flames.cli.network import need_network
    from flames.errors import FlamesError

    need_network()
    from flames.federation.network.membership import agree_on

    if (most is None) == (not any_):
        raise FlamesError("one of --most and --any is needed", "write --most NUMBER, or --any")
    agree_on(folder, name, most)
    typer.echo(f"{name} may have {'any number of' if any_ else f'at most {most}'} training cases")
    _say_record(folder)


@consortium.command("revoke")
def revoke(
    folder: Path = typer.Argument(..., metavar="CONSORTIUM", help="The consortium's folder."),
    name: str = typer.Argument(..., help="Name of a site or a person."),
    reason: str = typer.Option("", "--reason", help="Why; kept in the record."),
) -> None:
    """Shut a site or a person out for good."""
    from flames.cli.network import need_network

    need_network()
    from flames.federation.network.membership import revoke

    revoke(folder, name, reason)
    typer.echo(f"{name} is revoked")
    _say_record(folder)


@consortium.command("renew")
def renew(
    folder: Path = typer.Argument(..., metavar="CONSORTIUM", help="The consortium's folder."),
    name: str = typer.Argument(..., help="Name of a site or a person, or 'server'."),
    request: Path = typer.Option(None, "--request", help="A site's request with a new key."),
    days: int = typer.Option(
        None, "--days", help="Days until it expires. [default: the consortium's valid-days]"
    ),
) -> None:
    """Give a site, a person or the server a new certificate.

    The old one counts no more.
    """
    from flames.cli.network import need_network

    need_network()
    from flames.federation.network.membership import renew

    kit = renew(folder, name, request=request, days=days)
    typer.echo(f"{name} has a new certificate: copy {kit / 'startup'} over the kit in use")
    typer.echo("then start it anew" if name == "server" else "until then it is refused")
    if name != "server":
        _say_record(folder)


def _say_record(folder: Path) -> None:
    server = folder / "server" / "local" / "record.json"
    if server.exists():
        typer.echo(f"{server} is up to date; a server that runs there knows it at once")
    typer.echo(f"a server elsewhere: copy {folder / 'record.json'} to its kit as local/record.json")

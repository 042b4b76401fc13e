"""``flames site``: run a hospital's site, and see how it stands."""

from __future__ import annotations

from pathlib import Path

import typer

site = typer.Typer(
    name="site",
    help="Run a hospital's site of a consortium.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@site.command("start")
def start(
    kit: Path = typer.Option(..., "--kit", help="The site's kit."),
    store: Path = typer.Option(..., "--store", help="The site's prepared store."),
    json_: bool = typer.Option(False, "--json", help="Say everything as JSON, a line each."),
) -> None:
    """Run the site until it is stopped with Ctrl-C or SIGTERM."""
    from flames.cli.network import need_network, speaker

    need_network()
    from flames.data.store import SiteStore
    from flames.federation.network.kits import Kit
    from flames.federation.network.processes import save_site_settings, watch

    opened = Kit.open(kit, "site")
    SiteStore.open(store)
    save_site_settings(opened, {"store": str(store.resolve())})
    watch(opened, speaker(json_))


@site.command("status")
def status(
    kit: Path = typer.Option(..., "--kit", help="The site's kit."),
    json_: bool = typer.Option(False, "--json", help="Print it as JSON."),
) -> None:
    """Say whether the site runs, and what it did last."""
    import json

    from flames.federation.network.status import site_report, site_words

    report = site_report(kit)
    typer.echo(json.dumps(report, indent=2) if json_ else site_words(report))

"""``flames server``: run the consortium's server, and see how it stands."""

from __future__ import annotations

from pathlib import Path

import typer

server = typer.Typer(
    name="server",
    help="Run the server of a consortium.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@server.command("start")
def start(
    kit: Path = typer.Option(..., "--kit", help="The server's kit."),
    json_: bool = typer.Option(False, "--json", help="Say everything as JSON, a line each."),
) -> None:
    """Run the server until it is stopped with Ctrl-C or SIGTERM."""
    from flames.cli.network import need_network, speaker

    need_network()
    from flames.federation.network.kits import Kit
    from flames.federation.network.processes import watch

    watch(Kit.open(kit, "server"), speaker(json_))


@server.command("status")
def status(
    kit: Path = typer.Option(
        ..., "--kit", help="The server's kit on this machine, or a person's on any."
    ),
    json_: bool = typer.Option(False, "--json", help="Print it as JSON."),
) -> None:
    """Say which sites are connected and how the runs stand."""
    import json

    from flames.cli.network import need_network

    need_network()
    from flames.federation.network.status import server_report, server_words

    report = server_report(kit)
    typer.echo(json.dumps(report, indent=2) if json_ else server_words(report))


@server.command("prune")
def prune(
    kit: Path = typer.Option(..., "--kit", help="The server's kit."),
    days: int = typer.Option(30, "--days", min=0, help="How long ago it must have ended."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Say what would go; delete nothing."),
) -> None:
    """Delete what no run needs any more, while the server is stopped.

    Results stay, and all of runs that are not finished.
    """
    from flames.cli.network import prune as prune_kit
    from flames.federation.network.kits import Kit

    prune_kit(Kit.open(kit, "server"), days=days, dry_run=dry_run)

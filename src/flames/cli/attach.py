"""``flames attach`` and ``flames stop``: join a run over the network again, or end it."""

from __future__ import annotations

from pathlib import Path

import typer


def attach(
    run: Path = typer.Argument(..., help="The run's folder here."),
    on: Path | None = typer.Option(None, "--on", help="A person's kit, for a new folder."),
    name: str = typer.Option("", "--name", help="The run's name at the server, for a new folder."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="Print the closing table only."),
) -> None:
    """Follow a run over the network to its end, and fetch it."""
    from flames.cli.network import need_network

    need_network()
    from rich.console import Console

    from flames.cli.progress import RunProgress
    from flames.cli.run import close
    from flames.federation.network.follow import attach as join

    console = Console(markup=False)
    with RunProgress(console, quiet=quiet) as progress:
        finished = join(run, on=on, run=name or None, on_event=progress.show)
    close(finished, console)


def stop(run: Path = typer.Argument(..., help="The run's folder here.")) -> None:
    """End a run over the network, at the server and at every site.

    'flames run' with --on and --resume continues it.
    """
    from flames.cli.network import need_network

    need_network()
    from flames.federation.network.follow import stop as end

    typer.echo(f"{end(run)} is stopped")

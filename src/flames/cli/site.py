"""``flames site``: run a hospital's site, see how it stands, and decide what it takes part in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from flames.cli.site_keys import join, request

if TYPE_CHECKING:
    from flames.federation.network.kits import Kit

site = typer.Typer(
    name="site",
    help="Run a hospital's site of a consortium.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
site.command()(request)
site.command()(join)


@site.command("start")
def start(
    kit: Path = typer.Option(..., "--kit", help="The site's kit."),
    store: Path = typer.Option(..., "--store", help="The site's prepared store."),
    policy: Path | None = typer.Option(
        None, "--policy", help="What the site takes part in, as TOML; otherwise the default policy."
    ),
    json_: bool = typer.Option(False, "--json", help="Say everything as JSON, a line each."),
) -> None:
    """Run the site until it is stopped with Ctrl-C or SIGTERM."""
    from flames.cli.network import need_network, speaker

    need_network()
    from flames.data.store import SiteStore
    from flames.federation.network.journal import now
    from flames.federation.network.kits import Kit
    from flames.federation.network.policy import load_policy
    from flames.federation.network.processes import watch
    from flames.federation.network.settings import SiteSettings, save_site_settings
    from flames.federation.network.sharing import allowed_to_others

    opened = Kit.open(kit, "site")
    settings = SiteSettings(store, load_policy(policy))
    SiteStore.open(store).check_sides()
    _mend_log(opened)
    save_site_settings(opened, settings)
    say = speaker(json_)
    say({"time": now(), "event": "policy", "text": allowed_to_others(settings.policy)})
    watch(opened, say)


@site.command("status")
def status(
    kit: Path = typer.Option(..., "--kit", help="The site's kit."),
    json_: bool = typer.Option(False, "--json", help="Print it as JSON."),
) -> None:
    """Say whether the site runs, what waits for you and what it did."""
    import json

    from flames.federation.network.status import site_report, site_words

    report = site_report(kit)
    typer.echo(json.dumps(report, indent=2) if json_ else site_words(report))


@site.command("prune")
def prune(
    kit: Path = typer.Option(..., "--kit", help="The site's kit."),
    days: int = typer.Option(30, "--days", min=0, help="How long ago it must have ended."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Say what would go; delete nothing."),
) -> None:
    """Delete what no run needs any more, while the site is stopped.

    The log of what left stays, and so do the site's own models.
    """
    from flames.cli.network import prune as prune_kit
    from flames.federation.network.kits import Kit

    prune_kit(Kit.open(kit, "site"), days=days, dry_run=dry_run)


@site.command("approve")
def approve(
    run: str = typer.Argument(..., help="Name of the run, as 'flames site status' shows it."),
    kit: Path = typer.Option(..., "--kit", help="The site's kit."),
    config: str | None = typer.Option(
        None,
        "--config",
        help="First 12 or more characters of the SHA-256 of the configuration you read.",
    ),
) -> None:
    """Let the site take part in a run.

    The approval is for the configuration that the run has now.
    """
    from flames.federation.network.approval import decide
    from flames.federation.network.kits import Kit

    order = decide(Kit.open(kit, "site"), run, "approved", digest=config, reason="")
    typer.echo(f"approved: {run} with configuration {order['config']}")


@site.command("deny")
def deny(
    run: str = typer.Argument(..., help="Name of the run, as 'flames site status' shows it."),
    kit: Path = typer.Option(..., "--kit", help="The site's kit."),
    reason: str = typer.Option("", "--reason", help="Shown at the server."),
) -> None:
    """Keep the site out of a run, also one that goes on.

    Nothing more of that run leaves.
    """
    from flames.federation.network.approval import decide
    from flames.federation.network.kits import Kit

    order = decide(Kit.open(kit, "site"), run, "denied", digest=None, reason=reason)
    typer.echo(f"denied: {run} with configuration {order['config']}")


@site.command("log")
def log(
    kit: Path = typer.Option(..., "--kit", help="The site's kit."),
    run: str | None = typer.Option(None, "--run", help="Of this run only."),
    all_: bool = typer.Option(False, "--all", help="Give each sign of life its own line."),
    verify: bool = typer.Option(False, "--verify", help="Check that no entry was changed."),
    contains: str | None = typer.Option(
        None, "--contains", help="With --verify: a hash that was the last one at some time."
    ),
    archive: Path | None = typer.Option(
        None, "--archive", help="Move the log to this new file, while the site is stopped."
    ),
    json_: bool = typer.Option(False, "--json", help="Print entries as JSON, a line each."),
) -> None:
    """Show everything that left the site, check the log, or move it."""
    import json

    from flames.errors import FlamesError
    from flames.federation.network.kits import Kit
    from flames.federation.network.outgoing import OutgoingLog
    from flames.federation.network.outgoing_words import log_words, verdict_words

    shows: dict[str, object] = {"--run": run, "--all": all_, "--json": json_}
    if archive is not None:
        _alone("--archive", shows | {"--verify": verify, "--contains": contains})
    if verify:
        _alone("--verify", shows)
    opened = OutgoingLog(Kit.open(kit, "site").outgoing)
    if archive is not None:
        _archive(Kit.open(kit, "site"), archive)
        return
    if contains is not None and not verify:
        raise FlamesError("--contains says nothing without --verify", "add --verify")
    if verify:
        verdict = opened.verify(contains=contains)
        if verdict.broken:
            raise FlamesError(
                f"{opened.path} is broken after {verdict.entries} whole entries: {verdict.broken}",
                "keep the file as it is, and find out who or what changed it",
            )
        typer.echo(verdict_words(verdict))
        return
    entries = (entry for entry in opened.read() if run in (None, entry.get("run")))
    lines = (
        (json.dumps(e, ensure_ascii=False) for e in entries)
        if json_
        else log_words(entries, every=all_)
    )
    for line in lines:
        typer.echo(line)


def _alone(option: str, others: dict[str, object]) -> None:
    """Refuse what ``option`` would ignore."""
    from flames.errors import FlamesError

    given = [name for name, value in others.items() if value]
    if given:
        raise FlamesError(
            f"{option} is of the whole log, and {' and '.join(given)} would do nothing with it",
            f"drop {' and '.join(given)}, or give {'them' if len(given) > 1 else 'it'} in a "
            "command of its own",
        )


def _archive(kit: Kit, dest: Path) -> None:
    from flames.federation.network.outgoing import OutgoingLog
    from flames.federation.network.processes import stopped

    with stopped(kit):
        entry = OutgoingLog(kit.outgoing).archive(dest)
    typer.echo(f"moved: {entry['bytes']:,} bytes of SHA-256 {entry['sha256']}")
    typer.echo(f"last hash {entry['hash']}")


def _mend_log(kit: Kit) -> None:
    """Note a torn line of the log of what leaves, and refuse to go on with a broken one."""
    from flames.errors import FlamesError
    from flames.federation.network.journal import Journal
    from flames.federation.network.outgoing import OutgoingLog

    log = OutgoingLog(kit.outgoing)
    torn = log.repair()
    if torn:
        Journal(kit.events).write(
            "repair", f"{log.path.name}: a torn line of {torn} bytes is noted"
        )
    verdict = log.verify()
    if verdict.broken:
        raise FlamesError(
            f"{log.path} is broken: {verdict.broken}",
            "find out who or what changed it, then move the file away and start again",
        )

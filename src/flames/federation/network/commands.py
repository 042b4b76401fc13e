"""What people may ask the server, by the engine's authenticated connection for people."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nvflare.fuel.hci.conn import Connection
from nvflare.fuel.hci.reg import CommandModule, CommandModuleSpec, CommandSpec
from nvflare.fuel.hci.server.constants import ConnProps

from flames.errors import FlamesError
from flames.federation.network.consortium import Latest, Record
from flames.federation.network.journal import Journal
from flames.federation.network.kits import Kit
from flames.federation.network.run_book import RUN_NAME, RunBook

if TYPE_CHECKING:
    from flames.federation.network.keeper import RunKeeper

COMMANDS = {
    "flames_status": "connected sites and runs",
    "flames_sites": "sites of the consortium",
    "flames_look": "how one run stands, and its events from a number on",
    "flames_stop": "end a run",
    "flames_continue": "let a stopped or failed run go on",
}
MOST_EVENTS = 200
MOST_REFUSALS = 10


class PeoplesCommands(CommandModule):
    """The commands, answered with one table each."""

    def __init__(self, kit: Kit, keeper: RunKeeper) -> None:
        """Answer from the kit's files, act through the keeper."""
        self.kit = kit
        self.keeper = keeper
        self.latest = Latest(kit.record)

    def get_spec(self) -> CommandModuleSpec:
        """Return the commands' names for the engine."""
        return CommandModuleSpec(
            name="flames",
            cmd_specs=[
                CommandSpec(
                    name=name,
                    description=what,
                    usage=name,
                    handler_func=self._answer,
                    visible=True,
                )
                for name, what in COMMANDS.items()
            ],
        )

    def _answer(self, conn: Connection, args: list[str]) -> None:
        who, role = str(conn.get_prop(ConnProps.USER_NAME)), conn.get_prop(ConnProps.USER_ROLE)
        try:
            record = self.latest.read()
            if who not in record.people or record.people[who].revoked:
                raise FlamesError(f"{who} is shut out of {record.name}", "ask the consortium")
            handlers: dict[str, Callable[..., dict[str, Any]]] = {
                "flames_status": self.status,
                "flames_sites": self.sites,
                "flames_look": self.look,
                "flames_stop": self.stop,
                "flames_continue": self.continue_,
            }
            answer = handlers[args[0]](who, str(role), *args[1:])
        except FlamesError as error:
            answer = {"error": error.found, "remedy": error.remedy}
        except TypeError:
            answer = {"error": f"{args[0]} needs other words", "remedy": "use 'flames'"}
        conn.append_dict(json.loads(json.dumps(answer)))

    def status(self, who: str, role: str) -> dict[str, Any]:
        """Return who is connected and which runs there are."""
        del who, role
        return server_status(self.kit, self.latest)

    def sites(self, who: str, role: str) -> dict[str, Any]:
        """Return the sites that are not shut out."""
        del who, role
        record = self.latest.read()
        return {
            "consortium": record.name,
            "sites": {
                name: {"modality": site.modality, "organ": site.organ}
                for name, site in record.sites.items()
                if not site.revoked
            },
        }

    def look(self, who: str, role: str, run: str, since: str = "0") -> dict[str, Any]:
        """Return how a run stands."""
        del who, role
        book = self._book(run)
        content = book.read()
        events = Journal(book.events).read(int(since))[:MOST_EVENTS]
        job = content.get("jobs", [None])[-1]
        return {
            "run": content,
            "desk": book.read_desk(),
            "events": events,
            "job_status": self.keeper.job_status(job) if job else None,
        }

    def stop(self, who: str, role: str, run: str, job: str = "") -> dict[str, Any]:
        """End a run, also one whose job has not begun it: that finds it stopped."""
        book = self._book(run)
        self._may_manage(who, role, book)
        if not book.read():
            owner = self._may_end(who, role, job)
            book.set_status("stopped", by=owner, jobs=[job])
        self.keeper.stop_run(book, who)
        return {"run": book.read()}

    def continue_(self, who: str, role: str, run: str) -> dict[str, Any]:
        """Let a run go on."""
        book = self._book(run)
        self._may_manage(who, role, book)
        self.keeper.continue_run(book)
        return {"run": book.read()}

    def _book(self, run: str) -> RunBook:
        if not RUN_NAME.fullmatch(run):
            raise FlamesError(f"{run!r} is no name of a run", "see 'flames server status'")
        return RunBook(self.kit.runs / run)

    def _may_manage(self, who: str, role: str, book: RunBook) -> None:
        if role == "member":
            raise FlamesError(f"{who} may only look", "ask somebody who leads runs")
        begun_by = book.read().get("by")
        if role != "project_admin" and begun_by not in (None, who):
            raise FlamesError(f"the run is {begun_by}'s", f"ask {begun_by}, or an admin")

    def _may_end(self, who: str, role: str, job: str) -> str:
        """Let a job be ended that has not begun its run, by whoever handed it in: return who."""
        owner = self.keeper.submitter(job) if job else None
        if owner is None:
            raise FlamesError("there is no such run or job", "see 'flames server status'")
        if role != "project_admin" and owner != who:
            raise FlamesError(f"the job is {owner}'s", f"ask {owner}, or an admin")
        return owner


def server_status(kit: Kit, latest: Latest | None = None) -> dict[str, Any]:
    """Return who is connected at a server and which runs there are, from its kit's files.

    Args:
        kit: The server's.
        latest: The record as a running server knows it; None where there is only the file.
    """
    latest = latest or Latest(kit.record)
    try:
        record = latest.read()
    except FlamesError:
        record = Record(name=kit.consortium, sites={}, people={})
    try:
        present = json.loads(kit.present.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        present = {}
    runs = {}
    for path in sorted(kit.runs.glob("*")):
        book = RunBook(path)
        content, desk = book.read(), book.read_desk()
        if content:
            runs[path.name] = {
                "status": content.get("status"),
                "cause": content.get("cause", ""),
                "round": desk.get("round"),
                "rounds": desk.get("rounds"),
                "sites": {
                    name: {"status": s["status"], "reason": s["reason"]}
                    for name, s in desk.get("sites", {}).items()
                },
            }
    return {
        "consortium": kit.consortium,
        "server": kit.server,
        "record": latest.trouble,
        "sites": {
            name: {
                "modality": site.modality,
                "organ": site.organ,
                "cases": site.cases,
                "connected": name in present,
                "revoked": site.revoked,
                "expires": site.expires,
            }
            for name, site in record.sites.items()
        },
        "people": {
            name: {"role": who.role, "revoked": who.revoked, "expires": who.expires}
            for name, who in record.people.items()
        },
        "refusals": refusals(kit),
        "runs": runs,
    }


def refusals(kit: Kit) -> list[dict[str, Any]]:
    """Return the last that a server turned away, oldest first."""
    events = Journal(kit.events).read()
    return [event for event in events if event.get("event") == "refused"][-MOST_REFUSALS:]

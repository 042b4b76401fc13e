"""What a person sees of a run while it goes on: one moving line, and one line a round and site."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType

from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from flames.federation.batch import Done, Job, run_missing
from flames.federation.progress import Event
from flames.reports.html import write_report
from flames.runs import RunFolder

LOOK_EVERY = 2.0
"""Seconds between two looks at the records of runs that other processes do."""


class RunProgress:
    """Shows the events of a run; without a terminal it prints lines only."""

    def __init__(self, console: Console, *, quiet: bool) -> None:
        """Prepare to show on ``console``; ``quiet`` shows nothing."""
        self.console = console
        self.quiet = quiet
        self.started = time.monotonic()
        self.bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(30),
            TextColumn("{task.completed}/{task.total} {task.fields[text]}", markup=False),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=quiet or not console.is_terminal,
        )
        self.task = self.bar.add_task("starting", total=1, text="")

    def __enter__(self) -> RunProgress:
        self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bar.stop()

    def show(self, event: Event) -> None:
        """Show one event."""
        if self.quiet:
            return
        if event.stage == "round":
            seconds = time.monotonic() - self.started
            closing = event.server_round > event.rounds
            title = "closing" if closing else f"round {event.server_round}/{event.rounds}"
            self.bar.console.print(
                f"{seconds:7.0f} s  {title:<12}{event.text}",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )
            return
        title = f"round {event.server_round}/{event.rounds} {event.client}"
        self.bar.update(
            self.task,
            description=title if event.stage == "train" else f"scoring {event.client}",
            completed=event.done,
            total=event.total,
            text=event.text,
        )


def run_jobs(
    jobs: Sequence[Job],
    console: Console,
    *,
    at_a_time: int,
    keep_state: bool,
    quiet: bool,
    report_only: bool = False,
) -> list[RunFolder]:
    """Run what is missing of ``jobs``, show it, and write the report of each run."""
    started = time.monotonic()
    missing = [] if report_only else [job for job in jobs if not job.finished]
    waiting = {job.folder for job in missing}
    if missing and not quiet:
        side_by_side = min(at_a_time, len(missing))
        console.print(
            f"{len(missing)} of {len(jobs)} runs are to do, {side_by_side} at a time",
            highlight=False,
        )

    def done(event: Done) -> None:
        if not quiet:
            words = f"failed: {event.failed}" if event.failed else "finished"
            console.print(
                f"{time.monotonic() - started:7.0f} s  {event.job.folder.name} {words}; "
                f"{event.number} of {event.total} runs are finished",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )

    with (
        RunProgress(console, quiet=quiet or at_a_time > 1) as progress,
        rounds_bar(missing, console, quiet=quiet or at_a_time == 1),
    ):
        runs = run_missing(
            jobs,
            at_a_time=at_a_time,
            keep_state=keep_state,
            report_only=report_only,
            on_event=progress.show,
            on_done=done,
        )
    for run in runs:
        if run.path in waiting or not run.report.exists():
            write_report(run)
    return runs


@contextmanager
def rounds_bar(jobs: Sequence[Job], console: Console, *, quiet: bool) -> Iterator[None]:
    """Show how many rounds of ``jobs`` are done, by the records that their processes write.

    Without a terminal it shows nothing.
    """
    bar = Progress(
        TextColumn("rounds of all runs"),
        BarColumn(30),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=quiet or not jobs or not console.is_terminal,
    )
    if bar.disable:
        yield
        return
    total = sum(job.config.rounds for job in jobs)
    task = bar.add_task("", total=total, completed=sum(map(rounds_done, jobs)))
    over = threading.Event()

    def look() -> None:
        while not over.wait(LOOK_EVERY):
            bar.update(task, completed=sum(map(rounds_done, jobs)))

    watching = threading.Thread(target=look, daemon=True)
    with bar:
        watching.start()
        try:
            yield
        finally:
            over.set()
            watching.join()


def rounds_done(job: Job) -> int:
    """Return how many rounds of a run are recorded; all of them once it is finished."""
    if job.finished:
        return job.config.rounds
    records = RunFolder(job.folder).load_rounds()
    return min(records[-1]["round"], job.config.rounds) if records else 0


@contextmanager
def steps_bar(console: Console, *, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """Give a function that shows what is being done; without a terminal it shows nothing."""
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(30),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=quiet or not console.is_terminal,
    )
    with bar:
        task = bar.add_task("starting", total=1)
        yield lambda text, done, total: bar.update(
            task, description=text, completed=done, total=total
        )


def print_rows(console: Console, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table of text, the last column to the right."""
    # Names of students and their five numbers fit a terminal of eighty columns.
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for number, name in enumerate(head):
        table.add_column(name, justify="right" if number == len(head) - 1 else "left")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)

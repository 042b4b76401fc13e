"""Who trains the clients of a simulation: this process, or several others side by side."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from typing import Protocol

import torch

from flames.config import RunConfig
from flames.data.folds import in_fold
from flames.data.store import SiteStore
from flames.errors import FlamesError
from flames.federation.beginning import make_strategy
from flames.federation.client import Client
from flames.federation.earlier import kept_own_model
from flames.federation.exchange import Reply, Task
from flames.models.precision import choose_precision
from flames.processes import Workers
from flames.runs import RunFolder
from flames.training.loop import Progress


class Crew(Protocol):
    """Whoever trains clients."""

    at_a_time: int

    def ask(self, client: str, task: Task, progress: Progress, /) -> Future[Reply]:
        """Let a client do its task; its reply, or what went wrong, comes in the future."""

    def end(self) -> None:
        """Stop whatever is still going on."""


class InTurn:
    """One client after another, in this process."""

    at_a_time = 1

    def __init__(self, clients: Mapping[str, Client]) -> None:
        """Keep the clients."""
        self._clients = clients

    def ask(self, client: str, task: Task, progress: Progress, /) -> Future[Reply]:
        """Return when the client has done it; ``progress`` is called after each step."""
        done: Future[Reply] = Future()
        done.set_result(self._clients[client].answer(task, progress)[0])
        return done

    def end(self) -> None:
        """Do nothing: nothing goes on."""


class SideBySide:
    """Several clients at a time, each in a process that opens every site's store itself.

    What a client does depends on its task and its folder alone, so it does not matter where.
    """

    def __init__(self, config: RunConfig, run: RunFolder, at_a_time: int) -> None:
        """Start nothing yet.

        Args:
            config: Where it leaves ``threads`` open, each process has its share of the processor.
            run: Whose clients they are.
            at_a_time: Processes, at least 2.
        """
        self.at_a_time = at_a_time
        threads = config.threads or max(1, (os.cpu_count() or 1) // at_a_time)
        self._pool = Workers(at_a_time, _begin, config, run, threads)

    def ask(self, client: str, task: Task, _progress: Progress, /) -> Future[Reply]:
        """Hand the task to a process that is free; nobody is told of its steps."""
        reply: Future[Reply] = Future()
        ended = FlamesError(
            f"a process ended while {client} trained, as when memory is full",
            "give a smaller --jobs, then go on with --resume",
        )

        def pass_on(answer: Future[Reply | tuple[str, str]]) -> None:
            try:
                found = answer.result()
            except BrokenProcessPool:
                reply.set_exception(ended)
            except BaseException as error:  # whatever it was belongs to whoever waits
                reply.set_exception(error)
            else:
                if isinstance(found, Reply):
                    reply.set_result(found)
                else:
                    reply.set_exception(FlamesError(*found))

        try:
            self._pool.submit(_answer, client, task).add_done_callback(pass_on)
        except BrokenProcessPool:
            reply.set_exception(ended)
        return reply

    def end(self) -> None:
        """End the processes, in the middle of a task too; a client does such a round again."""
        self._pool.kill()


def client_sites(config: RunConfig, stores: Mapping[str, SiteStore]) -> dict[str, list[str]]:
    """Return the sites behind each client: itself, or its whole modality for `central`."""
    if config.strategy.name != "central":
        return {name: [name] for name in stores}
    pooled: dict[str, list[str]] = {}
    for name, store in stores.items():
        pooled.setdefault(f"central-{store.modality}", []).append(name)
    return pooled


def make_clients(
    config: RunConfig, stores: Mapping[str, SiteStore], run: RunFolder
) -> dict[str, Client]:
    """Return a run's clients by name, with their folders inside the run's."""
    strategy = make_strategy(config)
    precision = choose_precision(config.training.precision)
    return {
        name: Client(
            name,
            [stores[site] for site in sites],
            config=config,
            strategy=strategy,
            precision=precision,
            folder=run.state / "clients" / name,
            earlier=kept_own_model(run.state, name),
        )
        for name, sites in client_sites(config, stores).items()
    }


_clients: dict[str, Client] = {}
"""Of a process of `SideBySide`."""


def _begin(config: RunConfig, run: RunFolder, threads: int) -> None:
    torch.set_num_threads(threads)
    data = config.data
    stores = {
        site.name: in_fold(SiteStore.open(site.store), data.folds, data.fold)
        for site in config.sites
        if site.store
    }
    _clients.update(make_clients(config, stores, run))


def _answer(client: str, task: Task) -> Reply | tuple[str, str]:
    try:
        return _clients[client].answer(task)[0]
    except FlamesError as error:
        return error.found, error.remedy

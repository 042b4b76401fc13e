"""A whole federation in one process: the same clients and server, one after the other."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import replace
from pathlib import Path

import torch

from flames.config import (
    DataConfig,
    RunConfig,
    SiteConfig,
    WireConfig,
    differing_keys,
    dump_config,
    load_config,
)
from flames.data.folds import in_fold
from flames.data.store import SPLITS, SiteStore
from flames.errors import FlamesError
from flames.federation.beginning import check_start, first_weights, make_strategy, own_models
from flames.federation.budget import Member
from flames.federation.client import Client
from flames.federation.crew import Crew, InTurn, SideBySide, make_clients
from flames.federation.earlier import KEPT, check_new_to, earlier_digests, keep_models
from flames.federation.environment import check_unchanged, describe_environment, sides_of
from flames.federation.exchange import Reply, Task, UpdateSetAside
from flames.federation.network.tasks import encode_task, encode_update
from flames.federation.outcome import save_models, score_run
from flames.federation.planning import planned
from flames.federation.progress import Event, OnEvent, sentence
from flames.federation.server import Server
from flames.files import nothing_in, save_json, save_text
from flames.models.precision import choose_precision
from flames.processes import held
from flames.runs import RunFolder, save_lines
from flames.wire.coding import Coded


def simulate(
    config: RunConfig,
    out: Path,
    *,
    resume: bool = False,
    jobs: int = 1,
    on_event: OnEvent = lambda _: None,
) -> RunFolder:
    """Run the federation of ``config`` into ``out`` and return its finished run folder.

    Args:
        config: What to run.
        out: A new folder, or with ``resume`` one that a killed run left.
        resume: Continue after the last finished round; the end is bit-equal to an unbroken run.
        jobs: Clients that train at a time, each in a process of its own if more than one. Numbers
            do not depend on it, where ``threads`` is set.
        on_event: Called as the run goes on.

    Raises:
        FlamesError: A store is bad, sites share a patient's images across splits, the folder
            belongs to another run or is in use by one, or training failed.
    """
    run = RunFolder(out)
    stores = open_stores(config)
    for store in stores.values():
        store.check_sides()
    config = planned(config, stores)
    _claim(run, config, stores, resume)
    if run.summary.exists():
        return run  # without its state, which may be gone
    if config.threads:
        torch.set_num_threads(config.threads)
    with held(run.state):
        if not run.summary.exists():  # another process may have finished it meanwhile
            _run(run, config, stores, jobs, on_event)
    return run


def _run(
    run: RunFolder,
    config: RunConfig,
    stores: dict[str, SiteStore],
    jobs: int,
    on_event: OnEvent,
) -> None:
    for partial in run.state.glob("*/.round-*.partial"):
        shutil.rmtree(partial)
    if config.start is not None and not (run.state / KEPT).exists():
        own = {site: path for site, path in own_models(config.start).items() if site in stores}
        keep_models(config.start, run.state, own)
    strategy = make_strategy(config)
    clients = make_clients(config, stores, run)
    server = Server(
        [
            Member(c.name, c.modality, len(c.stores), _local_steps(config, c))
            for c in clients.values()
        ],
        config=config,
        strategy=strategy,
        start=first_weights(config, run),
        folder=run.state / "server",
    )
    for told in (*server.folders.damaged, *(t for c in clients.values() for t in c.rounds.damaged)):
        on_event(Event("round", server.finished, config.rounds, text=told))
    save_lines(run.rounds, server.records())
    crew: Crew = InTurn(clients) if jobs == 1 else SideBySide(config, run, jobs)
    try:
        for server_round in range(server.finished + 1, server.last_round + 1):
            _one_round(server, clients, server_round, crew, on_event)
            save_lines(run.rounds, server.records())
    finally:
        crew.end()
    save_models(run, config, server, clients, stores)
    save_json(run.affinity, server.affinity())
    score_run(
        run,
        config,
        stores,
        choose_precision(config.training.precision),
        personal=strategy.personal,
        on_progress=lambda text, done, total: on_event(
            Event("score", config.rounds, config.rounds, text, done, total)
        ),
    )


def open_stores(config: RunConfig, *, verify: bool = True) -> dict[str, SiteStore]:
    """Return every site's store by name, verified.

    Args:
        config: The run.
        verify: Whether to read every array, which takes long, and compare it with its checksum.

    Raises:
        FlamesError: A store is missing or changed or has too few patients for the run's folds, or a
            test case of one site is a training case of another.
    """
    stores = {site.name: _open_store(site, config.data) for site in config.sites}
    sides: dict[str, tuple[str, str]] = {}
    for name, store in stores.items():
        if verify:
            store.verify()
        for side in SPLITS:
            for case in store.split(side):
                other, other_side = sides.setdefault(case.arrays_sha256, (name, side))
                if other != name and "test" in {side, other_side} and side != other_side:
                    raise FlamesError(
                        f"case {case.case_id!r} is {side} at {name} and {other_side} at {other}",
                        "leave one of the two stores out: a test case must be new to every site",
                    )
    return stores


def _open_store(site: SiteConfig, data: DataConfig) -> SiteStore:
    if site.store is None:
        raise FlamesError(
            f"site {site.name!r} has no store",
            'add store = "FOLDER" to its table, or run it in its consortium with --on',
        )
    return in_fold(SiteStore.open(site.store), data.folds, data.fold)


def _one_round(
    server: Server, clients: dict[str, Client], server_round: int, crew: Crew, on_event: OnEvent
) -> None:
    rounds = server.config.rounds
    waiting, asked, down = list(clients), dict[Future[Reply], str](), dict[str, int]()
    while waiting or asked:
        for name in list(waiting):
            expected = {*waiting, *asked.values()}
            if len(asked) == crew.at_a_time:
                break
            if not server.turns.may_begin(name, server.answered, expected):
                continue
            waiting.remove(name)
            task, coded = server.dispatch(name, clients[name].rounds.holds())
            down[name] = _bytes_down(task, coded, server.config.wire)

            def progress(
                done: int, loss: float, name: str = name, total: int = len(task.steps)
            ) -> None:
                text = f"loss {loss:.3f}"
                on_event(Event("train", server_round, rounds, name, done, total, text))

            asked[crew.ask(name, task, progress)] = name
        for future in wait(asked, return_when=FIRST_COMPLETED).done:
            name, reply = asked.pop(future), future.result()
            if crew.at_a_time > 1:
                done = len(clients) - len(waiting) - len(asked)
                on_event(Event("train", server_round, rounds, "", done, len(clients), "sites"))
            parcel, base = clients[name].rounds.outgoing(server_round)
            up = _bytes_up(reply, parcel, base, server)
            try:
                server.receive(reply, parcel, base, (down[name], up))
            except UpdateSetAside as error:
                if server_round < server.last_round:
                    clients[name].rounds.take_back(server_round)
                text = f"{name:>24}  its update is set aside: {error.found}"
                on_event(Event("round", server_round, rounds, text=text))
    for record in server.close_round():
        on_event(Event("round", server_round, rounds, text=sentence(record)))


def _bytes_down(task: Task, coded: Mapping[str, Coded], wire: WireConfig) -> int:
    if wire.plain:
        return sum(map(_plain_bytes, coded.values()))
    return len(encode_task(task, coded, wire, {}))


def _bytes_up(reply: Reply, parcel: Coded, base: str, server: Server) -> int:
    if server.config.wire.plain:
        return _plain_bytes(parcel)
    message = replace(reply, seconds={})
    return len(encode_update(message, server.finished + 1, parcel, base, server.config.wire))


def _plain_bytes(coded: Coded) -> int:
    """Return the bytes of arrays that travel as they are; packing them only to count costs time."""
    return sum(a.nbytes for arrays in (coded.values, coded.moments) for a in arrays.values())


def _claim(run: RunFolder, config: RunConfig, stores: dict[str, SiteStore], resume: bool) -> None:
    """Make the folder this run's own, or check that it already is."""
    if run.config.exists():
        if not resume:
            raise FlamesError(
                f"{run.path} already holds a run",
                "add --resume to continue it, or name a new --out",
            )
        if different := differing_keys(load_config(run.config), config):
            raise FlamesError(
                f"{run.path} was started with another {', '.join(different)}",
                f"give the file and the options that it began with ({run.config} has all values), "
                "or name a new --out",
            )
    elif not nothing_in(run.path):
        raise FlamesError(
            f"{run.path} is not an empty folder, and holds no run", "name a new --out"
        )
    else:
        if config.start is not None:
            check_start(config.start, config)
            check_new_to(config.start, stores)
        save_text(run.config, dump_config(config))
    check_unchanged(run, stores)
    if load_config(run.config) != config:  # its stores lie elsewhere now
        save_text(run.config, dump_config(config))
    if not run.environment.exists():
        began = {} if config.start is None else {"start": earlier_digests(config.start)}
        save_json(run.environment, describe_environment(stores) | began)
    if not run.splits.exists():
        save_json(run.splits, {name: sides_of(store) for name, store in stores.items()})


def _local_steps(config: RunConfig, client: Client) -> int:
    """Return the steps of a client's round: those of the sites whose stores it opens."""
    opened = {store.path.resolve() for store in client.stores}
    return sum(
        config.steps_of(site.name)
        for site in config.sites
        if site.store is not None and site.store.resolve() in opened
    )

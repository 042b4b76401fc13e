"""What the engine takes in before FLAMES sees it: no more than a run's messages can have."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
from concurrent.futures import Future
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("nvflare", reason="needs the extra 'network'")

from nvflare.fuel.f3.cellnet import cell
from nvflare.fuel.f3.comm_error import CommError
from nvflare.fuel.f3.drivers import socket_conn
from nvflare.fuel.f3.message import Message
from nvflare.fuel.f3.sfm.prefix import PREFIX_LEN, Prefix
from nvflare.fuel.f3.streaming.stream_const import StreamHeaderKey
from nvflare.fuel.f3.streaming.stream_types import BlobSizeError

from flames.config import dump_config
from flames.federation.network import launcher, limits
from flames.federation.network.connections import limit_frames, outlive_refusals
from flames.federation.network.engine_files import engine_environment
from flames.federation.network.kits import Kit
from flames.federation.network.limits import ENGINE_BYTES, LIMIT, MODELS, job_bytes, limit_of
from flames.federation.network.messages import MARKS, MAX_HEAD, decode, encode
from flames.models import make_model
from flames.models.weights import model_arrays

REFUSED = """
import sys
from types import SimpleNamespace
from nvflare.fuel.f3.streaming.blob_streamer import BlobHandler
from nvflare.fuel.f3.streaming.stream_types import StreamFuture

size = int(sys.argv[1])
future = StreamFuture(1, {})
stream = SimpleNamespace(get_size=lambda: size, headers={}, read=lambda _: b"")
BlobHandler(lambda future: None).handle_blob_cb(future, stream, False)
print(future.error)
"""


WARM = """
from flames.federation.network.launcher import WarmLauncher

CHILD = '''
import os
from flames.federation.network.limits import LIMIT
os.environ[LIMIT] = "123456789"
from nvflare.fuel.f3.streaming.blob_streamer import BlobHandler
print(BlobHandler(None).max_blob_size, flush=True)
'''

if __name__ == "__main__":
    launcher = WarmLauncher("client")
    launcher._warm_up()
    job = launcher.context.Process(target=exec, args=(CHILD,))
    job.start()
    job.join()
"""


def job(folder, config):
    place = folder / "job" / "app_us-a" / "config"
    place.mkdir(parents=True)
    (place / "federation.toml").write_text(dump_config(config), encoding="utf-8")
    return folder / "job"


def test_the_limit_comes_from_the_runs_own_network(make_config, tmp_path, monkeypatch):
    config = make_config("us-a")
    arrays = model_arrays(make_model(config.model)).values()
    size = sum(array.nbytes for array in arrays)
    folder = job(tmp_path, config)
    assert job_bytes("server", config) == MAX_HEAD + 10 * MARKS + round(1.01 * 4 * size)
    assert limit_of("server", folder) == ENGINE_BYTES, "no less than an engine itself takes"
    monkeypatch.setattr(limits, "ENGINE_BYTES", 1000)
    assert limit_of("server", folder) == MAX_HEAD + 10 * MARKS + round(1.01 * 4 * size)
    assert limit_of("client", folder) == MAX_HEAD + 10 * MARKS + round(1.01 * 12 * size)


def test_in_three_dimensions_the_largest_network_counts(make_config, monkeypatch):
    plan = {"spacing": [1.0] * 3, "patch": [16] * 3, "strides": [[1] * 3, [2] * 3, [2] * 3]}
    plans = {"US": plan | {"kernels": [[1] * 3] * 3}, "MR": plan | {"kernels": [[3] * 3] * 3}}
    config = make_config("us-a", data={"dimensions": 3}, plans=plans)
    sizes = {id(plan): 1000 * number for number, plan in enumerate(config.plans.values(), 1)}
    monkeypatch.setattr(limits, "network_bytes", lambda _, plan: sizes[id(plan)])
    assert job_bytes("server", config) == MAX_HEAD + 10 * MARKS + 8080  # 1.01 · 4 · 2000


@pytest.mark.parametrize("text", ["not = toml =", 'strategy = "none"', None])
def test_a_job_that_is_none_of_flames_gets_the_engines_limit(tmp_path, text):
    place = tmp_path / "app_us-a" / "config"
    place.mkdir(parents=True)
    if text is not None:
        (place / "federation.toml").write_text(text)
    assert limit_of("server", tmp_path) == ENGINE_BYTES
    assert limit_of("client", tmp_path) == 4 * 2**30, "as the engine itself has it"


@pytest.mark.parametrize("side", ["server", "client"])
def test_no_message_that_would_be_used_is_over_the_limit(make_config, monkeypatch, side):
    monkeypatch.setattr(limits, "network_bytes", lambda *_: 100_000)
    most = MODELS[side] * 100_000
    chance = np.random.default_rng(3)
    parts = np.array_split(chance.integers(0, 256, most, np.uint8), limits.SECTIONS)
    sections = {f"part {number}": {"a": part} for number, part in enumerate(parts)}
    head = {"facts": "x" * (MAX_HEAD - 10_000)}
    message = encode(head, sections)
    decode(message, most_bytes=most)
    assert len(message) <= job_bytes(side, make_config("us-a"))


def test_a_job_process_knows_its_limit_before_it_opens_a_line(make_config, tmp_path, monkeypatch):
    job(tmp_path, make_config("us-a"))
    seen = []

    def main(main_func, run_dir, args):
        seen.append((os.environ[LIMIT], socket_conn.MAX_FRAME_SIZE, run_dir))
        return 0

    worker = SimpleNamespace(
        parse_arguments=lambda: SimpleNamespace(workspace=str(tmp_path), job_id="job"),
        mpm=SimpleNamespace(run=main),
        main=None,
    )
    monkeypatch.setattr(launcher.importlib, "import_module", lambda _: worker)
    monkeypatch.setattr(launcher, "_end_with", lambda _: None)
    monkeypatch.setattr(limits, "ENGINE_BYTES", 1000)
    monkeypatch.setattr(socket_conn, "MAX_FRAME_SIZE", socket_conn.MAX_FRAME_SIZE)
    monkeypatch.setattr(cell, "_is_server_job_cell", cell._is_server_job_cell)
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setenv(LIMIT, "5")
    with pytest.raises(SystemExit):
        launcher.run_job("client", [], {})
    limit = limit_of("client", tmp_path / "job")
    assert limit > 1000
    assert seen == [(str(limit), ENGINE_BYTES, str(tmp_path / "job"))]


@pytest.mark.parametrize("goes_on", [False, True])
def test_no_site_ends_the_servers_job_by_refusing_what_it_is_sent(monkeypatch, goes_on):
    def end(code):
        raise SystemExit(code)

    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(cell, "_is_server_job_cell", cell._is_server_job_cell)
    if goes_on:
        outlive_refusals()
    said = {
        StreamHeaderKey.STREAM_REQ_ID: "unknown",
        StreamHeaderKey.ERROR_MSG: "too large",
        StreamHeaderKey.ERROR_TYPE: "BlobSizeError",
    }
    job = SimpleNamespace(fqcn="server.job")
    own = SimpleNamespace(
        requests_dict={},
        logger=logging.getLogger("test"),
        my_info=job,
        core_cell=SimpleNamespace(my_info=job),
    )
    refused = Future()
    refused.set_exception(BlobSizeError("too large"))
    for hear in (
        lambda: cell.Cell._process_stream_error(own, Message(said)),
        lambda: cell.Adapter._handle_reply_stream_done(own, refused),
    ):
        with nullcontext() if goes_on else pytest.raises(SystemExit):
            hear()


def test_a_fork_of_the_warm_process_takes_its_own_limit(tmp_path):
    """Not the engine's, which the process that it is a fork of was started with."""
    kit = Kit(tmp_path, "site", "us-a", "tests", "localhost:1")
    (tmp_path / "warm.py").write_text(WARM)
    words = [sys.executable, str(tmp_path / "warm.py")]
    done = subprocess.run(
        words, capture_output=True, text=True, check=True, env=engine_environment(kit)
    )
    assert done.stdout == "123456789\n", done


@pytest.mark.parametrize("more", [0, 1])
def test_the_engine_refuses_by_what_a_message_says_it_has(tmp_path, more):
    kit = Kit(tmp_path, "server", "server", "tests", "localhost:1")
    words = [sys.executable, "-c", REFUSED, str(ENGINE_BYTES + more)]
    done = subprocess.run(
        words, capture_output=True, text=True, check=True, env=engine_environment(kit)
    )
    assert (f"exceeds configured limit {ENGINE_BYTES}" in done.stdout) == bool(more), done


def test_a_frame_is_refused_by_its_first_bytes(monkeypatch):
    monkeypatch.setattr(socket_conn, "MAX_FRAME_SIZE", socket_conn.MAX_FRAME_SIZE)
    limit_frames()
    here, there = socket.socketpair()
    with here, there:
        connection = SimpleNamespace(sock=here, name="a line")
        connection.read_into = lambda *given: socket_conn.SocketConnection.read_into(
            connection, *given
        )
        first = bytearray(PREFIX_LEN)
        Prefix(length=ENGINE_BYTES + 1).to_buffer(first, 0)
        there.sendall(first)
        there.shutdown(socket.SHUT_WR)
        with pytest.raises(CommError, match="Frame exceeds limit"):
            socket_conn.SocketConnection.read_frame(connection)

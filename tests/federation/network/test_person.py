"""What a person meets who follows a run from a desk whose disk is full."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("nvflare", reason="needs the extra 'network'")

from nvflare.fuel.flare_api.api_spec import NoConnection, SessionClosed

from flames.errors import NotWritten
from flames.federation.network import follow
from flames.federation.network import person as person_module
from flames.federation.network.person import Person, Unreachable


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Session:
    """Stands for the engine's, which downloads a finished run."""

    def download_job_result(self, job, scratch):
        folder = Path(scratch) / job / "finished"
        folder.mkdir(parents=True)
        (folder / "config.toml").write_text("seed = 0", encoding="utf-8")
        return folder.parent


def test_a_finished_run_that_finds_no_space_here_is_fetched_later(tmp_path, monkeypatch):
    person = Person(None)
    person.session = Session()
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copytree", full)
        with pytest.raises(NotWritten, match=f"cannot write {tmp_path}: No space left"):
            person.fetch_finished("job", tmp_path)
    assert list(tmp_path.iterdir()) == []
    person.fetch_finished("job", tmp_path)
    assert (tmp_path / "config.toml").read_text(encoding="utf-8") == "seed = 0"


def test_a_line_that_breaks_beside_a_full_disk_is_tried_again(tmp_path, monkeypatch):
    """The engine writes files when it connects."""
    asked = []

    class Desk:
        def ask(self, *_):
            asked.append(len(asked))
            if len(asked) < 3:
                raise Unreachable(SimpleNamespace(server="here"), "no answer")
            events = [{"event": "began", "text": "it began"}]
            run = {"status": "finished", "jobs": ["job"]}
            return {"events": events, "run": run, "desk": {}}

        def connect(self):
            full()

        def fetch_finished(self, job, out):
            assert (job, out) == ("job", tmp_path)

    monkeypatch.setattr(follow, "LOOK_SECONDS", 0.0)
    ticket = follow.Ticket("run", "job", "kit")
    assert follow._follow(Desk(), ticket, tmp_path, lambda _: None).path == tmp_path
    assert len(asked) == 3


def test_a_server_that_takes_long_to_come_back_is_asked_until_it_does(tmp_path, monkeypatch):
    """As where its machine starts anew: who follows a run connects many times in vain."""
    found = []

    class Api:
        def server_execute(self, command):
            assert command == "flames_look run 0"
            if not found:
                raise SessionClosed("the server is gone")
            content = {"run": {"status": "finished", "jobs": ["job"]}, "events": [], "desk": {}}
            return {"data": [{"type": "dict", "data": content}]}

    def connect(*_, **__):
        found.append(len(found))
        if len(found) < 4:
            raise NoConnection("connection refused")
        return back

    back = Session()
    back.api, back.close = Api(), lambda: None
    monkeypatch.setattr(follow, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(person_module, "check_identity", lambda _: None)
    monkeypatch.setattr(person_module, "new_secure_session", connect)
    person = Person(SimpleNamespace(server="here", name="lead", path=tmp_path))
    person.session = SimpleNamespace(api=Api(), close=lambda: None)
    ticket = follow.Ticket("run", "job", "kit")
    assert follow._follow(person, ticket, tmp_path, lambda _: None).path == tmp_path
    assert len(found) == 4
    assert (tmp_path / "config.toml").exists()

"""Revoking, renewing and copying kits with real processes over mutual TLS."""

from __future__ import annotations

import shutil

import pytest

pytest.importorskip("nvflare", reason="needs the extra 'network'")

from consortium_processes import Processes, wait_until

from flames.federation.network.membership import renew, revoke

pytestmark = pytest.mark.slow


@pytest.fixture
def processes(tmp_path, site_stores):
    made = Processes(tmp_path, {name: site_stores[name] for name in ("us-a", "us-b")})
    made.found()
    yield made
    made.stop()


def test_a_running_server_turns_away_who_was_revoked_renewed_or_copied(processes):
    def told(words, kit="server"):
        return any(words in text for text in processes.events(kit))

    def awaits(words, kit="server", seconds=300):
        wait_until(lambda: told(words, kit), seconds, f"{words}\n{processes.say()}")

    old = shutil.copytree(processes.kits / "sites" / "us-a", processes.folder / "old")
    processes.start()
    awaits("us-a is connected")
    awaits("us-b is connected")
    revoke(processes.kits, "us-b", "left the trial")
    awaits("us-b is revoked since")
    awaits("us-b is not connected any more")
    awaits("the server shut this site out: us-b is revoked since", "sites/us-b")
    awaits("the server does not take this site in: us-b is revoked since", "sites/us-b")

    words = ("site", "start", "--kit", old, "--store", processes.stores["us-a"].path)
    processes.running["copy"] = processes.flames(*words, log="copy")
    awaits("us-a is here already")
    awaits("does not take this site in: us-a is here already", "../old")
    renew(processes.kits, "us-a")
    awaits("the certificate of us-a was replaced on")
    awaits("us-a is not connected any more")
    processes.kill("copy")
    processes.kill("us-a")
    before = sum("us-a is connected" in text for text in processes.events("server"))
    processes.start_site("us-a")
    wait_until(
        lambda: sum("us-a is connected" in t for t in processes.events("server")) > before,
        300,
        processes.say(),
    )
    status = processes.flames("server", "status", "--kit", processes.person, log="status")
    assert status.wait(timeout=300) == 0, processes.say()
    said = (processes.folder / "status.log").read_text()
    assert "site us-b (US of organ): revoked" in said
    assert "refused" in said
    revoke(processes.kits, "lead@example.org")
    refused = processes.flames("server", "status", "--kit", processes.person, log="person")
    assert refused.wait(timeout=300) == 2, processes.say()
    assert "lead@example.org is revoked since" in "".join(processes.events("server"))
    assert "is revoked since" in (processes.folder / "person.log").read_text()

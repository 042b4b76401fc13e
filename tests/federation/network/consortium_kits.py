"""A consortium of two sites and a person, as files: what tests of its members share."""

from __future__ import annotations

import datetime

PERSON = "lead@example.org"
TOML = f"""
name = "tests"
server = "localhost:8102"
valid-days = 30
[[sites]]
name = "us-a"
modality = "US"
organ = "breast"
[[sites]]
name = "us-b"
modality = "US"
organ = "breast"
[[people]]
name = "{PERSON}"
"""


class Clock:
    def __init__(self):
        self.now = datetime.datetime.now(datetime.UTC).timestamp()

    def __call__(self):
        return self.now


def crt(kits, name):
    folder = "people" if "@" in name else "sites"
    return (kits / folder / name / "startup" / "client.crt").read_bytes()


def comes(porter, kits, name, certificate=None):
    """Register as the engine does; return why it is turned away."""
    kind = "person" if "@" in name else "site"
    origin = "_admin_1" if kind == "person" else name
    certificate = certificate or crt(kits, name)
    why = porter.register(kind, name, origin, certificate)
    if why is None:
        porter.admit(name, origin, certificate, f"token of {name}")
    return why


def contents(folder):
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def words(porter):
    return [event["why"] for event in porter.journal.read()]

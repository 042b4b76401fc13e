"""Updates that are wrong in one place: none may stop the server or count in the round."""

from __future__ import annotations

import copy
import random

import numpy as np
import pytest

from flames.federation.network.messages import decode, encode
from flames.federation.network.tasks import as_task, encode_update

pytestmark = pytest.mark.usefixtures("small_network")

ODD = [None, -1, 2**70, 1e308, "", "own", "Q" * 9, [], [[]], {}, {"a": {}}, True]
DTYPES = ["float16", "float64", "int8", "uint8", "int64", "uint32"]


def wrong_facts(facts, sections, chance):
    """Replace one value somewhere in the head by an odd one, or leave it out."""
    place = facts
    while True:
        key = chance.choice(sorted(place) if isinstance(place, dict) else range(len(place)))
        inner = place[key]
        if not isinstance(inner, dict | list) or not inner or chance.random() < 0.3:
            break
        place = inner
    if isinstance(place, dict) and chance.random() < 0.3:
        del place[key]
    else:
        place[key] = chance.choice([odd for odd in ODD if odd != place[key]])
    return encode(facts, sections)


def wrong_arrays(facts, sections, chance):
    """Change one array's name, shape, dtype or numbers."""
    part = sections[chance.choice([name for name in sections if sections[name]])]
    name = chance.choice(sorted(part))
    array = part[name]
    fate = chance.randrange(6)
    if fate == 0:
        del part[name]
    elif fate == 1:
        part[f"{name}x"] = part.pop(name)
    elif fate == 2:
        part[name] = np.concatenate([array.reshape(-1), array.reshape(-1)[:1]])
    elif fate == 3:
        kinds = [kind for kind in DTYPES if kind != str(array.dtype)]
        part[name] = np.zeros(array.shape, chance.choice(kinds))
    elif fate == 4:
        part[name] = np.full(array.shape, np.nan, np.float32)
    else:
        part[name] = np.full(array.shape, 1e30, np.float32)
    return encode(facts, sections)


def wrong_bytes(message, chance):
    """Flip, cut, repeat or replace some bytes."""
    place = chance.randrange(len(message))
    fate = chance.randrange(4)
    if fate == 0:
        return (
            message[:place]
            + bytes([message[place] ^ (1 << chance.randrange(8))])
            + message[place + 1 :]
        )
    if fate == 1:
        return message[:place]
    if fate == 2:
        return message + message[place:]
    return bytes(chance.randrange(256) for _ in range(chance.randrange(200)))


def counts_beside_the_weights(message, right):
    """Return whether only what nobody can check or needs is another, such as a loss."""
    try:
        facts, sections = decode(message)
    except Exception:
        return False
    differs = "x" in right[0]["letters"] or right[0]["letters"] != right[0]["letters"].lower()
    keys = ("round", "letters", "base") if differs else ("round", "letters")
    if not isinstance(facts.get("base"), str):
        return False
    same = {key: facts.get(key) for key in keys}
    return same == {key: right[0][key] for key in same} and all(
        sections.get(part, {}).keys() == arrays.keys()
        and all(np.array_equal(sections[part][name], arrays[name]) for name in arrays)
        for part, arrays in right[1].items()
    )


@pytest.mark.parametrize(
    "count", [pytest.param(120, id="few"), pytest.param(2000, id="many", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("wire", [{}, {"encoding": "int8", "delta": True, "top-k": 0.5}])
def test_malformed_updates_are_set_aside_and_told(make_hall, wire, count, monkeypatch):
    monkeypatch.setattr("flames.federation.network.job_state.MOST_LINES", count + 50)
    hall = make_hall("us-a", "us-b", rounds=3, network={"rounds-per-job": 1}, wire=wire)
    for _ in range(2):
        assert hall.job("us-a", "us-b")[0] == "next"
    desk = hall.desk(["us-a", "us-b"])
    for seat in desk.job.seats.values():
        seat.status = "here"
    client = hall.station("us-b", desk).client
    ask = encode({"holds": client.rounds.holds()})
    task = as_task(*decode(desk.handle("us-b", "ask", ask)), client.rounds.held)
    reply, _ = client.answer(task)
    right = encode_update(reply, 3, *client.rounds.outgoing(3), hall.config.wire)
    head = decode(right)
    assert bool(head[1].get("weights.masks")) is bool(wire)
    chance = random.Random(11)
    tried, harmless = 0, 0
    before = len(hall.told("aside")) + len(hall.told("late"))
    while tried < count:
        facts, sections = copy.deepcopy(head)
        kind = chance.randrange(3)
        if kind == 0:
            message = wrong_facts(facts, sections, chance)
        elif kind == 1:
            message = wrong_arrays(facts, sections, chance)
        else:
            message = wrong_bytes(right, chance)
        if counts_beside_the_weights(message, head):
            harmless += 1
            continue
        answer, _ = decode(desk.handle("us-b", "update", message))
        assert answer["do"] in ("again", "wait", "drop"), decode(message)[0]
        assert desk.job.server.answered == frozenset()
        tried += 1
    assert len(hall.told("aside")) + len(hall.told("late")) == before + tried
    assert harmless < tried
    desk.job.seats["us-b"].failed_round = 0
    assert decode(desk.handle("us-b", "update", right))[0]["do"] == "go"
    assert desk.job.server.answered == {"us-b"}

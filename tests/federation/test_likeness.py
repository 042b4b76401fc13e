"""What rounds say of who is alike: the second replaces the first, strangers are asked again."""

import numpy as np
import pytest

from flames.federation.beginning import make_strategy
from flames.federation.budget import Budget, Member
from flames.federation.exchange import Reply, begun_with
from flames.federation.likeness import Likeness
from flames.federation.server import Server
from flames.models.weights import load_arrays


def pairs(**values):
    """Return symmetric pairs: ``ab=0.1`` is a with b."""
    found = {}
    for (one, other), value in values.items():
        found.setdefault(one, {})[other] = value
        found.setdefault(other, {})[one] = value
    return found


def test_the_second_round_replaces_the_first():
    first = Likeness().after(pairs(ab=0.02, ac=0.02, bc=0.01))
    assert first.affinity == pairs(ab=1.0, ac=1.0, bc=0.5)
    second = first.after(pairs(ab=0.5, ac=0.0625, bc=0.25))
    assert second.affinity == pairs(ab=1.0, ac=0.0, bc=0.5)


def test_friends_stay_friends_and_strangers_are_asked_again():
    known = Likeness().after(pairs(ab=1.0, ac=1.0, bc=1.0)).after(pairs(ab=0.1, ac=0.0, bc=0.0))
    assert known.affinity == pairs(ab=1.0, ac=0.0, bc=0.0)
    known = known.after(pairs(ab=-0.1, ac=0.1, bc=0.0))
    assert known.affinity["a"]["b"] == 1.0  # pulled apart by their common model
    assert known.affinity["a"]["c"] == 1.0  # means: ab 0, ac 0.05
    assert known.affinity["b"]["c"] == 0.0


def test_who_missed_a_round_keeps_what_was_known():
    known = Likeness().after(pairs(ab=1.0, ac=0.5, bc=0.5)).after(pairs(ab=0.1))
    assert known.affinity == pairs(ab=1.0, ac=0.5, bc=0.5)
    assert not known.complete
    assert known.after(pairs(ab=0.1, ac=0.1, bc=0.1)).complete


def test_who_joins_later_is_not_judged():
    known = Likeness().after(pairs(ab=1.0)).after(pairs(ab=0.1, ac=-0.1, bc=-0.1))
    assert known.affinity == pairs(ab=1.0)


def test_networks_are_not_held_against_each_other():
    known = Likeness().after(pairs(ab=0.5), pairs(xy=0.01))
    assert known.affinity == pairs(ab=1.0, xy=1.0)
    assert known.after(pairs(ab=0.5), pairs(xy=-0.01)).affinity == pairs(ab=1.0, xy=0.0)


def test_who_hands_on_is_still_what_others_are_measured_by():
    first = Likeness().after(pairs(ab=0.5, xy=0.01))
    known = first.after(pairs(ab=0.5, xy=0.01))
    assert known.affinity == pairs(ab=1.0, xy=0.0)
    assert known.after(pairs(xy=0.01), beside=[["a", "b"]]).affinity == known.affinity
    assert known.after(pairs(xy=0.2), beside=[["a", "b"]]).affinity["x"]["y"] == pytest.approx(0.21)


def test_read_again_as_it_was_written(tmp_path):
    known = Likeness().after(pairs(ab=1.0, ac=0.0)).after(pairs(ab=0.25, ac=0.125))
    known = known.inviting({"d": ["a"]}).welcoming(["d"]).inviting({"e": ["a", "b"]})
    known.save(tmp_path)
    read = Likeness.read(tmp_path)
    assert (read.affinity, read.guests, read.back) == (known.affinity, {"e": ["a", "b"]}, ("d",))
    after = pairs(ab=0.5, ac=0.5)
    assert read.after(after) == known.after(after)
    assert Likeness.read(tmp_path / "missing") == Likeness()


def server_of(names, size, make_config, folder, *, first_steps=2):
    """Return a server of three rounds of `flames` for weights that begin as ``size`` zeros.

    A round has two steps, so that of ``first_steps`` depends whether the third tells anything.
    """
    start = {"w": np.zeros(size, np.float32)}
    strategy = {"name": "flames", "first-steps": first_steps}
    config = make_config("us-a", rounds=3, strategy=strategy)
    return Server(
        [Member(name, "US", 1) for name in names],
        config=config,
        strategy=make_strategy(config),
        start=lambda _: start,
        folder=folder,
    )


@pytest.mark.parametrize("first_steps", [2, 3])
def test_a_server_counts_movements_from_where_each_client_began(make_config, tmp_path, first_steps):
    names = ("a", "b", "c")
    server = server_of(names, 2, make_config, tmp_path, first_steps=first_steps)
    held = {}

    def play(**moves):
        for name in names:
            download = server.task(name).download
            chosen, alpha = ("mixture", 0.5) if download.use == "mix" else ("own", None)
            chosen = chosen if server.finished else None
            begun = begun_with(download, held.get(name), chosen, alpha)
            moved = {"w": begun["w"] + np.array(moves[name], np.float32)}
            server.accept(
                Reply(name, "US", 10, {}, alpha, chosen, None, 1, 0.5, 0.1, {}, validation_cases=1),
                moved,
            )
            held[name] = moved
        server.close_round()
        return server.affinity()

    first = play(a=[1, 0], b=[1, 0], c=[0, 1])
    assert (first["a"]["b"], first["a"]["c"]) == (1.0, 0.0)
    second = play(a=[1, 0], b=[0, 1], c=[1, 0])  # the mixtures of a and b were (1, 0)
    assert (second["a"]["b"], second["a"]["c"], second["b"]["c"]) == (0.0, 1.0, 0.0)
    third = play(a=[1, 0], b=[1, 0], c=[1, 0])  # means of two rounds: 0.5 with b, 1 with c
    if first_steps > 2:
        assert third == second, "short rounds after the first two tell nothing"
        return
    assert (third["a"]["b"], third["a"]["c"], third["b"]["c"]) == (0.5, 1.0, 0.5)
    assert not (tmp_path / "round-0003" / "begun").exists()
    last = play(a=[0, 0], b=[0, 0], c=[0, 0])  # the closing round, without training
    assert last == third


@pytest.mark.parametrize(("own", "tells"), [({"a": 20, "b": 20}, True), ({"b": 2}, False)])
def test_rounds_are_as_long_as_sites_say(make_config, own, tells):
    config = make_config("us-a", rounds=9, training={"local-steps": 5 if tells else 10})
    members = {name: Member(name, "US", 1, own.get(name)) for name in ("a", "b")}
    budget = Budget(members, config, None)
    assert [budget.tells_who_is_alike(number) for number in (2, 3)] == [True, tells]


def test_a_server_model_of_other_clients_begins_anew(make_config, tmp_path):
    cases = {"a": 10, "b": 10, "c": 15, "d": 10}
    server = server_of(cases, 3, make_config, tmp_path)
    held = {}

    def play(score, **moves):
        for name, number in cases.items():
            download = server.task(name).download
            chosen, alpha = ("mixture", 0.5) if download.use == "mix" else ("own", None)
            chosen = chosen if server.finished else None
            begun = begun_with(download, held.get(name), chosen, alpha)
            held[name] = {"w": begun["w"] + np.array(moves[name], np.float32)}
            found = {"model": score.get(name, 0.0)}
            reply = Reply(name, "US", number, found, alpha, chosen, None, 1, 0.5, 0.1, {}, 1)
            server.accept(reply, held[name])
        records = server.close_round()
        return next((r for r in records if r["kind"] == "server"), None)

    x, y, z = [1, 0, 0], [0, 1, 0], [0, 0, 1]
    assert play({}, a=x, b=y, c=z, d=z) is None
    second = play({"a": 0.1, "b": 0.1, "c": 0.9, "d": 0.9}, a=x, b=x, c=z, d=y)
    assert (second["circle"], second["validation"], second["best"]) == (["c", "d"], 0.9, 0.9)
    third = play({"a": 0.2, "b": 0.4, "c": 0.0, "d": 0.0}, a=x, b=x, c=z, d=y)
    assert (third["circle"], third["validation"], third["best"]) == (["a", "b"], 0.3, 0.3)
    kept = load_arrays(tmp_path / "round-0003" / "best" / "US.safetensors")
    np.testing.assert_allclose(kept["w"], [1.5, 0.5, 0.0])
    fourth = play({"a": 0.1, "b": 0.1, "c": 0.0, "d": 0.0}, a=x, b=x, c=z, d=y)
    assert (fourth["circle"], fourth["validation"], fourth["best"]) == (["a", "b"], 0.1, 0.3)


def test_affinities_are_in_the_order_of_names_whoever_came_first(make_server, monkeypatch):
    server = make_server()
    came = Likeness({"c": {"b": 0.0, "a": 1.0}, "a": {"c": 1.0, "b": 0.5}, "b": {}})
    monkeypatch.setattr(server.before, "likeness", lambda: came)
    found = server.affinity()
    assert found == came.affinity
    assert list(found) == ["a", "b", "c"]
    assert [list(peers) for peers in found.values()] == [["b", "c"], [], ["a", "b"]]

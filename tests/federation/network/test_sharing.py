"""What people are told of who receives a site's weights, and whether it is so."""

from __future__ import annotations

import numpy as np
import pytest

from flames.federation.beginning import make_strategy
from flames.federation.network.journal import Journal
from flames.federation.network.policy import Policy
from flames.federation.network.settings import SiteSettings, save_site_settings
from flames.federation.network.sharing import allowed_to_others, received_by_others, told_to_all
from flames.federation.network.status import site_report, site_words

pytestmark = pytest.mark.usefixtures("small_network")
ONE = "such a mean may be of this site alone"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"strategy": {"name": "local"}}, "no other site receives its weights"),
        ({"strategy": {"relay": 1}}, f"other sites receive means of weights, and {ONE}"),
        ({"strategy": {"name": "fedavg"}}, f"other sites receive means of weights, and {ONE}"),
        ({"training": {"local-steps": 16}}, f"other sites receive means of weights, and {ONE}"),
        (
            {"training": {"local-steps": 10}},
            "the next site in turn may receive its weights as it trained them; other sites",
        ),
        (
            {"training": {"local-steps": 5}},
            "the next site in turn may receive its weights and its optimiser's moments as it",
        ),
    ],
)
def test_what_others_receive_in_a_run(make_config, given, words):
    assert received_by_others(make_config(**given)).startswith(words)


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (Policy(), "its policy lets the next site in turn receive its weights and its optimiser's"),
        (Policy(moments=False), "its policy lets the next site in turn receive its weights as it"),
        (
            Policy(relay=False),
            "its policy refuses runs that hand weights on (relay = false); other",
        ),
        (Policy(strategies=("fedavg",)), "its policy allows no strategy that hands weights on; "),
        (Policy(strategies=("local",)), "no other site receives its weights: its policy allows"),
    ],
)
def test_what_a_policy_lets_others_receive(policy, words):
    said = allowed_to_others(policy)
    assert said.startswith(words)
    assert (ONE in said) == (policy.strategies != ("local",))


def test_two_sites_of_a_modality_are_told_that_each_can_know_the_others_weights(make_config):
    modalities = {"us-a": "US", "us-b": "US", "us-c": "US", "mr-a": "MR", "mr-b": "MR"}

    def told(**strategy):
        config = make_config(strategy=strategy)
        return told_to_all(config, make_strategy(config), modalities)

    pair = "mr-a and mr-b share with nobody else: each can know the other's weights"
    first, second = told()
    assert first.startswith(pair)
    assert second.startswith("sites of US that are alike may receive the weights")
    assert second.endswith("(strategy.relay = 8)")
    assert [text.startswith(pair) for text in told(relay=1)] == [True]
    assert told(name="fedavg") == []
    assert told(name="local") == []


def test_without_turns_one_of_two_sites_still_receives_the_others_weights(make_hall):
    """What the journal says of two sites is so, and both are told before the first round."""
    hall = make_hall("us-a", "us-b", strategy={"relay": 1}, network={"rounds-per-job": 1})
    assert hall.job("us-a", "us-b")[0] == "next"
    desk = hall.desk(["us-a", "us-b"])
    server = desk.job.server
    received = server.task("us-b").download.arrays
    sent = server.before.updates()["us-a"].arrays
    assert received.keys() == sent.keys()
    assert all(np.array_equal(received[name], sent[name]) for name in sent)
    (told,) = hall.told("sharing")
    assert told.startswith("us-a and us-b share with nobody else")
    assert hall.events[0]["text"] == told
    assert hall.job("us-a", "us-b")[0] == "next"
    assert hall.told("sharing") == [told], "once a run"
    for site in ("us-a", "us-b"):
        said = [e["text"] for e in Journal(hall.kit(site).events).read() if e["event"] == "sharing"]
        assert set(said) == {f"in hall other sites receive means of weights, and {ONE}"}


def test_who_approves_a_run_is_shown_what_others_receive(make_hall):
    hall = make_hall("us-a", "us-b")
    hall.policies["us-a"] = Policy(approval=True)
    station = hall.station("us-a", hall.desk(["us-a"]))
    assert station.guard.waits(None) is not None
    kit = hall.kit("us-a")
    kit.save()
    save_site_settings(kit, SiteSettings(hall.stores["us-a"].path, hall.policies["us-a"]))
    words = site_words(site_report(kit.path)).splitlines()
    assert words[1].startswith("  its policy lets the next site in turn receive its weights and")
    run = next(i for i, line in enumerate(words) if line.startswith("  run hall: "))
    assert words[run + 1].startswith("    the next site in turn may receive its weights and its")
    assert "waits: a person at the site must approve" in words[run + 2]

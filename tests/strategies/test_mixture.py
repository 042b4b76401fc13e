from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from flames.strategies import Download
from flames.strategies.mixture import Candidate, alphas, candidates, choose, keep_statistics

OWN = {"w": np.array([1.0])}
SENT = {"w": np.array([5.0])}


def values(download, own=OWN, count=3):
    ways = candidates(download, own, count=count)
    return [(way.name, way.alpha, round(float(way.arrays["w"][0]), 6)) for way in ways]


def test_alphas_begin_at_one_over_n_and_stop_short_of_one():
    assert alphas(4, 3) == [0.25, 0.5, 0.75]
    assert alphas(3, 2) == pytest.approx([1 / 3, 2 / 3])


def test_keep_is_own_weights():
    assert values(Download(None, use="keep")) == [("own", None, 1.0)]


def test_replace_is_what_was_sent():
    assert values(Download(SENT, use="replace")) == [("model", None, 5.0)]


def test_a_client_without_weights_takes_what_was_sent():
    assert values(Download(SENT, use="mix", peers=1), own=None) == [("model", None, 5.0)]


def test_nothing_sent_to_nobody_is_refused():
    with pytest.raises(ValueError, match="no weights"):
        candidates(Download(None, use="keep"), None, count=3)


def test_tuning_tries_model_mixtures_and_own():
    group = {"w": np.array([7.0])}
    download = Download(SENT, use="mix", peers=1, own_share=0.9, model=group)
    assert values(download, count=2) == [
        ("model", None, 7.0),
        ("mixture", 0.9, pytest.approx(1.4)),  # 0.9·1 + 0.1·5
        ("mixture", 0.5, 3.0),
        ("mixture", 0.75, 2.0),
        ("own", None, 1.0),
    ]


def test_the_model_that_the_server_keeps_is_tried_too():
    sent = {"model": {"w": np.array([7.0])}, "best": {"w": np.array([8.0])}}
    mixing = Download(SENT, use="mix", peers=1, own_share=0.5, **sent)
    assert values(mixing, count=2)[:2] == [("model", None, 7.0), ("best", None, 8.0)]
    alone = Download(None, use="keep", **sent)
    assert [name for name, *_ in values(alone)] == ["model", "best", "own"]


def test_an_own_share_that_is_among_the_others_is_tried_once():
    download = Download(SENT, use="mix", peers=1, own_share=0.75)
    assert [alpha for _, alpha, _ in values(download, count=2)] == [0.75, 0.5, None]


def test_fixed_alpha_begins_with_that_mixture_and_lets_the_groups_model_be_scored():
    download = Download(SENT, use="mix", alpha=0.25, peers=1, model={"w": np.array([3.0])})
    assert values(download) == [("mixture", 0.25, 4.0), ("model", None, 3.0)]


def test_statistics_stay_the_clients_own():
    own = {
        "conv.weight": np.array([1.0]),
        "norm.weight": np.array([2.0]),
        "norm.running_mean": np.array([3.0]),
        "norm.running_var": np.array([4.0]),
        "norm.num_batches_tracked": np.array(5),
    }
    sent = {name: value * 10 for name, value in own.items()}
    kept = keep_statistics(sent, own)
    assert [float(kept[name].item()) for name in own] == [10, 20, 3, 4, 5]
    assert float(sent["norm.running_mean"][0]) == 30


def tried(**scores):
    return [Candidate(name, OWN, None, score) for name, score in scores.items()]


def test_last_levels_stay_ones_own_in_every_mixture_that_has_an_own_share():
    own = {name: np.ones(1) for name in ("stem.weight", "upsamples.1.weight", "head.bias")}
    peers = {name: np.full(1, 3.0) for name in own}
    for own_share, head in ((0.5, 1.0), (0.0, 3.0)):
        download = Download(peers, use="mix", peers=1, own_share=own_share, own_head=True)
        first = next(w for w in candidates(download, own, count=2) if w.name == "mixture")
        assert float(first.arrays["stem.weight"][0]) == 3 - 2 * own_share
        assert {float(first.arrays[n][0]) for n in ("upsamples.1.weight", "head.bias")} == {head}
    fixed = replace(download, alpha=0.5, own_head=False)
    (mixture,) = candidates(fixed, own, count=2)
    assert {float(array[0]) for array in mixture.arrays.values()} == {2.0}


def test_a_round_begins_with_the_best_and_the_first_of_equals():
    assert choose(tried(model=0.2, mixture=0.5, own=0.4), sharing=False).name == "mixture"
    assert choose(tried(model=0.5, mixture=0.5, own=0.5), sharing=False).name == "model"
    assert choose(tried(model=0.2, own=0.9), sharing=False).name == "own"


def test_while_sharing_a_round_begins_with_the_first_mixture_whatever_the_scores():
    ways = [
        Candidate("model", OWN, None, 0.8),
        Candidate("mixture", OWN, 0.3, 0.1),
        Candidate("mixture", OWN, 0.5, 0.9),
        Candidate("own", OWN, None, 0.7),
    ]
    assert choose(ways, sharing=True) is ways[1]
    assert choose(ways, sharing=False) is ways[2]
    assert choose(tried(model=0.9, own=0.2), sharing=True).name == "own"

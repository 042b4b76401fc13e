"""What other sites receive of a site's weights, in words for the people who decide on it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from flames.config import RunConfig
from flames.federation.network.policy import Policy
from flames.strategies import Strategy

OF_ONE = "such a mean may be of this site alone"


def received_by_others(config: RunConfig) -> str:
    """Return what other sites receive of a site's weights in a run."""
    if config.strategy.name == "local":
        return "no other site receives its weights"
    means = f"other sites receive means of weights, and {OF_ONE}"
    if not config.hands_on:
        return means
    what = "weights and its optimiser's moments" if config.hands_moments_on else "weights"
    return f"the next site in turn may receive its {what} as it trained them; {means}"


def allowed_to_others(policy: Policy) -> str:
    """Return what a policy lets other sites receive of the site's weights."""
    means = f"other sites may receive means of weights, and {OF_ONE}"
    if policy.strategies == ("local",):
        return "no other site receives its weights: its policy allows the strategy 'local' only"
    if "flames" not in policy.strategies:
        return f"its policy allows no strategy that hands weights on; {means}"
    if not policy.relay:
        return f"its policy refuses runs that hand weights on (relay = false); {means}"
    what = "weights and its optimiser's moments" if policy.moments else "weights"
    return (
        f"its policy lets the next site in turn receive its {what} as it trained them "
        f"(relay = true); {means}"
    )


def told_to_all(config: RunConfig, strategy: Strategy, modalities: Mapping[str, str]) -> list[str]:
    """Return in which groups of a run a site can know the weights of another.

    Args:
        config: The run's.
        strategy: The same, made.
        modalities: Of each site of the run.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for name, modality in modalities.items():
        group = strategy.group_of(modality)
        if group is not None:
            groups[group].append(name)
    told = []
    for group, names in sorted(groups.items()):
        if len(names) == 2:
            first, second = sorted(names)
            told.append(
                f"{first} and {second} share with nobody else: each can know the other's weights, "
                "since a mean is of these two at most"
            )
        elif len(names) > 2 and config.hands_on:
            told.append(
                f"sites of {group} that are alike may receive the weights that the one before has "
                f"just trained (strategy.relay = {config.strategy.relay})"
            )
    return told

"""How large a message may be before the engine takes it in: known from the run's own network.

The engine reserves memory for all that a message says it is as soon as its first part arrives, and
believes up to 4 GB. So it is told a smaller number: a fixed one where it only speaks for itself,
and one by the size of the run's network in the jobs, where weights arrive.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

from flames.config import PlanConfig, RunConfig, load_config
from flames.federation.network.messages import MARKS, MAX_HEAD, PACKED
from flames.federation.network.run_book import CONFIG_FILE

Side = Literal["server", "client"]
ENGINE_BYTES = 64 * 2**20
"""Of a message to an engine itself, and of one frame on a line. Its own messages have some kB, and
those of jobs travel in parts of 1 MB."""
LIMIT = "NVFLARE_STREAMING_MAX_BLOB_SIZE"
"""Where the engine looks for its limit, in the environment."""
MODELS: dict[Side, int] = {"server": 4, "client": 12}
"""Times the bytes of the network that the arrays of a message may have. At the server: control
variates are as large as weights, and some numbers need more bytes. At a site: at most three sets of
weights, each with control variates as large."""
UNKNOWN: dict[Side, int] = {"server": ENGINE_BYTES, "client": 4 * 2**30}
"""Where a run's network cannot be made: the server's job ends then, and a site still has to hear of
the run that it cannot take part."""
SECTIONS = 10
"""Sections of arrays that a message has, at most."""


def network_bytes(config: RunConfig, plan: PlanConfig | None) -> int:
    """Return the bytes of all arrays of a run's network."""
    import torch

    from flames.models import make_model
    from flames.models.weights import model_arrays

    plain = config.model.model_copy(update={"pretrained": False, "weights": None})
    with torch.random.fork_rng(devices=[]):
        network = make_model(plain, plan)
    return sum(array.nbytes for array in model_arrays(network).values())


def job_bytes(side: Side, config: RunConfig) -> int:
    """Return the most bytes of a message that a job of a run could use."""
    plans = list(config.plans.values()) if config.data.dimensions == 3 else [None]
    largest = max((network_bytes(config, plan) for plan in plans), default=0)
    return MAX_HEAD + SECTIONS * MARKS + round(PACKED * MODELS[side] * largest)


def limit_of(side: Side, job: Path) -> int:
    """Return the limit for the job in the engine's folder ``job``.

    Where its configuration cannot be used the job says why by itself.
    """
    try:
        (place,) = job.glob(f"app_*/config/{CONFIG_FILE}")
        return max(ENGINE_BYTES, job_bytes(side, load_config(place)))
    except Exception as error:
        logging.getLogger(__name__).warning("the size of messages is not known: %r", error)
        return UNKNOWN[side]

"""The one way out of a site: every message is checked and logged here before it leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flames.federation.network.guard import Refusal
from flames.federation.network.messages import peek
from flames.federation.network.outgoing import OutgoingLog
from flames.federation.network.policy import CASE_NAMES, CASE_SCORES, PERSONAL_WEIGHTS, Policy

WORDS = {
    "weights": "weights",
    "weights.scales": "weights",
    "weights.masks": "weights",
    "weights.moments": "the optimiser's moments",
    "letters": "how weights are coded",
    "base": "digest of earlier weights",
    "holds": "digests of earlier weights",
    "kept": PERSONAL_WEIGHTS,
    "rows": CASE_SCORES,
    "aggregates": "mean scores",
    "calibration": "reliability table",
    "seconds": "seconds",
    "cause": "words",
    "reason": "words",
    "loss": "training loss",
    "done": "steps done",
    "for": "words",
    "facts.splits": CASE_NAMES,
    "facts.cases": "counts of cases",
    "facts.tumour_free": "counts of cases",
    "facts.cases_digest": "digest of the store",
    "facts.fingerprint": "fingerprint",
    "facts.packages": "versions",
    "facts.flames": "versions",
    "facts.protocol": "versions",
    "facts.config": "digest of the configuration",
    "facts.modality": "modality",
    "facts.organ": "organ",
    "facts.made_up": "whether images are made up",
    "reply.client": "name",
    "reply.modality": "modality",
    "reply.num_examples": "counts of cases",
    "reply.validation_cases": "counts of cases",
    "reply.validation": "validation scores",
    "reply.best": "validation scores",
    "reply.curves": "presence curves",
    "reply.best_round": "best round",
    "reply.chosen": "what it began with",
    "reply.learning_rate": "learning rate",
    "reply.alpha": "share α",
    "reply.loss": "training loss",
    "reply.seconds": "seconds",
}
"""What the log calls a part of a message; a part that is not here goes by its own name."""


@dataclass
class Gate:
    """Sends a site's messages of one run."""

    send: Callable[[str, bytes], bytes | None]
    """Sends one message to the server and returns its answer, or None when none came."""
    log: OutgoingLog
    run: str = ""
    policy: Policy = field(default_factory=Policy)

    def __call__(self, topic: str, message: bytes) -> bytes | None:
        """Return the server's answer, or None when none came.

        Raises:
            Refusal: The policy does not let the message leave.
            FlamesError: It is damaged, or the log cannot be written; nothing has left then.
        """
        facts, sections = peek(message)
        holds = contents(facts, sections)
        reason = self.policy.forbids(holds, len(message))
        if reason:
            raise Refusal(reason)
        number = facts.get("round")
        self.log.write(topic, message, run=self.run, server_round=number, holds=holds)
        return self.send(topic, message)


def contents(facts: Mapping[str, Any], sections: Iterable[str]) -> list[str]:
    """Return what is in a message, in words; what is empty is left out.

    >>> contents({"round": 3, "reply": {"validation": {"own": 0.5}, "alpha": None}}, ["weights"])
    ['validation scores', 'weights']
    """
    found = set(sections)
    for key, value in facts.items():
        inner = value if key in ("facts", "reply") and isinstance(value, Mapping) else None
        parts = {key: value} if inner is None else {f"{key}.{k}": v for k, v in inner.items()}
        found |= {part for part, content in parts.items() if content not in (None, "", [], {})}
    found.discard("round")
    return sorted({WORDS.get(part, part) for part in found})

"""Score models on the test cases of stores, one case in memory at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter
from torch import nn

from flames.config import EvaluationConfig, ModelConfig, PlanConfig
from flames.data.fingerprint import Fingerprint
from flames.data.store import CaseRecord, SiteStore, Split
from flames.errors import FlamesError
from flames.inference.predict import predict_case
from flames.metrics.calibration import reliability
from flames.metrics.cases import score_case
from flames.metrics.presence import PresenceRule
from flames.models import make_model
from flames.models.precision import Precision
from flames.models.student import tell
from flames.models.weights import NotFinite, load_metadata, load_weights

THRESHOLD = 0.5


@dataclass(frozen=True)
class TrainedModel:
    """A network with its weights, and what it needs to know of its images."""

    name: str
    """Such as ``server:US`` or ``personal:site-a``."""
    kind: str
    """``server`` or ``personal``."""
    modality: str
    """The modality it was trained on, or ``all``."""
    image_size: int
    network: nn.Module
    trained_on: tuple[Fingerprint, ...] = ()
    """One a site; empty for models from before fingerprints."""
    version: str = ""
    """First digits of the digest of its file."""
    presence: PresenceRule = field(default_factory=PresenceRule)
    """What validation cases said of its presence scores."""
    plan: PlanConfig | None = None
    """How it sees volumes in three dimensions; None: slice by slice."""

    @property
    def sides(self) -> tuple[int, ...]:
        """Return the pixels of a square that the network takes, or the voxels of a patch."""
        return (self.image_size, self.image_size) if self.plan is None else self.plan.patch

    def decide(self, probs: np.ndarray, presence: float) -> np.ndarray:
        """Return the mask of one case, bool in its shape: probabilities above one half.

        It is empty where the case's presence score lies below the model's threshold.

        Raises:
            NotFinite: The presence score is not a number.
        """
        if not math.isfinite(presence):
            raise NotFinite(
                f"model {self.name} gives probabilities that are not numbers",
                "take the model of an earlier round, or ask who sent its file for another",
            )
        if presence < self.presence.threshold:
            return np.zeros(probs.shape, bool)
        return np.asarray(probs > THRESHOLD)


@dataclass(frozen=True)
class ScoreOptions:
    """How cases are predicted and judged."""

    batch_size: int
    flip: bool
    nsd_tolerance: float
    split: Split = "test"
    corners: float | None = None
    """Share of each side that a crop at a corner has; None: images are seen whole."""

    @classmethod
    def of(cls, judged: EvaluationConfig, split: Split = "test") -> ScoreOptions:
        """Return how a run predicts and judges, on one side of the split."""
        return cls(judged.batch_size, judged.flip, judged.nsd_tolerance, split)


@dataclass(frozen=True)
class ScoredCase:
    """One row of ``cases.csv``, and the masks for a picture of it."""

    row: dict[str, Any]
    case: CaseRecord
    prediction: np.ndarray
    """Bool, in the case's shape."""
    reliability: np.ndarray
    """Pixels, summed probability and tumour by bin of probability."""


def load_model(path: Path, precision: Precision) -> TrainedModel:
    """Return a model from its file alone: its metadata says which network it is.

    Raises:
        FlamesError: The file is damaged, was not written by a FLAMES run, or has weights that are
            not finite.
    """
    metadata = load_metadata(path)
    try:
        config = ModelConfig.model_validate_json(metadata["network"])
    except (KeyError, ValueError) as error:
        raise _unsaid(path, error) from error
    config = config.model_copy(update={"pretrained": False, "weights": None})
    network = make_model(config, plan_of(path, metadata))
    model = model_of(path, metadata, network)
    load_weights(network, path)
    return replace(model, network=precision.place(network))


def model_of(path: Path, metadata: Mapping[str, str], network: nn.Module) -> TrainedModel:
    """Return a model of what its file says and the network that runs it.

    Raises:
        FlamesError: The file does not say what it is.
    """
    try:
        return TrainedModel(
            name=metadata["name"],
            kind=metadata["kind"],
            modality=metadata["modality"],
            image_size=int(metadata["image_size"]),
            network=network,
            trained_on=_fingerprints(metadata),
            version=metadata.get("version") or sha256(path.read_bytes()).hexdigest()[:12],
            presence=PresenceRule(
                float(metadata.get("presence_threshold", 0)),
                TypeAdapter(tuple[tuple[float, float], ...]).validate_json(
                    metadata.get("presence_calibration", "[]")
                ),
            ),
            plan=plan_of(path, metadata),
        )
    except (KeyError, ValueError) as error:
        raise _unsaid(path, error) from error


def plan_of(path: Path, metadata: Mapping[str, str]) -> PlanConfig | None:
    """Return the plan of a model in three dimensions; None for one that sees slices.

    Raises:
        FlamesError: The file's plan is damaged.
    """
    said = metadata.get("plan", "null")
    try:
        return TypeAdapter(PlanConfig | None).validate_json(said)
    except ValueError as error:
        raise _unsaid(path, error) from error


def _unsaid(path: Path, error: Exception) -> FlamesError:
    return FlamesError(
        f"{path} does not say which network it is: {error}",
        "name a model file that 'flames run' or 'flames export' wrote",
    )


def score_store(
    model: TrainedModel,
    store: SiteStore,
    *,
    site: str,
    precision: Precision,
    options: ScoreOptions,
    progress: Callable[[int], None] | None = None,
) -> Iterator[ScoredCase]:
    """Yield each case of the split with its scores, volumes scored as volumes.

    Raises:
        FlamesError: The store's modality is not the model's, or its probabilities are no numbers.
    """
    check_suits(model, store)
    tell(model.network, store.modality)
    for done, case in enumerate(store.split(options.split)):
        probs, presence = predict_case(
            model.network,
            store,
            case,
            image_size=model.image_size,
            precision=precision,
            batch_size=options.batch_size,
            flip=options.flip,
            plan=model.plan,
            corners=options.corners,
        )
        prediction = model.decide(probs, presence)
        label = np.asarray(store.label(case.case_id))
        score = score_case(
            prediction,
            label,
            spacing=case.spacing,
            spacing_unit=case.spacing_unit,
            presence_score=presence,
            nsd_tolerance=options.nsd_tolerance,
        )
        row = {
            "model": model.name,
            "model_kind": model.kind,
            "site": site,
            "modality": store.modality,
            "organ": store.organ,
            "hospital": case.hospital,
            "case_id": case.case_id,
            "group": case.group,
            **score.as_row(),
        }
        yield ScoredCase(row, case, prediction, reliability(probs, label))
        if progress is not None:
            progress(done + 1)


def check_suits(model: TrainedModel, store: SiteStore) -> None:
    """Refuse a store that a model cannot be scored on.

    Raises:
        FlamesError: It is of a modality that the model was not trained on, or the model works on
            volumes and the store has single images.
    """
    flat = [case.case_id for case in store.info.cases if case.slice_axis is None]
    if model.plan is not None and flat:
        raise refuse_flat(model, f"{store.path}: {flat[0]}")
    if model.modality not in ("all", store.modality):
        raise FlamesError(
            f"model {model.name} was trained on {model.modality}, {store.path} holds "
            f"{store.modality}",
            f"score it on stores of {model.modality}",
        )


def refuse_flat(model: TrainedModel, what: str) -> FlamesError:
    """Return the error of a single image for a model of volumes."""
    return FlamesError(
        f"{what} is a single image, and model {model.name} works on volumes",
        "name volumes, or a model that was trained with data.dimensions = 2",
    )


def _fingerprints(metadata: Mapping[str, str]) -> tuple[Fingerprint, ...]:
    adapter = TypeAdapter(tuple[Fingerprint, ...])
    return adapter.validate_json(metadata.get("trained_on", "[]"))

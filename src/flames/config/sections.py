"""Everything a run can be asked for, as validated records."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from flames.errors import FlamesError

StrategyName = Literal[
    "flames", "paper", "modality", "fedavg", "local", "central",
    "uniform", "fedprox", "fedbn", "fedadam", "scaffold", "ditto", "apfl", "fedrep",
    "modality-uniform", "modality-fedprox", "modality-fedbn", "modality-fedadam",
    "modality-scaffold", "modality-ditto", "modality-apfl", "modality-fedrep",
]  # fmt: skip
ModelName = Literal["unet", "densenet-unet", "efficientnet-unet", "student", "told-student"]
LossName = Literal["dice-bce", "dice-focal", "paper"]
Modality = Literal["US", "MR", "CT"]
"""As DICOM codes it."""
STRATEGY_NAMES: tuple[str, ...] = get_args(StrategyName)
MODALITIES: tuple[Modality, ...] = get_args(Modality)
"""In the order of the told student's weights: a new one comes last."""


Triple = tuple[
    Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]
]
Side = Annotated[int, Field(ge=1)]
Sides = tuple[Side, Side, Side]


class Section(BaseModel):
    """A table of the TOML file; kebab-case there, snake_case here, unknown keys refused."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=lambda name: name.replace("_", "-"),
        populate_by_name=True,
    )


class SiteConfig(Section):
    """One hospital of a simulated federation."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    store: Path | None = None
    """Its prepared store; a relative path starts at the TOML file's folder. A site of a network
    federation opens its own."""
    local_steps: int | None = Field(None, ge=1)
    """Optimiser steps of this site in a round, where it differs from the run's."""
    pictures: bool | None = None
    """Whether the report may show its images; not said means: only when they are made up."""


class ModelConfig(Section):
    """The network that every client of the run trains."""

    name: ModelName = "unet"
    deep_supervision: bool = False
    """Also judge the coarser decoder levels in training (`unet` only)."""
    weights: Path | None = None
    """ImageNet weights for `densenet-unet`, from a safetensors file."""
    pretrained: bool = True
    """Start `efficientnet-unet` from the weights of its package."""


class DataConfig(Section):
    """How cases become batches."""

    dimensions: Literal[2, 3] = 2
    """3 trains on volumes as volumes, in patches of a modality's plan; 2 slice by slice."""
    image_size: int = Field(128, ge=32, le=1024)
    """Images are fitted into this square, aspect ratio kept."""
    folds: int = Field(0, ge=0)
    """Parts of a cross-validation inside every store, 3 or more; 0 takes the stores' own splits."""
    fold: int = Field(0, ge=0)
    """Which part is tested on; the others train and validate."""
    augment: bool = True
    tumour_fraction: float = Field(0.67, ge=0, le=1)
    """Share of training slices of a volume that show tumour, while it has both kinds."""

    @model_validator(mode="after")
    def _has_fold(self) -> DataConfig:
        if self.folds in (1, 2):
            raise ValueError(f"cross-validation needs 3 folds or more, found {self.folds}")
        if self.fold >= max(1, self.folds):
            raise ValueError(f"fold {self.fold} of {self.folds} folds does not exist")
        return self


class PlanConfig(Section):
    """How the volumes of one modality are trained on in three dimensions.

    Every triple is slices first, then rows and columns of a slice.
    """

    spacing: Triple
    """Millimetres between voxels that volumes are brought to; 0 keeps an axis as it is."""
    patch: Sides
    """Voxels of a training patch."""
    strides: tuple[Sides, ...] = Field(min_length=3, max_length=7)
    """Factor of each level of the network on each axis, the finest first."""
    kernels: tuple[Sides, ...]
    """Size of each level's convolutions on each axis."""
    batch_size: int = Field(2, ge=1)
    """Patches a step."""

    @model_validator(mode="after")
    def _fits(self) -> PlanConfig:
        if len(self.kernels) != len(self.strides):
            raise ValueError(
                f"{len(self.strides)} strides need as many kernels, found {len(self.kernels)}"
            )
        if any(size % 2 == 0 for kernel in self.kernels for size in kernel):
            raise ValueError("kernels have odd sizes")
        for axis, factor in enumerate(self.factors):
            if self.patch[axis] % factor:
                raise ValueError(
                    f"patch {list(self.patch)} is no multiple of the strides' {list(self.factors)}"
                )
        return self

    @property
    def factors(self) -> tuple[int, int, int]:
        """Return by how much the network shrinks a patch on each axis."""
        slices, rows, columns = (math.prod(s[axis] for s in self.strides) for axis in range(3))
        return slices, rows, columns


class TrainingConfig(Section):
    """The one local loop that every method and every network use."""

    local_steps: int = Field(10, ge=1)
    """Optimiser steps of a client in a round, on average over the rounds."""
    batch_size: int = Field(8, ge=1)
    learning_rate: float = Field(3e-3, gt=0)
    weight_decay: float = Field(1e-2, ge=0)
    warmup: float = Field(0.05, ge=0, lt=1)
    """Share of the run in which the rate rises; it then falls along a cosine over the whole run."""
    optimizer: Literal["adamw", "adam"] = "adamw"
    loss: LossName = "dice-bce"
    max_grad_norm: float = Field(5.0, gt=0)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    validation_images: int = Field(192, ge=1)
    """At most about this many images or slices judge a set of weights, spread over the cases."""
    validation_steps: int = Field(10, ge=1)
    """Where rounds are shorter, only one in as many as make these optimiser steps is judged."""


class StrategyConfig(Section):
    """How the server mixes, and what a client keeps."""

    name: StrategyName = "flames"
    alpha: float | Literal["tuned"] = "tuned"
    """Own share in a client's mixture; `tuned` chooses on its validation cases."""
    alpha_candidates: int = Field(3, ge=2, le=9)
    """Values of α tried between 1/n and 1 when tuned."""
    proximal_mu: float = Field(0.01, ge=0)
    """Weight μ of the spring to what a `fedprox` client received."""
    ditto_lambda: float = Field(0.1, ge=0)
    """Weight λ of the spring that holds a `ditto` client's own model near the common one."""
    server_rate: float = Field(0.01, gt=0)
    """Rate η of the server's Adam in `fedadam`."""
    sharing: float = Field(1.0, ge=0, le=1)
    """Share of the rounds in which `flames` clients begin from the mean of themselves and the peers
    they should weigh, before each tunes its own mixture; what a client keeps is chosen after."""
    relay: int = Field(8, ge=1)
    """At most so many `flames` clients who are alike train one after another in those rounds, from
    the third on, each from the weights of the one before, where three or more are alike; with 1 all
    train at once."""
    relay_moments: int = Field(5, ge=0)
    """Optimiser steps of a round up to which they hand their optimiser's moments on with the
    weights, where these travel as they are: after longer turns moments of one's own do as well.
    Such a message is three times as large; 0 means never."""
    short_round: int = Field(15, ge=1)
    """Optimiser steps of a round up to which they do; after more of them on one client's cases too
    much of the others' is forgotten, and all train at once. Up to which, too, clients of a circle
    of two keep last levels of their own in each round, and not only in the closing pass."""
    first_steps: int = Field(10, ge=1)
    """Optimiser steps of each of the first two rounds of `flames`, at least: fewer do not tell who
    is alike. Where rounds are shorter, what these take more the others take less; both together
    take at most a third of the budget."""

    @field_validator("alpha")
    @classmethod
    def _is_a_share(cls, alpha: float | str) -> float | str:
        if isinstance(alpha, float) and not 0 <= alpha <= 1:
            raise ValueError('an own share lies in 0 to 1, or is "tuned"')
        return alpha


class EvaluationConfig(Section):
    """How test cases are judged."""

    batch_size: int = Field(16, ge=1)
    flip: bool = True
    """Average over the left-right mirrored image too."""
    nsd_tolerance: float = Field(2.0, gt=0)
    """In the unit of the distances: mm, or pixels where spacing is unknown."""
    resamples: int = Field(2000, ge=100)
    pictures: bool = False
    """Let the report show every site's images; otherwise only those that allow it."""


class NetworkConfig(Section):
    """How a federation over a network waits and what it sends; a simulation ignores it."""

    quorum: float = Field(0.5, gt=0, le=1)
    """Share of a modality's sites that must answer for its round to count without the others."""
    deadline: float = Field(1800.0, gt=0)
    """Seconds that a round waits for sites that are away or slow, or for one of those that take
    turns."""
    silence: float = Field(60.0, gt=0)
    """Seconds without a sign of life after which a site counts as away."""
    rounds_per_job: int = Field(20, ge=1)
    """Rounds of one job; then the next one takes over from the run folder."""


class WireConfig(Section):
    """What weights look like while they travel, and which updates the server believes."""

    encoding: Literal["float32", "float16", "bfloat16", "int8"] = "float32"
    """Of weights, or of their differences; int8 has a scale a row of each array."""
    delta: bool = False
    """Send differences from what the receiver holds, where it holds something."""
    top_k: float = Field(1.0, gt=0, le=1)
    """Share of each array's differences that travels, the largest; the rest waits."""
    compression: Literal["zlib", "none"] = "zlib"
    """Of the packed bytes; it loses nothing."""
    clip: float = Field(0.0, ge=0)
    """Longest movement of a round's weights that leaves a client; 0 means any."""
    norm_limit: float = Field(10.0, ge=0)
    """Times the median movement of the group's last rounds that the server still believes; 0 means
    that it believes all."""

    @model_validator(mode="after")
    def _differences_only(self) -> WireConfig:
        if self.top_k < 1 and not self.delta:
            raise ValueError("top-k below 1 chooses among differences: set delta = true too")
        return self

    @property
    def plain(self) -> bool:
        """Return whether weights travel as they are."""
        return self.encoding == "float32" and not self.delta and self.clip == 0

    @property
    def feeds_back(self) -> bool:
        """Return whether a client adds to its next update what this one left out."""
        return self.encoding == "int8" or self.top_k < 1


class RunConfig(Section):
    """One run: which hospitals, which strategy, how long."""

    name: str = "federation"
    seed: int = Field(0, ge=0)
    rounds: int = Field(24, ge=1)
    profile: Literal["flames", "paper"] = "flames"
    """Defaults of everything left unsaid: the corrected method, or the published recipe."""
    threads: int = Field(0, ge=0)
    """Processor threads; 0 lets torch choose."""
    start: Path | None = None
    """Folder of a finished run whose server's models this one begins with."""
    sites: tuple[SiteConfig, ...] = Field(min_length=1)
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    training: TrainingConfig = TrainingConfig()
    strategy: StrategyConfig = StrategyConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    network: NetworkConfig = NetworkConfig()
    wire: WireConfig = WireConfig()
    plans: dict[Modality, PlanConfig] = {}
    """By modality; `flames plan` writes them, and a simulation makes those that are missing."""

    @model_validator(mode="after")
    def _names_once(self) -> RunConfig:
        names = [site.name for site in self.sites]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"site {twice[0]!r} is listed twice")
        return self

    @property
    def hands_on(self) -> bool:
        """Return whether a client may receive the weights that another has just trained."""
        chosen = self.strategy
        steps = [self.steps_of(site.name) for site in self.sites]
        short = min(self.training.local_steps, *steps) <= chosen.short_round
        return chosen.name == "flames" and chosen.alpha == "tuned" and chosen.relay > 1 and short

    @property
    def hands_moments_on(self) -> bool:
        """Return whether who hands weights on may hand the optimiser's moments on with them."""
        steps = [self.training.local_steps, *(self.steps_of(site.name) for site in self.sites)]
        short = min(steps) <= self.strategy.relay_moments
        return self.hands_on and self.wire.plain and short

    def steps_of(self, site: str) -> int:
        """Return a site's optimiser steps in a round: its own number, or the run's."""
        own = next((known.local_steps for known in self.sites if known.name == site), None)
        return own or self.training.local_steps

    @property
    def most_steps(self) -> int:
        """Return the most optimiser steps in a round that any site is asked for."""
        return max(self.training.local_steps, *(self.steps_of(site.name) for site in self.sites))

    def plan_for(self, modality: str) -> PlanConfig | None:
        """Return a modality's plan; None where its images are seen slice by slice.

        Raises:
            FlamesError: The run has three dimensions and no plan for this modality.
        """
        if self.data.dimensions == 2:
            return None
        plan = next((plan for known, plan in self.plans.items() if known == modality), None)
        if plan is None:
            raise FlamesError(
                f"three dimensions need a plan for {modality}, and there is none",
                "make one with 'flames plan', and add it to the federation's file",
            )
        return plan

    @model_validator(mode="after")
    def _network_has_depth(self) -> RunConfig:
        if self.plans and self.data.dimensions == 2:
            raise ValueError("plans are for data.dimensions = 3, found 2")
        flat = self.model.name != "unet" or self.model.deep_supervision
        if flat and self.data.dimensions == 3:
            raise ValueError("three dimensions need the network 'unet', no deep supervision")
        return self

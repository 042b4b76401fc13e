"""Who teaches whom, on which images: what a distillation begins with, checked."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flames.config import ModelConfig, ModelName, RunConfig, TrainingConfig, load_config
from flames.data.folds import in_fold
from flames.data.store import SiteStore
from flames.data.synthetic.hospitals import HOSPITALS
from flames.data.synthetic.stores import make_store
from flames.errors import FlamesError
from flames.federation.environment import check_unchanged
from flames.federation.evaluation import as_in_run, by_name, check_unseen
from flames.inference.cost import parameters
from flames.inference.score import TrainedModel, load_model
from flames.models import make_model
from flames.models.precision import Precision, choose_precision
from flames.processes import held
from flames.runs import RunFolder

LARGEST_SHARE = 0.25
"""A student is at most this share of its smallest teacher's parameters."""


@dataclass(frozen=True)
class Variant:
    """One student: whether it is told the modality, and what it learns from."""

    told: bool
    labels: bool
    teacher: bool = True
    """Without one it learns from labels alone: what the teachers' part is measured against."""

    @property
    def name(self) -> str:
        """Return such as ``told-labels``, or ``told-alone`` without a teacher."""
        learns = ("labels" if self.labels else "nolabels") if self.teacher else "alone"
        return f"{'told' if self.told else 'untold'}-{learns}"

    def share(self, wanted: float) -> float:
        """Return λ, the teacher's part of the loss, where ``wanted`` is that beside labels."""
        if not self.teacher:
            return 0.0
        return wanted if self.labels else 1.0


@dataclass(frozen=True)
class DistilOptions:
    """How students are taught; the same for every variant."""

    variants: tuple[Variant, ...]
    modality: str = ""
    """Only this teacher; empty takes all of them."""
    student: ModelName = "student"
    steps: int = 2400
    share: float = 0.5
    """λ, the teacher's part of the loss beside labels; without labels it is 1."""
    temperature: float = 2.0
    training: TrainingConfig = field(default_factory=lambda: TrainingConfig(learning_rate=0.003))
    seed: int = 0
    made_up_cases: int = 74
    """Of each modality and organ, where the server owns none; 20 of them teach."""


@dataclass(frozen=True)
class Classroom:
    """Teachers, what the server may show, and the sites to score on."""

    teachers: dict[str, TrainedModel]
    server: dict[str, list[SiteStore]]
    """The server's stores by modality."""
    sites: dict[str, SiteStore]
    config: RunConfig
    precision: Precision
    made_up: bool
    """Whether the server had to draw its images; those of the sites are another matter."""
    here: bool
    """Whether `sites` are those of the run; else they are the server's own stores."""


def open_classroom(
    run: Path, stores: Sequence[Path], out: Path, options: DistilOptions
) -> Classroom:
    """Return teachers, server stores and sites, checked."""
    folder = RunFolder(run)
    if not folder.config.exists():
        raise FlamesError(f"{run} is not a run folder", "name a folder that 'flames run' wrote")
    config = load_config(folder.config)
    precision = choose_precision(config.training.precision)
    files = {g: p for g, p in folder.server_models().items() if g != "all"}
    if options.modality:
        files = {g: p for g, p in files.items() if g == options.modality}
    if not files:
        raise FlamesError(
            f"{run} has no server model of {options.modality or 'a modality'} to teach",
            "name a finished run of a strategy that has them, such as flames or modality",
        )
    teachers = {group: load_model(path, precision) for group, path in files.items()}
    if any(model.plan is not None for model in teachers.values()):
        raise FlamesError(
            f"the models of {run} work on volumes, and a student learns slice by slice",
            "name a run with data.dimensions = 2",
        )
    sizes = {model.image_size for model in teachers.values()}
    if len(sizes) > 1:
        raise FlamesError(f"the teachers look at images of sizes {sorted(sizes)}", "use one run")
    largest = LARGEST_SHARE * min(parameters(m.network) for m in teachers.values())
    student = make_model(ModelConfig(name=options.student, pretrained=False))
    if parameters(student) > largest:
        raise FlamesError(
            f"a student {options.student!r} has {parameters(student)} parameters, more than a "
            f"quarter of its teacher",
            "choose a smaller --student",
        )
    owned = [as_in_run(SiteStore.open(path), folder, config) for path in stores]
    owned = owned or _made_up(files, out, options)
    server = {g: [store for store in owned if store.modality == g] for g in teachers}
    for group, mine in server.items():
        if not mine:
            raise FlamesError(
                f"the server owns no images of {group}, which a teacher needs",
                "add --store with one, or name a single --modality",
            )
    sites = {
        site.name: in_fold(store, config.data.folds, config.data.fold)
        for site in config.sites
        if site.store is not None and (store := SiteStore.open(site.store)).modality in teachers
    }
    check_unchanged(folder, sites)
    here = bool(sites)
    if not here:  # a consortium's run: its sites keep their stores to themselves
        judged = (s for mine in server.values() for s in mine if s.split("test"))
        sites = by_name(judged, "prepare one of them again, under another --site")
    if not sites:
        raise FlamesError(
            "no store with a test case is here to score teachers and students on",
            "add --store with one that has test cases",
        )
    check_unseen(owned, sites)
    return Classroom(teachers, server, sites, config, precision, not stores, here)


def _made_up(teachers: Mapping[str, Path], out: Path, options: DistilOptions) -> list[SiteStore]:
    """Return made-up stores of every hospital that FLAMES can draw for these modalities."""
    stores = []
    with held(out / "made-up"):
        for site, hospital in HOSPITALS.items():
            if hospital.modality in teachers:
                place = out / "made-up" / site
                if not (place / "store.json").exists():
                    shutil.rmtree(place, ignore_errors=True)  # a stopped drawing
                    make_store(
                        place,
                        site=f"server-{site}",
                        modality=hospital.modality,
                        organ=hospital.organ,
                        seed=options.seed,
                        cases=options.made_up_cases,
                    )
                stores.append(SiteStore.open(place))
    return stores

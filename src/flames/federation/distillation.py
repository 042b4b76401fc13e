"""The second phase: modality models teach one student, scored beside them on every site."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flames.config import ModelConfig, ModelName
from flames.data.slices import Slices, load_slices
from flames.data.store import SiteStore, Split
from flames.federation.classroom import Classroom, DistilOptions, Variant, open_classroom
from flames.federation.client import derive_seed
from flames.federation.study import claim, digest_of, load_record, load_scores
from flames.inference.cost import cost
from flames.inference.predict import validate
from flames.inference.score import ScoreOptions, TrainedModel, load_model, score_store
from flames.losses import LOSSES, distillation
from flames.metrics.presence import PresenceRule
from flames.models import make_model
from flames.models.student import tell
from flames.models.weights import model_arrays, save_arrays
from flames.processes import held
from flames.runs import load_csv, save_csv
from flames.strategies.mixture import leads
from flames.training.distillation import Lesson, as_the_teacher_sees, teaching_batches
from flames.training.loop import make_optimizer, train

TEACHER = "teacher"
RECORD = "distil.json"
BESIDE = {"made-up"}
"""What may lie in the folder of a study that has not begun: images that the server drew."""
LOOKS = 8
"""How often in its training a student is judged on validation cases."""


def distil(
    run: Path,
    stores: Sequence[Path],
    out: Path,
    options: DistilOptions,
    *,
    on_progress: Callable[[str, int, int], None] = lambda *_: None,
) -> list[dict[str, Any]]:
    """Teach every student that is missing, score all beside their teachers; return the rows.

    Args:
        run: A finished run; its server models of a modality are the teachers.
        stores: Stores that the server owns; none lets it draw made-up images into ``out/made-up``.
        out: Folder of the study; a stopped one continues with the student it was at.
        options: Which students, and how they are taught.
        on_progress: Called as it goes on.

    Raises:
        FlamesError: The run has no modality models, a store changed since the run was made from
            it, a teacher has no images, a student is too large, or ``out`` holds another study or
            is in use by another process.
    """
    load_record(out / RECORD, beside=BESIDE)
    room = open_classroom(run, stores, out, options)
    _claim(out, room, options)
    with held(out / "scores"):
        rows = _score_all(room.teachers, room, out, TEACHER, on_progress)
        taught: list[TrainedModel] = []
        for number, variant in enumerate(options.variants):
            path = out / "models" / f"{variant.name}.safetensors"
            if not path.exists():
                for stale in (out / "scores").glob(f"{variant.name}-*.csv"):
                    stale.unlink()  # of a student that is gone
                _teach(room, variant, options, path, partial(on_progress, f"teach {variant.name}"))
            student = load_model(path, room.precision)
            on_progress(f"score {variant.name}", number, len(options.variants))
            students = dict.fromkeys(room.teachers, student)
            rows += _score_all(students, room, out, variant.name, on_progress)
            taught.append(student)
        save_csv(out / "cases.csv", rows)
        _save_costs(out / "costs.csv", room, options, taught)
    return rows


def _save_costs(
    path: Path, room: Classroom, options: DistilOptions, students: Sequence[TrainedModel]
) -> None:
    """Measure what the models cost, unless the file says so of the same ones already."""
    named = [(TEACHER, model) for model in room.teachers.values()]
    named += [(v.name, model) for v, model in zip(options.variants, students, strict=True)]
    known = [row.get("model") for row in load_csv(path)] if path.exists() else []
    if known != [name for name, _ in named]:
        save_csv(path, [cost(model, name) for name, model in named])


def _teach(
    room: Classroom,
    variant: Variant,
    options: DistilOptions,
    path: Path,
    progress: Callable[[int, int], None],
) -> None:
    """Train one student, and save its last weights, or earlier ones that clearly lead.

    They are judged on the server's validation cases, by the mean over modalities.
    """
    name: ModelName = "told-student" if variant.told else options.student
    config = ModelConfig(name=name, pretrained=False)
    torch.manual_seed(derive_seed(options.seed, "student"))
    student = room.precision.place(make_model(config))
    lessons = [
        Lesson(
            group,
            model.network if variant.teacher else None,
            _tables(room, group, "train", labels=variant.labels),
        )
        for group, model in sorted(room.teachers.items())
    ]
    judges = {g: _tables(room, g, "val", labels=variant.labels) for g in room.teachers}
    cases = as_one_group([sum(len(t.rows_by_case) for t in mine) for mine in judges.values()])
    optimizer = make_optimizer(student, options.training)
    batches = teaching_batches(
        lessons,
        student,
        batch_size=options.training.batch_size,
        tumour_fraction=room.config.data.tumour_fraction,
        precision=room.precision,
        seed=derive_seed(options.seed, "lessons"),
    )
    loss = distillation(
        LOSSES[options.training.loss],
        share=variant.share(options.share),
        temperature=options.temperature,
    )
    torch.manual_seed(derive_seed(options.seed, "steps"))
    best, kept, rule = -1.0, model_arrays(student), PresenceRule()
    edges = [round(options.steps * n / LOOKS) for n in range(LOOKS + 1)]
    for start, stop in pairwise(edges):
        train(
            student,
            optimizer,
            batches,
            config=options.training,
            precision=room.precision,
            steps=range(start, stop),
            total_steps=options.steps,
            progress=partial(_tell_step, progress, start, options.steps),
            loss_function=loss,
        )
        found = {}
        for group, tables in judges.items():
            tell(student, group)
            found[group] = validate(
                student, tables, at_most=96, precision=room.precision, batch_size=16
            )
        score = float(np.mean([v.dice for v in found.values()]))
        newest = stop == options.steps
        if score > best or (newest and not leads(best, score, cases)):
            best, kept = score, model_arrays(student)
            rule = PresenceRule.of([v.curve for v in found.values()])
    metadata = {
        "name": f"student:{variant.name}",
        "kind": "server",
        "modality": "all" if len(room.teachers) > 1 else next(iter(room.teachers)),
        "network": config.model_dump_json(),
        "image_size": next(iter(room.teachers.values())).image_size,
        "presence_threshold": rule.threshold,
        "presence_calibration": rule.calibration,
        "seed": options.seed,
        "teachers": sorted(room.teachers) if variant.teacher else [],
        "made_up_images": room.made_up,
    }
    save_arrays(path, kept, metadata)


def as_one_group(cases: Sequence[int]) -> float:
    """Return how many cases judge a mean over groups of so many: G² / Σ 1/n.

    The mean of G groups' means varies as that of one group with as many cases would, and a group of
    one case counts as much as one of a hundred.

    >>> [as_one_group(cases) for cases in ([4, 4], [1, 100], [])]
    [8.0, 3.9603960396039604, 0.0]
    """
    return len(cases) ** 2 / sum(1 / max(1, n) for n in cases) if cases else 0.0


def _tell_step(
    progress: Callable[[int, int], None], start: int, total: int, done: int, _loss: float
) -> None:
    progress(start + done, total)


def _tables(room: Classroom, group: str, split: Split, *, labels: bool) -> list[Slices]:
    """Return the server's slices: with labels, or without any with the teacher's marks instead.

    Marks then also decide which slices count as with tumour, so that no label decides anything.
    """
    teacher = room.teachers[group]
    tables = [load_slices(store, split, teacher.image_size) for store in room.server[group]]
    if labels:
        return tables
    return [
        as_the_teacher_sees(table, teacher.network, precision=room.precision, batch_size=16)
        for table in tables
    ]


def _score_all(
    models: Mapping[str, TrainedModel],
    room: Classroom,
    out: Path,
    name: str,
    on_progress: Callable[[str, int, int], None],
) -> list[dict[str, Any]]:
    options = ScoreOptions.of(room.config.evaluation)
    rows: list[dict[str, Any]] = []
    for done, (site, store) in enumerate(room.sites.items()):
        on_progress(f"score {name} on {site}", done, len(room.sites))
        kept = out / "scores" / f"{name}-{site}.csv"
        scores = load_scores(kept, store)
        if scores is None:
            found = score_store(
                models[store.modality],
                store,
                site=site,
                precision=room.precision,
                options=options,
            )
            save_csv(kept, [case.row for case in found])
            scores = load_csv(kept)
        rows += [{"student": name} | row for row in scores]
    return rows


def _claim(out: Path, room: Classroom, options: DistilOptions) -> None:
    """Make the folder this study's own, or check that it already is."""
    mine = {
        "teachers": {
            group: hashlib.sha256(
                b"".join(a.tobytes() for a in model_arrays(model.network).values())
            ).hexdigest()
            for group, model in sorted(room.teachers.items())
        },
        "server_stores": sorted(
            digest_of([store]) for mine in room.server.values() for store in mine
        ),
        "store": {site: _scored(store) for site, store in room.sites.items()},
        "made_up": room.made_up,
        "sites_here": room.here,
        "sites_made_up": all(store.info.made_up for store in room.sites.values()),
        "student": options.student,
        "steps": options.steps,
        "share": options.share,
        "temperature": options.temperature,
        "training": options.training.model_dump(mode="json"),
        "seed": options.seed,
    }
    claim(out / RECORD, mine, beside=BESIDE)


def _scored(store: SiteStore) -> str:
    """Return a digest of a site's cases, and of how its test cases are seen and measured."""
    cases = [(c.case_id, c.intensity, c.spacing, c.spacing_unit) for c in store.split("test")]
    return hashlib.sha256(f"{store.splits.cases_digest} {cases}".encode()).hexdigest()

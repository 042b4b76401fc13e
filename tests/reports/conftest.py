"""A small run folder with plausible numbers: six sites, three modalities, five rounds."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from flames.files import save_json, save_text
from flames.runs import RunFolder, save_csv, save_lines

SITES = {
    "us-breast": ("US", "breast", 0.74, (380, 60, 40)),
    "us-ovary": ("US", "ovary", 0.68, (210, 40, 30)),
    "mr-brain": ("MR", "brain", 0.82, (300, 50, 42)),
    "mr-prostate": ("MR", "prostate", 0.61, (96, 20, 18)),
    "ct-liver": ("CT", "liver", 0.71, (150, 26, 24)),
    "ct-kidney": ("CT", "kidney", 0.66, (120, 24, 22)),
}
GROUPS = ("CT", "MR", "US")

CONFIG = """\
name = "demonstration"
seed = 7
rounds = 5
strategy = "flames"
network = "unet"

[training]
learning_rate = 0.001
notes = "see https://example.org/<notes>"
"""


def make_run(path: Path, *, sites=SITES, rounds: int = 5, strategy: str = "flames") -> RunFolder:
    """Return a run folder filled with drawn numbers; the same arguments give the same bytes."""
    rng = np.random.default_rng(3)
    run = RunFolder(path)
    save_text(run.config, CONFIG.replace('"flames"', json.dumps(strategy)))
    save_json(
        run.environment,
        {
            "flames": "0.1.0",
            "date": "2026-03-14",
            "python": "3.11.7",
            "packages": {"torch": "2.8.0", "monai": "1.5.1"},
            "stores": {site: f"{n:064x}" for n, site in enumerate(sites, 11)},
        },
    )
    save_lines(run.rounds, _rounds(sites, rounds, rng))
    rows, scores = [], []
    for site, (modality, organ, level, cases) in sites.items():
        for model, kind, shift in (
            (f"personal:{site}", "personal", 0.0),
            (f"server:{modality}", "server", -0.05),
        ):
            found = list(_cases(model, kind, site, modality, organ, level + shift, cases[2], rng))
            rows += found
            scores.append(_score(found))
    save_csv(run.cases, rows)
    save_json(run.summary, _summary(sites, scores, rounds, strategy))
    return run


def save_picture(path: Path, shade: int = 120) -> None:
    """Write a grey PNG of 48 by 32 pixels."""
    rows = b"".join(b"\0" + bytes((shade + x + y) % 256 for x in range(48)) for y in range(32))

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    head = struct.pack(">IIBBBBB", 48, 32, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def _rounds(sites, rounds, rng):
    for number in range(1, rounds + 1):
        grown = 1 - 0.7**number
        for site, (modality, _, level, cases) in sites.items():
            own, model = (level * grown + float(rng.normal(0, 0.015)) for _ in range(2))
            yield {
                "kind": "site",
                "round": number,
                "site": site,
                "modality": modality,
                "steps": 40 * number,
                "loss": 0.9 * (1 - grown * level),
                "learning_rate": 0.001 * 0.9**number,
                "num_examples": cases[0],
                "validation": {"own": own, "model": model, "mixture": max(own, model) + 0.01},
                "alpha": None if number == 1 else round(0.5 + 0.08 * (len(site) % 5), 2),
                "chosen": None if number == 1 else "mixture",
                "best": max(own, model) + 0.01,
                "seconds": {"train": 31.25, "validate": 4.5, "data": 0.25},
                "bytes_up": 8_000_000,
                "bytes_down": 8_000_000,
            }
        for group in sorted({fields[0] for fields in sites.values()}):
            members = [site for site in sites if sites[site][0] == group]
            mean = float(np.mean([sites[site][2] for site in members])) * grown
            yield {
                "kind": "server",
                "round": number,
                "group": group,
                "sites": members,
                "validation": mean - 0.03,
                "best": mean - 0.03,
            }


def _cases(model, kind, site, modality, organ, level, number, rng):
    for n in range(number):
        tumour, drawn = n % 5 != 0, n % 5 != 0
        dice = float(np.clip(rng.beta(10 * level, 10 * (1 - level)), 0, 1))
        if n == 7:
            drawn, dice = False, 0.0
        if n == 5:
            drawn, dice = True, 0.0
        both = tumour and drawn
        yield {
            "model": model,
            "model_kind": kind,
            "site": site,
            "modality": modality,
            "organ": organ,
            "hospital": site,
            "case_id": f"{site}-{n:03d}",
            "group": f"p{n}",
            "label_voxels": 900 if tumour else 0,
            "prediction_voxels": 850 if drawn else 0,
            "dice": round(dice, 4) if tumour or drawn else None,
            "iou": round(dice / (2 - dice), 4) if tumour or drawn else None,
            "hd95": round(4 + 20 * (1 - dice), 2) if both else None,
            "nsd": round(0.9 * dice, 4) if tumour or drawn else None,
            "distance_unit": "px" if modality == "US" else "mm",
            "nsd_tolerance": 2,
            "volume_error": round(float(rng.normal(-0.4, 2)), 3),
            "volume_unit": "px" if modality == "US" else "ml",
            "presence_score": round(float(0.6 * drawn + 0.4 * rng.random()), 4),
            "tumour_present": int(tumour),
            "tumour_predicted": int(drawn),
        }


def _score(rows):
    first = rows[0]
    present = [row for row in rows if row["tumour_present"]]
    absent = [row for row in rows if not row["tumour_present"]]
    found = sum(row["tumour_predicted"] for row in present)
    alarms = sum(row["tumour_predicted"] for row in absent)
    names = ("model", "model_kind", "site", "modality", "organ", "distance_unit", "volume_unit")
    metrics = ("dice", "iou", "hd95", "nsd", "volume_error")
    return {
        **{name: first[name] for name in names},
        "cases": len(rows),
        **{metric: _interval([row[metric] for row in rows]) for metric in metrics},
        "presence": {
            "auc": 0.93,
            "sensitivity": found / len(present) if present else None,
            "specificity": 1 - alarms / len(absent) if absent else None,
            "with_tumour": len(present),
            "without_tumour": len(absent),
        },
        "empty_and_clear": len(absent) - alarms,
        "missed": len(present) - found,
        "false_alarm": alarms,
    }


def _interval(values):
    numbers = np.array([value for value in values if value is not None], dtype=float)
    if not len(numbers):
        return {"mean": None, "low": None, "high": None, "n": 0}
    mean, reach = float(numbers.mean()), float(1.96 * numbers.std() / np.sqrt(len(numbers)))
    return {"mean": mean, "low": mean - reach, "high": mean + reach, "n": len(numbers)}


def _summary(sites, scores, rounds, strategy):
    return {
        "schema_version": 1,
        "name": "demonstration",
        "strategy": strategy,
        "seed": 7,
        "rounds": rounds,
        "made_up": True,
        "sites": {
            site: {
                "modality": modality,
                "organ": organ,
                "cases": dict(zip(("train", "val", "test"), cases, strict=True)),
                "tumour_free": dict(
                    zip(("train", "val", "test"), (n // 5 for n in cases), strict=True)
                ),
                "steps": 40 * rounds,
                "chosen": "mixture",
                "alpha": 0.66,
            }
            for site, (modality, organ, _, cases) in sites.items()
        },
        "scores": scores,
        "means": [
            {
                "model_kind": kind,
                "group": group,
                "sites": len(chosen),
                **{
                    metric: _interval([score[metric]["mean"] for score in chosen])
                    for metric in ("dice", "iou", "hd95", "nsd")
                },
            }
            for kind in ("personal", "server")
            for group in ("all sites", *GROUPS)
            if (
                chosen := [
                    score
                    for score in scores
                    if score["model_kind"] == kind and group in ("all sites", score["modality"])
                ]
            )
        ],
        "seconds": {"total": 1100, "train": 937.5, "validate": 135, "data": 7.5, "score": 20},
        "parameters": 2_012_345,
        "network": "unet",
    }


@pytest.fixture
def make():
    """Return the function that makes run folders."""
    return make_run


@pytest.fixture
def picture():
    """Return the function that writes a PNG."""
    return save_picture


@pytest.fixture
def run(tmp_path) -> RunFolder:
    """Return a finished run of six sites."""
    return make_run(tmp_path / "run")

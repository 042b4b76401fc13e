"""Records become the rows of the report: everything is text, ready to print."""

from __future__ import annotations

from typing import Any

from flames.reports.differences import site_differences
from flames.reports.numbers import (
    DASH,
    decimal,
    duration,
    estimate,
    interval,
    is_number,
    megabytes,
    signed,
    whole,
    wilson,
)
from flames.reports.records import Records, modality_of
from flames.reports.words import CHOSEN, SECONDS

KINDS = {"personal": "Personalised", "server": "Server"}
PRESENCE = {
    "sensitivity": ("with_tumour", "scans with a tumour", "found"),
    "specificity": ("without_tumour", "tumour-free scans", "left clear"),
}


def tile_rows(records: Records) -> list[dict[str, str]]:
    """Return the headline tiles: a label, a value, and a note under it."""
    tiles = [_mean_tile(records, kind) for kind in KINDS]
    kind = "personal" if any(records.score(s, "personal") for s in records.sites()) else "server"
    tiles += [_presence_tile(records, kind, rate) for rate in PRESENCE]
    tiles.append(_worst_tile(records, kind))
    return tiles


def shown_kinds(records: Records) -> dict[str, str]:
    """Return the kinds of model to show: those with a score, or both before there is any."""
    scored = {score.get("model_kind") for score in records.scores}
    return {kind: label for kind, label in KINDS.items() if kind in scored} or KINDS


def site_rows(records: Records) -> list[dict[str, Any]]:
    """Return one entry a site: what it is, its cases, what it chose, and its models' scores."""
    differences = site_differences(records)
    return [
        {
            "site": site,
            "organ": fields.get("organ") or DASH,
            "modality": modality_of(fields),
            "cases": [whole((fields.get("cases") or {}).get(k)) for k in ("train", "val", "test")],
            "tumour_free": _tumour_free(fields),
            "steps": whole(fields.get("steps")),
            "chosen": choice(records, fields),
            "models": [
                {"kind": kind, "label": label, **score_cells(records.score(site, kind))}
                for kind, label in shown_kinds(records).items()
            ],
            "difference": signed(differences.get(site)),
            "pairs": whole(differences.get(site, {}).get("n")),
        }
        for site, fields in records.sites().items()
    ]


def server_rows(records: Records) -> list[dict[str, Any]]:
    """Return one entry a server model, with its scores on every site it was tested on."""
    models: dict[str, list[dict[str, Any]]] = {}
    for score in records.scores:
        if score.get("model_kind") == "server":
            row = {
                "site": score.get("site") or DASH,
                "organ": score.get("organ") or DASH,
                "cases": whole(score.get("cases")),
                **score_cells(score),
            }
            models.setdefault(str(score.get("model")), []).append(row)
    return [
        {"model": model, "name": server_name(model), "rows": sorted(rows, key=lambda r: r["site"])}
        for model, rows in sorted(models.items())
    ]


def mean_rows(records: Records) -> list[dict[str, str]]:
    """Return the means over sites, by kind of model and group."""
    return [
        {
            "label": KINDS.get(str(mean.get("model_kind")), str(mean.get("model_kind"))),
            "group": str(mean.get("group") or DASH),
            "sites": whole(_sites_with_dice(records, mean)),
            **_overlap_cells(mean),
            **_common_distance(records, mean),
        }
        for mean in records.summary.get("means") or []
    ]


def score_cells(score: dict[str, Any]) -> dict[str, str]:
    """Return the cells of one model's score on one site; dashes for an empty score."""
    presence = score.get("presence") or {}
    return {
        **_overlap_cells(score),
        "distance_unit": str(score.get("distance_unit") or ""),
        "volume_unit": str(score.get("volume_unit") or "").replace("mm2", "mm²"),
        "auc": decimal(presence.get("auc"), 2),
        "sensitivity": decimal(presence.get("sensitivity"), 2),
        "specificity": decimal(presence.get("specificity"), 2),
        "missed": _of(score.get("missed"), presence.get("with_tumour")),
        "false_alarm": _of(score.get("false_alarm"), presence.get("without_tumour")),
        "left_clear": whole(score.get("empty_and_clear")),
    }


def cost_rows(records: Records) -> list[dict[str, str]]:
    """Return the seconds and megabytes of whoever trained, summed over the rounds."""
    rows = []
    for site in records.clients():
        rounds = records.site_rounds(site)
        rows.append(
            {
                "site": site,
                "rounds": whole(sum(r.get("loss") is not None for r in rounds)),
                "steps": whole(max((r.get("steps") or 0 for r in rounds), default=None)),
                **{kind: duration(_total(rounds, kind)) for kind in ("train", "validate", "data")},
                "up": megabytes(_sum(r.get("bytes_up") for r in rounds)),
                "down": megabytes(_sum(r.get("bytes_down") for r in rounds)),
            }
        )
    return rows


def time_shares(records: Records) -> dict[str, Any]:
    """Return the run's time as a total and parts, each with its share of them in percent.

    Waiting for data is part of training, and takes its share from it.
    """
    seconds = dict(records.summary.get("seconds") or {})
    if not seconds:
        rounds = records.site_rounds()
        seconds = {kind: _total(rounds, kind) for kind in ("train", "validate", "data")}
    parts = {kind: seconds[kind] for kind in SECONDS if is_number(seconds.get(kind))}
    shares = dict(parts)
    if "train" in parts and "data" in parts:
        shares["train"] = max(0, parts["train"] - parts["data"])
    whole_time = sum(shares.values())
    return {
        "total": duration(seconds.get("total")),
        "parts": [
            {
                "kind": kind,
                "label": SECONDS[kind],
                "time": duration(value),
                "percent": f"{100 * shares[kind] / whole_time:.1f}",
            }
            for kind, value in parts.items()
            if whole_time
        ],
    }


def choice(records: Records, fields: dict[str, Any]) -> str:
    """Return what a site ended with, with its own share in a mixture.

    That is what it chose in the closing pass, or the weights of an earlier round or run.
    """
    chosen, kept, rounds = fields.get("chosen"), fields.get("kept_round"), records.setting("rounds")
    if chosen is None:
        return DASH
    if records.personal and kept == 0:
        return CHOSEN["earlier"]
    if records.personal and is_number(kept) and is_number(rounds) and kept <= rounds:
        return f"its weights of round {kept}"
    name = CHOSEN.get(chosen, str(chosen))
    alpha = fields.get("alpha")
    if chosen != "mixture" or not is_number(alpha):
        return name
    return f"{name}, α\u00a0=\u00a0{decimal(alpha, 2)}"


def server_name(model: str) -> str:
    """Return a server model's name for people.

    >>> server_name("server:US"), server_name("server:all")
    ('Server’s model of US', 'Server’s one model for all modalities')
    """
    group = model.partition(":")[2] or model
    return (
        "Server’s one model for all modalities" if group == "all" else f"Server’s model of {group}"
    )


def _overlap_cells(score: dict[str, Any]) -> dict[str, str]:
    digits = {"dice": 3, "iou": 3, "nsd": 3, "hd95": 1, "volume_error": 1}
    cells = {}
    for metric, places in digits.items():
        found = score.get(metric) or {}
        cells[metric] = decimal(found.get("mean"), places)
        cells[f"{metric}_interval"] = interval(found, places)
    return cells


def _common_distance(records: Records, mean: dict[str, Any]) -> dict[str, str]:
    """Return the unit of a mean distance; millimetres and pixels together have no mean.

    Nor has the NSD then, whose tolerance is such a distance.
    """
    units = {
        score.get("distance_unit")
        for score in records.scores
        if score.get("model_kind") == mean.get("model_kind")
        and mean.get("group") in ("all sites", score.get("modality"))
        and is_number((score.get("hd95") or {}).get("mean"))
    }
    if len(units) > 1:
        mixed = {"hd95": "mixed units", "nsd": "mixed units"}
        return mixed | {"distance_unit": "", "hd95_interval": "", "nsd_interval": ""}
    return {"distance_unit": str(next(iter(units), None) or "")}


def _sites_with_dice(records: Records, mean: dict[str, Any]) -> int:
    """Return how many sites a mean Dice is over: one whose cases all have none is not in it."""
    return len(
        {
            score.get("site")
            for score in records.scores
            if score.get("model_kind") == mean.get("model_kind")
            and mean.get("group") in ("all sites", score.get("modality"))
            and is_number((score.get("dice") or {}).get("mean"))
        }
    )


def _mean_tile(records: Records, kind: str) -> dict[str, str]:
    means = records.summary.get("means") or []
    mean: dict[str, Any] = next(
        (m for m in means if m.get("model_kind") == kind and m.get("group") == "all sites"), {}
    )
    dice = mean.get("dice") or {}
    label = f"Dice, {KINDS[kind].lower()}"
    if not is_number(dice.get("mean")):
        return {"label": label, "value": DASH, "note": "no such model was scored"}
    span = interval(dice)
    sites = _sites_with_dice(records, mean)
    note = f"mean over {_count(sites, 'site')}" + (f"; 95 % interval {span}" * bool(span))
    return {"label": label, "value": decimal(dice["mean"]), "note": note}


def _presence_tile(records: Records, kind: str, rate: str) -> dict[str, str]:
    trials, scans, did = PRESENCE[rate]
    hits, total = _presence_counts(records, kind, rate, trials)
    if not total:
        return {"label": rate.capitalize(), "value": DASH, "note": f"no {scans} were scored"}
    share = {end: 100 * value for end, value in wilson(hits, total).items()}
    note = (
        f"{hits} of {total} {scans} {did} by {KINDS[kind].lower()} models; "
        f"95 % interval {interval(share, 0)} %"
    )
    return {"label": rate.capitalize(), "value": f"{share['mean']:.0f} %", "note": note}


def _worst_tile(records: Records, kind: str) -> dict[str, str]:
    label = "Worst site"
    dice = {site: records.score(site, kind).get("dice") or {} for site in records.sites()}
    dice = {site: score for site, score in dice.items() if is_number(score.get("mean"))}
    if not dice:
        return {"label": label, "value": DASH, "note": "no site has been scored"}
    worst = min(dice, key=lambda site: (dice[site]["mean"], site))
    note = f"{worst}: Dice {estimate(dice[worst])}, {KINDS[kind].lower()} model"
    return {"label": label, "value": decimal(dice[worst]["mean"]), "note": note}


def _presence_counts(records: Records, kind: str, rate: str, trials: str) -> tuple[int, int]:
    hits = total = 0
    for site in records.sites():
        presence = records.score(site, kind).get("presence") or {}
        if is_number(presence.get(rate)) and is_number(presence.get(trials)):
            total += presence[trials]
            hits += round(presence[rate] * presence[trials])
    return hits, total


def _tumour_free(fields: dict[str, Any]) -> str:
    free = [(fields.get("tumour_free") or {}).get(split) for split in ("train", "val", "test")]
    return " / ".join(whole(n) for n in free) if any(is_number(n) for n in free) else ""


def _of(count: Any, total: Any) -> str:
    if not is_number(count):
        return DASH
    return f"{whole(count)} / {whole(total)}" if is_number(total) else whole(count)


def _count(number: Any, noun: str) -> str:
    return f"{whole(number)} {noun}{'' if number == 1 else 's'}"


def _total(rounds: list[dict[str, Any]], kind: str) -> float | None:
    return _sum((record.get("seconds") or {}).get(kind) for record in rounds)


def _sum(values: Any) -> float | None:
    numbers = [value for value in values if is_number(value)]
    return sum(numbers) if numbers else None

"""What a run folder says, read once: the only file of the reports that opens records."""

from __future__ import annotations

import csv
import json
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from flames.errors import FlamesError
from flames.metrics.statistics import RESAMPLES
from flames.runs import RUN_SCHEMA, RunFolder

T = TypeVar("T")


@dataclass(frozen=True)
class Records:
    """Everything read from a run folder; what the run has not written yet is empty."""

    run: RunFolder
    config_text: str
    config: dict[str, Any]
    environment: dict[str, Any]
    rounds: list[dict[str, Any]]
    summary: dict[str, Any]
    cases: list[dict[str, str]]

    @property
    def finished(self) -> bool:
        """Return whether the run has scores."""
        return bool(self.summary)

    @property
    def resamples(self) -> int:
        """Return how often an interval or a test draws."""
        return int((self.config.get("evaluation") or {}).get("resamples", RESAMPLES))

    @property
    def scores(self) -> list[dict[str, Any]]:
        """Return the scores per model and site."""
        return list(self.summary.get("scores") or [])

    @property
    def personal(self) -> bool:
        """Return whether sites ended with weights of their own: their scores are no server's."""
        server = {
            (score.get("site"), score.get("modality")): score.get("dice")
            for score in self.scores
            if score.get("model_kind") == "server"
        }
        return any(
            score.get("dice") != server.get((score.get("site"), score.get("modality")))
            for score in self.scores
            if score.get("model_kind") == "personal"
        )

    def site_rounds(self, site: str | None = None) -> list[dict[str, Any]]:
        """Return the training records of ``site``, or of all sites."""
        return [
            record
            for record in self.rounds
            if record.get("kind") == "site" and site in (None, record.get("site"))
        ]

    def server_rounds(self) -> list[dict[str, Any]]:
        """Return the records of the server's models."""
        return [record for record in self.rounds if record.get("kind") == "server"]

    def sites(self) -> dict[str, dict[str, Any]]:
        """Return what is known of each site: from the summary, else from the rounds."""
        known = dict(self.summary.get("sites") or {}) or self.clients()
        return dict(sorted(known.items(), key=lambda item: (modality_of(item[1]), item[0])))

    def clients(self) -> dict[str, dict[str, Any]]:
        """Return who trained, from the rounds: the sites, or pools of them for `central`."""
        known = {str(r.get("site")): {"modality": r.get("modality")} for r in self.site_rounds()}
        return dict(sorted(known.items(), key=lambda item: (modality_of(item[1]), item[0])))

    def score(self, site: str, kind: str) -> dict[str, Any]:
        """Return the score of a site's personalised model, or of the server model it belongs to.

        The server model of a site is that of its modality, else the one model for all, else the
        first that was scored there; without any, the score is empty.
        """
        found = {
            str(score.get("model")): score
            for score in self.scores
            if score.get("site") == site and score.get("model_kind") == kind
        }
        modality = self.sites().get(site, {}).get("modality")
        wanted = [f"personal:{site}", f"server:{modality}", "server:all", *found]
        return next((found[name] for name in wanted if name in found), {})

    def setting(self, key: str) -> Any:
        """Return a setting from the summary, else the configuration, else None.

        A table of the configuration, such as ``[strategy]``, gives its ``name``.
        """
        for place in (self.summary, self.config):
            value = place.get(key)
            if isinstance(value, dict):
                value = value.get("name")
            if value is not None:
                return value
        return None


def load_records(run: RunFolder) -> Records:
    """Return what ``run`` holds.

    Raises:
        FlamesError: The folder is no run, or one of its files cannot be read.
    """
    if not any(path.exists() for path in (run.config, run.rounds, run.summary)):
        raise FlamesError(
            f"{run.path} is not a run folder: no config.toml, rounds.jsonl or summary.json in it",
            "name the folder that 'flames run' wrote; a comparison is reported again by its own "
            "command with --report-only",
        )
    anew = f"restore the file, or {made_again(run)}"
    given = "restore the file, or make the run anew with a new --out"
    config_text = _read(run.config, given, _text, "")
    records = Records(
        run=run,
        config_text=config_text,
        config=_read(run.config, given, lambda _: tomllib.loads(config_text), {}),
        environment=_read(run.environment, given, _load_object, {}),
        rounds=_read(
            run.rounds, anew, lambda _: [r for r in run.load_rounds() if isinstance(r, dict)], []
        ),
        summary=_read(run.summary, anew, lambda _: run.load_summary(), {}),
        cases=_read(run.cases, anew, lambda _: run.load_cases(), []),
    )
    version = records.summary.get("schema_version", RUN_SCHEMA)
    if version != RUN_SCHEMA:
        raise FlamesError(
            f"{run.summary} has schema {version}, this FLAMES reads {RUN_SCHEMA}",
            "make the report with the FLAMES version that made the run",
        )
    return records


def made_again(run: RunFolder) -> str:
    """Return how scores and summary of a finished run are made again, and whether that trains."""
    trains = "" if run.state.exists() else "; it trains again, since its state/ is gone"
    return (
        f"delete {run.summary.name} there and give the command again, which writes scores and "
        f"summary anew{trains}"
    )


def modality_of(fields: dict[str, Any]) -> str:
    """Return the modality of a record, ``"?"`` when it is not known."""
    return str(fields.get("modality") or "?")


def _read(path: Path, remedy: str, load: Callable[[Path], T], missing: T) -> T:
    """Return what a file holds, or what stands for one that is missing."""
    if not path.exists():
        return missing
    try:
        return load(path)
    except (ValueError, TypeError, csv.Error) as error:
        raise FlamesError(f"{path} cannot be read: {error}", remedy) from error


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _load_object(path: Path) -> dict[str, Any]:
    return dict(json.loads(_text(path)))

"""The run folder: what is where, and how it is read and written.

::

    RUN/config.toml            the configuration, every default filled in
    RUN/environment.json       versions, platform, commit, digests of the stores
    RUN/splits.json            site → train, val, test → case ids
    RUN/rounds.jsonl           one line a site and round, one a server model and round
    RUN/cases.csv              one line a model and test case
    RUN/calibration.csv        pixels, summed probability and tumour by model, site and bin
    RUN/affinity.json           client → peer → weight in 0 to 1, as the rounds showed it
    RUN/summary.json           scores with intervals
    RUN/models/GROUP.safetensors     the server's model of a modality ("all" for one model)
    RUN/personal/SITE.safetensors    each client's personalised model
    RUN/state/                 what a resumed run continues from
    RUN/pictures/              outlines of cases, only for sites whose owner allows them
    RUN/report.html            all of it for a person, in one file

Nothing here needs torch: a report can be made again from the folder alone.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flames.errors import FlamesError
from flames.files import save_text

RUN_SCHEMA = 1


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run, and reading and writing of its records."""

    path: Path

    @property
    def config(self) -> Path:
        """Return the path of the full configuration."""
        return self.path / "config.toml"

    @property
    def environment(self) -> Path:
        """Return the path of versions and digests."""
        return self.path / "environment.json"

    @property
    def splits(self) -> Path:
        """Return the path of the case ids by site and split."""
        return self.path / "splits.json"

    @property
    def rounds(self) -> Path:
        """Return the path of the training records."""
        return self.path / "rounds.jsonl"

    @property
    def cases(self) -> Path:
        """Return the path of the scores per case."""
        return self.path / "cases.csv"

    @property
    def calibration(self) -> Path:
        """Return the path of the reliability tables by model and site."""
        return self.path / "calibration.csv"

    @property
    def summary(self) -> Path:
        """Return the path of the scores with intervals."""
        return self.path / "summary.json"

    @property
    def affinity(self) -> Path:
        """Return the path of how much each client weighs each peer."""
        return self.path / "affinity.json"

    @property
    def report(self) -> Path:
        """Return the path of the report."""
        return self.path / "report.html"

    @property
    def state(self) -> Path:
        """Return the folder that a resumed run continues from."""
        return self.path / "state"

    @property
    def pictures(self) -> Path:
        """Return the folder of pictures."""
        return self.path / "pictures"

    def server_model(self, group: str) -> Path:
        """Return the path of the server's model of ``group``: a modality, or ``all``."""
        return self.path / "models" / f"{group}.safetensors"

    def personal_model(self, site: str) -> Path:
        """Return the path of a client's personalised model."""
        return self.path / "personal" / f"{site}.safetensors"

    def server_models(self) -> dict[str, Path]:
        """Return the server models that exist, by group."""
        return {p.stem: p for p in sorted((self.path / "models").glob("*.safetensors"))}

    def personal_models(self) -> dict[str, Path]:
        """Return the personalised models that exist, by site."""
        return {p.stem: p for p in sorted((self.path / "personal").glob("*.safetensors"))}

    def store_digests(self) -> dict[str, str]:
        """Return the digest of each site's store when the run was made; empty if not recorded.

        Raises:
            FlamesError: The record cannot be read.
        """
        return self._digests("stores")

    def prepared_digests(self) -> dict[str, str]:
        """Return each site's digest of how its cases were seen; empty if not recorded.

        Raises:
            FlamesError: The record cannot be read.
        """
        return self._digests("prepared")

    def _digests(self, key: str) -> dict[str, str]:
        if not self.environment.exists():
            return {}
        unrecorded: dict[str, Any] = {"prepared": {}}  # in runs from before it was recorded
        try:
            found = unrecorded | json.loads(self.environment.read_text(encoding="utf-8"))
            return dict(found[key])
        except (ValueError, KeyError, TypeError) as error:
            raise FlamesError(
                f"{self.environment} does not say which stores the run was made from",
                "restore the file, or make the run anew with a new --out",
            ) from error

    def load_splits(self) -> dict[str, dict[str, set[str]]]:
        """Return site → train, val, test → case ids; sites that are not recorded are missing.

        Raises:
            FlamesError: The record cannot be read.
        """
        if not self.splits.exists():
            return {}
        try:
            found = json.loads(self.splits.read_text(encoding="utf-8"))
            return {
                site: {side: set(cases) for side, cases in sides.items()}
                for site, sides in found.items()
            }
        except (ValueError, TypeError, AttributeError) as error:
            raise FlamesError(
                f"{self.splits} does not say how the cases were split",
                "restore the file, or make the run anew with a new --out",
            ) from error

    def load_rounds(self) -> list[dict[str, Any]]:
        """Return the training records; a last line cut by a crash is left out."""
        return list(_complete_lines(self.rounds)) if self.rounds.exists() else []

    def load_summary(self) -> dict[str, Any]:
        """Return the summary.

        Raises:
            FlamesError: The run has none yet.
        """
        if not self.summary.exists():
            raise FlamesError(
                f"{self.path} has no summary.json: the run is not finished, or not a run",
                "continue it with 'flames run … --resume'",
            )
        return dict(json.loads(self.summary.read_text(encoding="utf-8")))

    def load_cases(self) -> list[dict[str, str]]:
        """Return the rows of ``cases.csv`` as text by column; an empty cell is undefined."""
        return load_csv(self.cases)

    def load_calibration(self) -> list[dict[str, str]]:
        """Return the rows of ``calibration.csv``; none where a run has no such file."""
        return load_csv(self.calibration) if self.calibration.exists() else []


def load_csv(path: Path) -> list[dict[str, str]]:
    """Return rows as text by column."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def save_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line."""
    lines = (json.dumps(record, allow_nan=False, ensure_ascii=False) for record in records)
    save_text(path, "".join(f"{line}\n" for line in lines))


def save_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows with the first row's columns; None becomes an empty cell."""
    from io import StringIO

    buffer = StringIO()
    if rows:
        writer = csv.DictWriter(buffer, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    save_text(path, buffer.getvalue())


def _complete_lines(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return

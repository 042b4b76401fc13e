"""Scores that sites send when the rounds are over, and the finished run folder made of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from flames.array_files import load_arrays, save_arrays
from flames.federation.exchange import check_update
from flames.federation.network.aggregates import check_aggregates
from flames.federation.network.messages import Arrays, MessageError
from flames.federation.network.run_state import RunState
from flames.federation.server import Server
from flames.federation.summary import kept_rule, model_metadata, summarise
from flames.files import save_json
from flames.runs import save_csv

Row = dict[str, Any]
MAX_ROWS = 1_000_000
CASE_COLUMNS = ("model", "model_kind", "site", "modality", "organ", "case_id", "group", "dice")
BIN_COLUMNS = ("model", "site", "bin", "pixels", "probability", "tumour")


class Scores:
    """What sites sent of the finished models, on disk."""

    def __init__(self, state: RunState) -> None:
        """Keep them beside the run's state."""
        self.state = state
        self.folder = state.run.state / "scores"

    def has(self, site: str) -> bool:
        """Return whether a site has sent its scores."""
        return (self.folder / f"{site}.json").exists()

    def accept(
        self,
        site: str,
        content: Mapping[str, Any],
        kept: Arrays | None,
        *,
        like: Arrays | None,
    ) -> None:
        """Check and keep what a site sent.

        Args:
            site: Who sent it.
            content: ``rows`` of ``cases.csv`` or ``aggregates`` of them, ``calibration``, and
                ``seconds`` spent.
            kept: Its personal weights, where they are its own and its policy lets them leave.
            like: What the personal weights must look like; None where there are none.

        Raises:
            FlamesError: Something in it cannot be.
        """
        rows, seconds = content.get("rows"), content.get("seconds")
        bins = content.get("calibration")
        for table, columns in ((rows, CASE_COLUMNS), (bins, BIN_COLUMNS)):
            if not isinstance(table, list) or len(table) > MAX_ROWS:
                raise MessageError("its scores are no rows")
            for row in table:
                _check_row(site, row, columns)
        means = check_aggregates(site, content.get("aggregates", []))
        if not isinstance(seconds, int | float) or not np.isfinite(seconds):
            raise MessageError("its seconds are no number")
        if kept is not None:
            if like is None:
                raise MessageError("it holds personal weights, where there are none")
            check_update(kept, like, site)
            save_arrays(self.folder / f"{site}.safetensors", kept)
        known = {"rows": rows, "aggregates": means, "calibration": bins, "seconds": seconds}
        save_json(self.folder / f"{site}.json", known)

    def finish(self, server: Server) -> None:
        """Write models, ``cases.csv`` and the summary, as a simulation does."""
        run, config = self.state.run, self.state.config
        models = server.best_models()
        rules = server.presence_rules()
        replies = server.replies()
        facts = self.state.facts()
        prints = {site: known.fingerprint.model_dump(mode="json") for site, known in facts.items()}
        for group, arrays in models.items():
            served = [s for s, f in facts.items() if server.strategy.group_of(f.modality) == group]
            trained_on = [prints[site] for site in served]
            metadata = model_metadata(config, "server", group, group, trained_on, rules[group])
            save_arrays(run.server_model(group), arrays, metadata)
        sites = [site for site in facts if self.has(site)]
        for site in sites:
            modality = facts[site].modality
            personal = self._personal(server, models, site, modality)
            if personal is not None:
                if server.strategy.personal:
                    rule = kept_rule(replies[site].curves.get("kept") if site in replies else None)
                else:
                    rule = rules[str(server.strategy.group_of(modality))]
                metadata = model_metadata(config, "personal", site, modality, [prints[site]], rule)
                save_arrays(run.personal_model(site), personal, metadata)
        sent = {site: self._read(site) for site in sites}
        rows = _in_order([row for site in sites for row in sent[site]["rows"]], list(models))
        save_json(run.affinity, server.affinity())
        save_csv(run.cases, rows)
        bins = [row for site in sites for row in sent[site]["calibration"]]
        save_csv(run.calibration, _in_order(bins, list(models)))
        seconds = {"score": sum(float(sent[site]["seconds"]) for site in sites)}
        about = {site: facts[site].about for site in facts}
        means = [record for site in sites for record in sent[site].get("aggregates", [])]
        save_json(run.summary, summarise(run, config, about, rows, seconds, means))

    def _personal(
        self, server: Server, models: Mapping[str, Arrays], site: str, modality: str
    ) -> Arrays | None:
        if not server.strategy.personal:
            return models.get(str(server.strategy.group_of(modality)))
        path = self.folder / f"{site}.safetensors"
        if not path.exists():
            return None
        return load_arrays(path)

    def _read(self, site: str) -> dict[str, Any]:
        return dict(json.loads((self.folder / f"{site}.json").read_text(encoding="utf-8")))


def _in_order(rows: list[Row], groups: list[str]) -> list[Row]:
    """Return rows as a simulation writes them: server models by name, then personal ones."""
    server = [row for group in sorted(groups) for row in rows if row["model"] == f"server:{group}"]
    personal = [row for row in rows if str(row["model"]).startswith("personal:")]
    return server + sorted(personal, key=lambda row: str(row["site"]))


def _check_row(site: str, row: Any, columns: tuple[str, ...]) -> None:
    if not isinstance(row, dict) or any(column not in row for column in columns):
        raise MessageError("a row of its scores has other columns")
    if row["site"] != site or not str(row["model"]).startswith(("server:", "personal:")):
        raise MessageError("a row of its scores is not of this site")
    if any(not isinstance(value, str | int | float | None) for value in row.values()):
        raise MessageError("a row of its scores holds something else than numbers and text")
    if any(isinstance(value, float) and not np.isfinite(value) for value in row.values()):
        raise MessageError("a row of its scores holds NaN or infinity")

"""Scores that sites send when the rounds are over, and the finished run folder made of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from flames.array_files import load_arrays, save_arrays
from flames.errors import FlamesError
from flames.federation.exchange import check_update
from flames.federation.network.facts import SiteFacts
from flames.federation.network.journal import Journal
from flames.federation.network.messages import Arrays, MessageError
from flames.federation.network.run_state import RunState
from flames.federation.network.score_rows import Scorer, check_scores
from flames.federation.records import learned_from
from flames.federation.server import Server
from flames.federation.summary import kept_rule, model_metadata, summarise
from flames.files import save_json
from flames.runs import save_csv

Row = dict[str, Any]


class Scores:
    """What sites sent of the finished models, on disk."""

    def __init__(self, state: RunState) -> None:
        """Keep them beside the run's state."""
        self.state = state
        self.journal = Journal(state.events)
        self.folder = state.run.state / "scores"

    def has(self, site: str) -> bool:
        """Return whether a site has sent its scores."""
        return (self.folder / f"{site}.json").exists()

    def accept(
        self,
        scorer: Scorer,
        content: Mapping[str, Any],
        kept: Arrays | None,
        *,
        like: Arrays | None,
    ) -> None:
        """Check and keep what a site sent.

        Args:
            scorer: Who sent it.
            content: As `check_scores` takes it.
            kept: Its personal weights, where they are its own and its policy lets them leave.
            like: What the personal weights must look like; None where there are none.

        Raises:
            FlamesError: Something in it cannot be.
        """
        known = check_scores(content, scorer)
        if kept is not None:
            if like is None:
                raise MessageError("it holds personal weights, where there are none")
            check_update(kept, like, scorer.site)
            save_arrays(self.folder / f"{scorer.site}.safetensors", kept)
        save_json(self.folder / f"{scorer.site}.json", known)

    def finish(self, server: Server) -> None:
        """Write models, ``cases.csv`` and the summary, as a simulation does.

        What was kept of a site and cannot be used any more is left out; the journal says why.
        """
        run, config = self.state.run, self.state.config
        models = server.best_models()
        rules = server.presence_rules()
        replies = server.replies()
        facts = self.state.facts()
        prints = {site: known.fingerprint.model_dump(mode="json") for site, known in facts.items()}
        for group, arrays in models.items():
            served = [s for s, f in facts.items() if server.strategy.group_of(f.modality) == group]
            trained_on = [prints[site] for site in learned_from(server.records(), group, served)]
            metadata = model_metadata(config, "server", group, group, trained_on, rules[group])
            save_arrays(run.server_model(group), arrays, metadata)
        sent = self._usable(server, facts)
        for site in sent:
            modality = facts[site].modality
            personal = self._personal(server, models, site, modality)
            if personal is not None:
                if server.strategy.personal:
                    rule = kept_rule(replies[site].curves.get("kept") if site in replies else None)
                else:
                    rule = rules[str(server.strategy.group_of(modality))]
                metadata = model_metadata(config, "personal", site, modality, [prints[site]], rule)
                save_arrays(run.personal_model(site), personal, metadata)
        rows = _in_order([row for known in sent.values() for row in known["rows"]], list(models))
        save_json(run.affinity, server.affinity())
        save_csv(run.cases, rows)
        bins = [row for known in sent.values() for row in known["calibration"]]
        save_csv(run.calibration, _in_order(bins, list(models)))
        seconds = {"score": sum(float(known["seconds"]) for known in sent.values())}
        about = {site: facts[site].about for site in facts}
        means = [record for known in sent.values() for record in known["aggregates"]]
        save_json(run.summary, summarise(run, config, about, rows, seconds, means))

    def _personal(
        self, server: Server, models: Mapping[str, Arrays], site: str, modality: str
    ) -> Arrays | None:
        if not server.strategy.personal:
            return models.get(str(server.strategy.group_of(modality)))
        path = self.folder / f"{site}.safetensors"
        if not path.exists():
            return None
        try:
            return load_arrays(path)
        except FlamesError as error:
            self._leave_out("personal model", site, error.found)
            return None

    def _usable(self, server: Server, facts: Mapping[str, SiteFacts]) -> dict[str, dict[str, Any]]:
        """Return what sites sent, by site; what is damaged on the disk is left out and told."""
        found = {}
        for site, known in facts.items():
            if not self.has(site):
                continue
            group = server.strategy.group_of(known.modality)
            scorer = Scorer(site, known.modality, known.organ, group, known.cases["test"])
            try:
                text = (self.folder / f"{site}.json").read_text(encoding="utf-8")
                found[site] = check_scores(dict(json.loads(text)), scorer)
            except FlamesError as error:
                self._leave_out("scores", site, error.found)
            except (OSError, ValueError, TypeError) as error:
                self._leave_out("scores", site, f"their file is damaged ({type(error).__name__})")
        return found

    def _leave_out(self, what: str, site: str, reason: str) -> None:
        text = f"the {what} of {site} cannot be used and stay out of the run folder: {reason}"
        self.journal.write("server-trouble", text, site=site)


def _in_order(rows: list[Row], groups: list[str]) -> list[Row]:
    """Return rows as a simulation writes them: server models by name, then personal ones."""
    server = [row for group in sorted(groups) for row in rows if row["model"] == f"server:{group}"]
    personal = [row for row in rows if str(row["model"]).startswith("personal:")]
    return server + sorted(personal, key=lambda row: str(row["site"]))

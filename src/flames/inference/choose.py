"""MODEL on the command line: a run folder or a model file becomes one model file."""

from __future__ import annotations

from pathlib import Path

from flames.errors import FlamesError, nearest
from flames.runs import RunFolder

EXPORTED = ("model.onnx", "model.ts", "models/model.ts")


def choose_model(path: Path, *, site: str | None = None, modality: str | None = None) -> Path:
    """Return the model file that ``path`` and the choices mean.

    Args:
        path: A model file, the folder of a run, or one that ``flames export`` wrote.
        site: Of a run, take the personalised model of this site.
        modality: Of a run, take the server's model of this modality.

    Raises:
        FlamesError: There is no such model, or a run has several and none is chosen.
    """
    if path.is_file():
        if site is not None:
            raise FlamesError(f"{path} is one model, it has no --site", "drop --site")
        return path
    for name in EXPORTED:
        if (path / name).is_file():
            return choose_model(path / name, site=site, modality=modality)
    run = RunFolder(path)
    if not run.config.exists():
        raise FlamesError(
            f"{path} is neither a run folder nor a model file",
            "name a folder that 'flames run' or 'flames export' wrote, or a file in it",
        )
    if site is not None:
        return _one(run.personal_models(), site, f"{path} has no model of site {site!r}")
    models = run.server_models()
    if not models:
        raise FlamesError(
            f"{path} has no server's model",
            "finish the run with 'flames run … --resume', or take a site's model with --site",
        )
    if "all" in models:
        return models["all"]
    if modality is not None:
        return _one(models, modality, f"{path} has no model of modality {modality!r}")
    if len(models) > 1:
        raise FlamesError(
            f"{path} has models of {', '.join(models)}", "say which with --modality, or --site"
        )
    return next(iter(models.values()))


def _one(models: dict[str, Path], name: str, found: str) -> Path:
    if name not in models:
        raise FlamesError(found, nearest(name, models))
    return models[name]

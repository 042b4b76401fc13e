"""A run's TOML file: read with its profile, checked, and written with every default."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import tomli_w
from pydantic import BaseModel, ValidationError

from flames.config.sections import RunConfig, SiteConfig
from flames.errors import FlamesError, nearest

PROFILES: Mapping[str, Mapping[str, Any]] = {
    "flames": {},
    "paper": {
        "rounds": 100,
        "model": {"name": "densenet-unet"},
        "data": {"image-size": 240, "augment": False},
        "training": {
            "local-steps": 40,
            "batch-size": 64,
            "learning-rate": 1e-3,
            "optimizer": "adam",
            "weight-decay": 0.0,
            "warmup": 0.0,
            "loss": "paper",
        },
        "strategy": {"name": "paper"},
    },
}


def load_config(
    path: Path | str, overrides: Mapping[str, str] | None = None, sites: Iterable[str] = ()
) -> RunConfig:
    """Return the validated run that the TOML file at ``path`` asks for.

    Args:
        path: The file; its relative store paths start at its folder.
        overrides: Dotted kebab-case keys and TOML values that win over the file, such as
            ``{"training.local-steps": "20", "strategy.name": "local"}``.
        sites: Names for a file that lists no sites: those of the consortium it runs in.

    Raises:
        FlamesError: The file is missing, is not TOML, or holds an unknown key or a bad value.
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise FlamesError(f"cannot read {path}: {error}", "name a federation file") from error
    except tomllib.TOMLDecodeError as error:
        remedy = "mend that line"
        if any(word in str(error) for word in (" twice", "overwrite")):
            remedy = "write each table and each key once: put both into one"
        raise FlamesError(f"{path} is not valid TOML: {error}", remedy) from error
    for key, text in (overrides or {}).items():
        _put(content, key, text)
    if "sites" not in content and (names := list(sites)):
        content["sites"] = [{"name": name} for name in names]
    return parse_config(content, where=str(path), base=path.parent)


def parse_config(content: Mapping[str, Any], *, where: str, base: Path) -> RunConfig:
    """Return the validated run of parsed TOML; ``where`` names it in errors."""
    profile = content.get("profile", "flames")
    merged = _merge(PROFILES.get(str(profile), {}), content)
    try:
        config = RunConfig.model_validate(merged)
    except ValidationError as error:
        raise _explain(error, where) from error
    sites = tuple(
        site
        if site.store is None
        else site.model_copy(update={"store": (base / site.store).resolve()})
        for site in config.sites
    )
    model = config.model
    if model.weights is not None:
        model = model.model_copy(update={"weights": (base / model.weights).resolve()})
    start = config.start and (base / config.start).resolve()
    return config.model_copy(update={"sites": sites, "model": model, "start": start})


def dump_config(config: RunConfig) -> str:
    """Return the whole configuration as TOML, every default written out."""
    return tomli_w.dumps(config.model_dump(mode="json", by_alias=True, exclude_none=True))


def differing_keys(one: RunConfig, other: RunConfig) -> list[str]:
    """Return the dotted keys in which two configurations differ; none when they are equal.

    Where a store lies is not compared, only whether a site has one: folders are moved and copied to
    other machines, and what a store holds is compared apart, by `flames.federation.environment`. Of
    the run that one begins with only the name of the folder is.
    """

    def flat(section: Mapping[str, Any], start: str = "") -> Iterator[tuple[str, Any]]:
        for key, value in section.items():
            if isinstance(value, Mapping):
                yield from flat(value, f"{start}{key}.")
            else:
                yield f"{start}{key}", value

    def anywhere(config: RunConfig) -> dict[str, Any]:
        content = config.model_dump(mode="json", by_alias=True)
        content["sites"] = [
            site | {"store": site["store"] is not None} for site in content["sites"]
        ]
        content["start"] = config.start and config.start.name
        return dict(flat(content))

    mine, theirs = anywhere(one), anywhere(other)
    every = dict.fromkeys([*mine, *theirs])
    return [key for key in every if mine.get(key) != theirs.get(key)]


def _put(content: dict[str, Any], key: str, text: str) -> None:
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *tables, last = key.split(".")
    for table in tables:
        content = content.setdefault(table, {})
        if not isinstance(content, dict):
            raise FlamesError(f"--set {key}: {table!r} is not a table", "write table.key=value")
    content[last] = value


def _merge(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(defaults)
    for key, value in given.items():
        known = merged.get(key)
        both = isinstance(known, Mapping) and isinstance(value, Mapping)
        merged[key] = (
            _merge(cast("Mapping[str, Any]", known), cast("Mapping[str, Any]", value))
            if both
            else value
        )
    return merged


def _explain(error: ValidationError, where: str) -> FlamesError:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        name = str(first["loc"][-1])
        return FlamesError(
            f"{where}: unknown key {place!r}", nearest(name, _keys_at(first["loc"][:-1]))
        )
    if first["type"] == "missing":
        return FlamesError(
            f"{where}: {place!r} is missing", "add it; docs/reference lists the keys"
        )
    got = f", found {first['input']!r}" if not isinstance(first["input"], dict) else ""
    says = first["msg"].removeprefix("Value error, ")
    return FlamesError(f"{where}: {place or 'content'}: {says}{got}", "mend that value")


def _keys_at(place: tuple[int | str, ...]) -> Iterator[str]:
    section: type[BaseModel] = RunConfig
    for part in place:
        if part == "sites":
            section = SiteConfig
        elif isinstance(part, str):
            for name, field in section.model_fields.items():
                if name.replace("_", "-") == part and isinstance(field.annotation, type):
                    section = field.annotation
                    break
    return (name.replace("_", "-") for name in section.model_fields)

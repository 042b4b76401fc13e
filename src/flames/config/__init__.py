"""What a run can be asked for, and the TOML file that asks for it."""

from __future__ import annotations

from flames.config.files import (
    PROFILES,
    differing_keys,
    dump_config,
    load_config,
    parse_config,
)
from flames.config.sections import (
    MODALITIES,
    STRATEGY_NAMES,
    DataConfig,
    EvaluationConfig,
    Modality,
    ModelConfig,
    ModelName,
    PlanConfig,
    RunConfig,
    Section,
    SiteConfig,
    StrategyName,
    TrainingConfig,
    WireConfig,
)

__all__ = [
    "MODALITIES",
    "PROFILES",
    "STRATEGY_NAMES",
    "DataConfig",
    "EvaluationConfig",
    "Modality",
    "ModelConfig",
    "ModelName",
    "PlanConfig",
    "RunConfig",
    "Section",
    "SiteConfig",
    "StrategyName",
    "TrainingConfig",
    "WireConfig",
    "differing_keys",
    "dump_config",
    "load_config",
    "parse_config",
]

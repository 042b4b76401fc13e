"""TorchScript: one file that PyTorch, in Python or C++, runs without FLAMES."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import torch
from torch import nn

from flames.errors import FlamesError
from flames.inference.score import TrainedModel

FACTS = "flames.json"


def write_torchscript(model: TrainedModel, metadata: dict[str, str], folder: Path) -> Path:
    """Write ``model.ts``: squares ``(N, 1, S, S)`` in [-1, 1] → logits of the same shape.

    A network in three dimensions takes patches ``(N, 1, D, H, W)`` of its plan.
    """
    path = folder / "model.ts"
    model.network.eval()
    with torch.inference_mode():
        traced = torch.jit.trace(model.network, torch.zeros(2, 1, *model.sides))
    torch.jit.save(traced, str(path), _extra_files={FACTS: json.dumps(metadata)})
    return path


def load_torchscript(path: Path) -> nn.Module:
    """Return the network in a TorchScript file.

    Raises:
        FlamesError: It is damaged.
    """
    return _load(path)[0]


def torchscript_metadata(path: Path) -> dict[str, str]:
    """Return the facts that `write_torchscript` put into the file."""
    return _load(path)[1]


def _load(path: Path) -> tuple[nn.Module, dict[str, str]]:
    extra = {FACTS: ""}
    try:
        with warnings.catch_warnings():
            # torch recommends its successor, which C++ and MONAI's bundles do not run yet.
            warnings.simplefilter("ignore", DeprecationWarning)
            network = torch.jit.load(str(path), map_location="cpu", _extra_files=extra)
        facts = extra[FACTS]
        text = facts.decode() if isinstance(facts, bytes) else facts
        return network, dict(json.loads(text or "{}"))
    except (RuntimeError, ValueError, OSError) as error:
        first = str(error).strip().splitlines()[0][:200]
        raise FlamesError(f"cannot read {path}: {first}", "export the model again") from error

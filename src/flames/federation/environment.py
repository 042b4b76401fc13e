"""What a run ran on: versions, processor, commit and the digests of its stores."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import flames
from flames.data.store import SiteStore

PACKAGES = ("torch", "monai", "numpy", "scipy", "safetensors", "nibabel")


def describe_environment(stores: Mapping[str, SiteStore]) -> dict[str, Any]:
    """Return what a reader needs to judge or repeat the run; no user or host name."""
    import torch

    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "flames": flames.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "system": f"{platform.system()} {platform.machine()}",
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "stores": {name: store.splits.cases_digest for name, store in stores.items()},
    }


def _commit() -> str | None:
    try:
        result = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except OSError:
        return None
    return result.stdout.strip() or None

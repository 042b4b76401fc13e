"""Makes found: the writers of made-up DICOM of the tests of reading, and this room's own."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "data"), str(Path(__file__).parent)]

"""Records of cases that no store holds."""

from __future__ import annotations

from flames.data.store import CaseRecord


def record(number: int, group: str, tumour: bool = True, category: str | None = None) -> CaseRecord:
    """Return the record of a picture."""
    return CaseRecord(
        case_id=f"case-{number}",
        patient_id=None,
        group=group,
        shape=(4, 4),
        spacing=(1.0, 1.0),
        spacing_unit="px",
        affine=None,
        slice_axis=None,
        intensity=(0.0, 1.0),
        tumour_voxels=int(tumour),
        category=category,
    )

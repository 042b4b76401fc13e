"""DICOM: series found by their own geometry, labels of planning systems and viewers, and hashes."""

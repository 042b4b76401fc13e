"""Federated tumour segmentation across hospitals, organs and imaging modalities."""

__version__ = "0.1.0"

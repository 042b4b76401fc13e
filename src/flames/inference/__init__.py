"""Predict in an image's own geometry and score a split."""

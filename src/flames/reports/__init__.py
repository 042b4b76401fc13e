"""A run folder becomes tables, figures and one HTML file."""

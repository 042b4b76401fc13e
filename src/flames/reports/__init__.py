"""A run folder becomes tables, figures and one HTML file."""

from flames.reports.html import write_report
from flames.reports.terminal import print_summary

__all__ = ["print_summary", "write_report"]

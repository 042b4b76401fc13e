"""Several finished runs become one comparison: tables, figures and a page of failures."""

from flames.reports.compare.html import write_comparison

__all__ = ["write_comparison"]

"""The report: tables and plots of the newest results, between two markers of a page whose prose stays as it is."""

from .page import write

__all__ = ["write"]

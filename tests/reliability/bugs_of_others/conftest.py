"""Regression tests for what went wrong elsewhere; docs/bugs-of-others.md lists the bugs and these tests.

The tables are looked at after each test, as in the conformance suite.
"""

from tests.conformance.conftest import cache_size, consistent_tables

__all__ = ["cache_size", "consistent_tables"]

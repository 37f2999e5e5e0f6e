"""Helpers for tests of projects that use workflows."""

from __future__ import annotations

from .workers import running_worker

__all__ = ["running_worker"]

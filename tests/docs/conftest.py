"""The package `shop` of the documentation: imported before the test database is made, so that it gets its table."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "project"))
import_module("shop.models")

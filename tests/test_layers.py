"""Imports point down only: the table of docs/architecture.md, held."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "django_workflows"

MODULES = {
    "values": [
        "exceptions",
        "pydantic_models",
        "converters",
        "annotations",
        "payload_checks",
        "codec",
        "payloads",
        "failures",
        "retries",
        "registry",
        "keys",
    ],
    "engine": ["engine"],
    "authoring": ["authoring"],
    "base": ["conf", "models", "model_objects", "migrations", "observability"],
    "store": ["store"],
    "runtime": [
        "client",
        "completion",
        "handles",
        "updates",
        "waiting",
        "worker",
        "wakeups",
        "replayer",
        "propagators",
    ],
    "edges": ["inspection", "admin", "views", "urls", "templatetags", "management", "testing", "apps", "checks"],
    "analyzer": ["analyzer"],
    "face": [""],  # django_workflows itself: what users import
}

DJANGO = {"django", "asgiref"}
DRIVERS = {"psycopg", "MySQLdb", "django_redis", "redis", "opentelemetry"}
BELOW_RUNTIME = {"values", "engine", "authoring", "base", "store"}

# Layer -> (layers and single modules of ours, packages of others); a layer may always import itself and the stdlib.
MAY_IMPORT: dict[str, tuple[set[str], set[str]]] = {
    "values": (set(), {"msgspec"}),
    "engine": ({"values"}, {"msgspec"}),
    "authoring": ({"values", "engine"}, {"msgspec", "asgiref"}),  # sync_to_async, which needs no Django
    "base": ({"values"}, DJANGO | {"msgspec", "opentelemetry"}),
    "store": ({"values", "base", "engine.events", "engine.steps"}, DJANGO | DRIVERS | {"msgspec"}),
    "runtime": (BELOW_RUNTIME, DJANGO | DRIVERS | {"msgspec"}),
    "edges": (BELOW_RUNTIME | {"runtime", "face", "analyzer"}, DJANGO | DRIVERS | {"msgspec"}),
    "analyzer": (set(), set()),
    "face": ({"values", "engine", "authoring"}, set()),
}


def layer_of(module: str) -> str | None:
    """Return the layer of a module of ours, named without the package: "engine.loop" is in "engine"."""
    top = module.partition(".")[0]
    return next((layer for layer, modules in MODULES.items() if top in modules), None)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def is_type_checking(node: ast.If) -> bool:
    return ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def import_nodes(node: ast.AST, lazy: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the imports that run; those inside functions only where `lazy`."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield node
        return
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not lazy:
        return
    children = node.orelse if isinstance(node, ast.If) and is_type_checking(node) else ast.iter_child_nodes(node)
    for child in children:
        yield from import_nodes(child, lazy)


def imported(node: ast.Import | ast.ImportFrom, package: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    base = node.module or ""
    if node.level:
        parts = package.split(".")
        base = ".".join([*parts[: len(parts) - node.level + 1], *([base] if base else [])])
    for alias in node.names:
        inside = f"{base}.{alias.name}"
        yield inside if base.split(".")[0] == PACKAGE and is_module(inside) else base


def forbidden(layer: str, target: str) -> str:
    """Return why this layer may not import the target, or nothing."""
    ours, others = MAY_IMPORT[layer]
    top, _, inner = target.partition(".")
    if top != PACKAGE:
        return "" if top in sys.stdlib_module_names or top in others else "not among its packages"
    other = layer_of(inner)
    if other == layer or other in ours or any(inner == name or inner.startswith(f"{name}.") for name in ours):
        return ""
    return f"layer {other or 'unknown'}"


def violations(source: str, module: str, is_package: bool) -> list[str]:
    inner = module.removeprefix(PACKAGE).lstrip(".")
    layer = layer_of(inner)
    if layer is None:
        return [f"{module} is in no layer: add it to MODULES in tests/test_layers.py"]
    package = module if is_package else module.rpartition(".")[0]
    found = []
    # The face reaches the client from its lazy __getattr__, which is what keeps Django out of the engine.
    for node in import_nodes(ast.parse(source), lazy=layer != "face"):
        for target in imported(node, package):
            if reason := forbidden(layer, target):
                found.append(f"{module}:{node.lineno} ({layer}) imports {target}: {reason}")
    return found


def test_imports_point_down_only() -> None:
    found = []
    for path in sorted((ROOT / PACKAGE).rglob("*.py")):
        found += violations(path.read_text(encoding="utf-8"), module_name(path), path.name == "__init__.py")
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("engine.loop", "import django.utils.timezone"),
        ("engine.loop", "def f():\n    from ..models import Worker"),
        ("engine.loop", "from .. import store"),
        ("exceptions", "from django_workflows.engine import events"),
        ("conf", "from django_workflows.authoring import workflow"),
        ("store.turns", "from django_workflows.engine.machine import Machine"),
        ("client", "from django_workflows.testing import running_worker"),
        ("client", "import requests"),
        ("worker.loop", "from django_workflows import workflow"),
        ("misplaced", ""),
    ],
)
def test_an_upward_import_is_found(module: str, source: str) -> None:
    assert violations(source, f"{PACKAGE}.{module}", is_package=False)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("engine.loop", "import asyncio\nfrom ..exceptions import NondeterminismError\nfrom . import events"),
        ("engine.loop", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..store import turns"),
        ("store.turns", "from django_workflows.engine.events import Event\nimport django.db"),
        ("testing.worker", "from django_workflows import workflow"),
        ("", "def __getattr__(name):\n    from django_workflows import client"),
    ],
)
def test_a_downward_import_is_accepted(module: str, source: str) -> None:
    assert violations(source, f"{PACKAGE}.{module}".rstrip("."), is_package=module == "") == []


@pytest.mark.parametrize("module", ["django_workflows.engine", "django_workflows.authoring"])
def test_importing_it_leaves_django_alone(module: str) -> None:
    code = f"import sys, {module}; print(*[m for m in sys.modules if m.split('.')[0] == 'django'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""

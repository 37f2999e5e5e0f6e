"""Runs the Python blocks of README.md and docs/*.md, each page from top to bottom as one story.

A block that begins with `# shop/workflows.py` is that module, or more of it. Any other block runs as in one shell
session for the whole page, `await` included. Functions named `test_...` and test cases are run where they stand. What a
reader need not see is in a comment: `<!-- check`, code, `-->`; there `PAGE` is the page's text. A worker runs all the
time.

Of `console` blocks, the commands over the client are run, and what they print must be what the page shows, but for
times, durations, numbers and ids.
"""

from __future__ import annotations

import ast
import inspect
import io
import re
import shlex
import sys
import unittest
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.management import call_command, get_commands
from django.core.management.base import CommandError

from django_workflows import registry
from django_workflows.testing import running_worker

ROOT = Path(__file__).resolve().parent.parent.parent
BLOCK = re.compile(
    r"^```python\n(?P<shown>.*?)^```$|^<!-- check\n(?P<hidden>.*?)^-->$|^```console\n(?P<console>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
MODULE = re.compile(r"# shop/(\w+)\.py\n")
PAGES = [path for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))] if BLOCK.search(path.read_text())]
OVER_THE_CLIENT = {
    name for name, app in get_commands().items() if app == "django_workflows" and name != "runworkflowworker"
}


class Page:
    """The modules and the session of one page while its blocks run."""

    def __init__(self, path: Path, patch: pytest.MonkeyPatch) -> None:
        self.path, self.patch = path, patch
        self.session: dict[str, Any] = {"__name__": "shop.shell", "PAGE": path.read_text(), "ROOT": ROOT}

    def run(self) -> None:
        text = self.path.read_text()
        for match in BLOCK.finditer(text):
            if match["console"]:
                self.type_into_a_shell(match["console"])
                continue
            source = match["shown"] or match["hidden"]
            line = text[: match.start()].count("\n") + 1
            module = MODULE.match(source)
            if module and module[1] == "models":
                self.compare_with_models(source)
            else:
                self.execute(source, line, self.module(module[1]) if module else self.session)

    def type_into_a_shell(self, console: str) -> None:
        for part in re.split(r"^\$ ", console, flags=re.MULTILINE)[1:]:
            line, _, shown = part.partition("\n")
            words = shlex.split(line, comments=True)
            if words[:2] == ["python", "manage.py"] and words[2] in OVER_THE_CLIENT:
                printed = output_of(words[2], words[3:])
                assert masked(printed) == masked(shown), f"{self.path.name}: {line}\n{printed}"

    def compare_with_models(self, source: str) -> None:
        """A model can be defined once only: the page must show what the test database has."""
        actual = (ROOT / "tests/docs/project/shop/models.py").read_text()
        missing = [line for line in source.splitlines()[1:] if line not in actual.splitlines()]
        assert not missing, f"{self.path.name}: tests/docs/project/shop/models.py lacks {missing}"

    def module(self, name: str) -> dict[str, Any]:
        full = f"shop.{name}"
        if full not in sys.modules:
            module = ModuleType(full)
            module.__package__ = "shop"
            self.patch.setitem(sys.modules, full, module)
            self.patch.setattr(sys.modules["shop"], name, module, raising=False)
        return vars(sys.modules[full])

    def execute(self, source: str, line: int, namespace: dict[str, Any]) -> None:
        known = set(namespace)
        # Empty lines above, so that tracebacks name the page's own lines.
        code: CodeType = compile(
            "\n" * line + source, str(self.path.relative_to(ROOT)), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, True
        )
        if code.co_flags & inspect.CO_COROUTINE:
            async_to_sync(self._await)(code, namespace)
        else:
            exec(code, namespace)
        for name in sorted(set(namespace) - known, key=list(namespace).index):
            run_tests(name, namespace[name])

    async def _await(self, code: CodeType, namespace: dict[str, Any]) -> None:
        await eval(code, namespace)


def output_of(command: str, arguments: list[str]) -> str:
    """Return what a command prints on both streams, its error included."""
    printed = io.StringIO()
    try:
        call_command(command, *arguments, stdout=printed, stderr=printed)
    except CommandError as error:
        printed.write(f"CommandError: {error}\n")
    return printed.getvalue()


def masked(text: str) -> str:
    """Return the text without what is different each time: numbers, durations, workers, columns."""
    text = re.sub(r"Held by +\S+", "Held by WORKER", text)
    text = re.sub(r"\b[0-9a-f]{32}\b|\d[\d.:,-]*", "N", text)
    text = re.sub(r"\bN (ms|s|min|h|d)\b( N (s|min|h)\b)?", "T", text)
    return re.sub(r"[ ]+", " ", text).strip()


def run_tests(name: str, value: Any) -> None:
    if name.startswith("test_") and inspect.isfunction(value):
        value()
    elif inspect.isclass(value) and issubclass(value, unittest.TestCase) and value.__module__.startswith("shop."):
        result = unittest.TestResult()
        unittest.defaultTestLoader.loadTestsFromTestCase(value).run(result)
        problems = [*result.errors, *result.failures]
        assert result.testsRun and not problems, "\n".join(text for _, text in problems)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_the_examples_of(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for names in (registry.workflows, registry.activities):
        # Every page has the names to itself.
        monkeypatch.setattr(names, "_definitions", {})
    with running_worker():
        Page(path, monkeypatch).run()

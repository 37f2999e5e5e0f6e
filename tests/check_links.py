"""Check that the links between the Markdown files resolve: `python -m tests.check_links`. Needs no package."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(r"^(`{3,}|~{3,}).*?^\1\s*$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")
LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
DEFINITION = re.compile(r"^\[[^\]]+\]:\s*<?(\S+?)>?\s*$", re.MULTILINE)
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)
ANCHOR = re.compile(r"<a\s+(?:id|name)=\"([^\"]+)\"")


def anchors(path: Path) -> set[str]:
    """Return the fragments that GitHub gives to a file's headings."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    found = set(ANCHOR.findall(text))
    seen: dict[str, int] = {}
    for heading in HEADING.findall(text):
        title = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        count = seen.get(slug, 0)
        seen[slug] = count + 1
        found.add(f"{slug}-{count}" if count else slug)
    return found


def links(text: str) -> Iterator[str]:
    prose = CODE.sub("``", FENCE.sub("", text))
    yield from LINK.findall(prose)
    yield from DEFINITION.findall(prose)


def problem(source: Path, link: str) -> str:
    """Return what is wrong with a link, or nothing; links out of the repository are not followed."""
    if re.match(r"[a-z][a-z0-9+.-]*:", link, re.IGNORECASE):
        return ""
    name, _, fragment = unquote(link).partition("#")
    target = (source.parent / name).resolve() if name else source
    if not target.exists():
        return "no such file"
    if not target.is_relative_to(ROOT):
        return "outside the repository"
    if fragment and target.suffix == ".md" and fragment.lower() not in anchors(target):
        return f"no heading gives #{fragment}"
    return ""


def main() -> int:
    files = [path for path in [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md"))] if path.is_file()]
    checked = broken = 0
    for source in files:
        for link in links(source.read_text(encoding="utf-8")):
            checked += 1
            if reason := problem(source, link):
                broken += 1
                print(f"{source.relative_to(ROOT)}: {link}: {reason}")
    print(f"{len(files)} files, {checked} links, {broken} broken")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())

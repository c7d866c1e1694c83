"""The documentation names what exists, and all of it."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def modules() -> set[str]:
    """Paths of all modules but the empty ones, which only make a folder a package."""
    found = (ROOT / "mars5").rglob("*.py")
    return {path.relative_to(ROOT).as_posix() for path in found if path.stat().st_size}


def test_architecture_names_modules_that_exist() -> None:
    named = set(re.findall(r"\bmars5/[\w/]+\.py\b", ARCHITECTURE))
    assert named - modules() == set()


def test_architecture_gives_every_module_a_line() -> None:
    rows = re.findall(r"^\| `(mars5/[\w/]+\.py)` \| \S", ARCHITECTURE, re.MULTILINE)
    assert sorted(rows) == sorted(modules())


def test_links_between_pages_lead_somewhere() -> None:
    broken = [
        f"{page.name}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\((?!https?://|#)([^)#\s]+)", page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert broken == []


def test_other_paths_named_by_the_pages_exist() -> None:
    pattern = r"(?<![\w/])(?:tests|benchmarks|docs|examples)/[\w/.]*\w"
    missing = {
        f"{page.name}: {path}"
        for page in PAGES
        for path in re.findall(pattern, page.read_text(encoding="utf-8"))
        if not (ROOT / path).exists()
    }
    assert missing == set()

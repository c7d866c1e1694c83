"""The documentation names what exists, and all of it."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("mars5/nano/*.md")])
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


def anchors_of(page: Path) -> set[str]:
    """What GitHub calls the headings of a page."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    heads = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_links_into_pages_lead_to_headings() -> None:
    broken = [
        f"{page.name}: {target}#{anchor}"
        for page in PAGES
        for target, anchor in re.findall(
            r"\]\((?!https?://)([^)#\s]*)#([^)\s]+)\)", page.read_text(encoding="utf-8")
        )
        if anchor not in anchors_of(page.parent / target if target else page)
    ]
    assert broken == []


def test_anchors_of_headings(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# From A: `b_c`, and 2-3!\n```\n# a comment\n```\n")
    assert anchors_of(page) == {"from-a-b_c-and-2-3"}


def test_other_paths_named_by_the_pages_exist() -> None:
    pattern = r"(?<![\w/])(?:tests|benchmarks|docs|examples)/[\w/.]*\w"
    missing = {
        f"{page.name}: {path}"
        for page in PAGES
        for path in re.findall(pattern, page.read_text(encoding="utf-8"))
        if not (ROOT / path).exists()
    }
    assert missing == set()

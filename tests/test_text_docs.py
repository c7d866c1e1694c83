"""docs/text.md is true: its code runs, its table holds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mars5.text import normalise

PAGE = (Path(__file__).parent.parent / "docs" / "text.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
TABLE = re.findall(
    r"^\| `(.+?)` \| (.+?) \|$", PAGE.split("## What is written out")[1], re.MULTILINE
)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_code_blocks_run(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "assert" in block
    exec(compile(block, "text.md", "exec"), {})


@pytest.mark.parametrize(("written", "said"), TABLE)
def test_table_of_what_is_written_out(written: str, said: str) -> None:
    assert normalise(written) == said


def test_the_page_has_them() -> None:
    assert len(BLOCKS) == 9
    assert len(TABLE) > 30

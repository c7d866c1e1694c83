"""The README is true: its code runs, its links and files exist."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", TEXT, re.S)
NOT_RUN = re.findall(r"```python no-run\n(.*?)```", TEXT, re.S)


@pytest.mark.parametrize("block", PYTHON, ids=range(len(PYTHON)))
def test_code_blocks_run(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(block, "README.md", "exec"), names)
    audio = names["speech"].audio if "speech" in names else names["audio"]  # type: ignore[attr-defined]
    assert len(audio) > 4800
    assert audio.isfinite().all()


def test_code_blocks_that_need_downloads_are_valid() -> None:
    assert len(NOT_RUN) == 2
    for block in NOT_RUN:
        compile(block, "README.md", "exec")


def test_map_names_every_folder() -> None:
    table = TEXT.split("## Map")[1].split("##")[0]
    for folder in {path.parent for path in (ROOT / "mars5").rglob("*.py")}:
        name = folder.relative_to(ROOT).as_posix()
        assert f"`{name}/`" in table, f"{name} is not in the README's map"

"""The code on the pages runs; text, profiles, styles and verify have tests of their own."""

from __future__ import annotations

import re
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from mars5 import Mars5TTS
from mars5.engine import Engine

ROOT = Path(__file__).parent.parent


def blocks_of(page: str) -> list[str]:
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


BLOCKS = [
    pytest.param(block, id=f"{page}-{number}")
    for page in ("streaming", "longform", "batch")
    for number, block in enumerate(blocks_of(page))
]


@pytest.mark.parametrize("block", BLOCKS)
def test_code_blocks_run(
    block: str, tiny_speaking: Mars5TTS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a tiny model, which makes as much noise as nano makes speech, but sooner."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Mars5TTS, "from_pretrained", lambda: tiny_speaking)
    assert "assert" in block
    exec(compile(block, "docs", "exec"), {})


@pytest.fixture(scope="module")
def tiny_speaking(tiny: Mars5TTS) -> Mars5TTS:
    """With a voice of its own."""
    parts = tiny.ar, tiny.nar, tiny.text_tokenizer, tiny.speech_tokenizer, tiny.codec
    noise = 0.1 * torch.randn(20_000, generator=torch.Generator().manual_seed(1))
    return Mars5TTS(Engine(*parts, tiny.vocoder, tiny.config, tiny.voice(noise)))


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What the blocks of a page have defined so far; they run beside the examples."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    return {}


def test_voices(names: dict[str, object]) -> None:
    for block in blocks_of("voices"):
        exec(compile(block, "voices.md", "exec"), names)
    assert Path("new.voice").is_file()


@pytest.mark.skipif(
    any(find_spec(name) is None for name in ("faster_whisper", "rapidfuzz")),
    reason="needs the extra: pip install 'mars5[eval]'",
)
def test_editing(names: dict[str, object]) -> None:
    """One block after the other: each goes on from those before it."""
    removed = []
    for block in blocks_of("editing"):
        exec(compile(block, "editing.md", "exec"), names)
        removed.append([span.old for span in names["edited"].spans])  # type: ignore[attr-defined]
    assert removed == [["rather"], ["ill"], ["evening"]]


def test_the_pages_have_them() -> None:
    assert len(BLOCKS) == 10
    assert len(blocks_of("voices")) == 3

"""docs/streaming.md and docs/longform.md are true: their code runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from mars5 import Mars5TTS
from mars5.engine import Engine

DOCS = Path(__file__).parent.parent / "docs"
BLOCKS = [
    pytest.param(block, id=f"{page}-{number}")
    for page in ("streaming", "longform")
    for number, block in enumerate(
        re.findall(r"```python\n(.*?)```", (DOCS / f"{page}.md").read_text("utf-8"), re.DOTALL)
    )
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


def test_the_pages_have_them() -> None:
    assert len(BLOCKS) == 7

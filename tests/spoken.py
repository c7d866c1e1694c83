"""What the tests of the facade say, and how they compare it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mars5 import InferenceConfig, Speech

TEXT, SAID = "hello there", "the words"
SHORT = InferenceConfig(timesteps=2, generate_max_len_override=40, freq_penalty=0, deep_clone=False)
DEEP = replace(SHORT, generate_max_len_override=100, deep_clone=True)


def assert_same(one: Speech, other: Speech) -> None:
    assert torch.equal(one.codes, other.codes)
    assert torch.equal(one.ar_codes, other.ar_codes)
    assert torch.equal(one.audio, other.audio)
    assert one.finish_reason == other.finish_reason


def end_after(monkeypatch: pytest.MonkeyPatch, n: int, end: int) -> None:
    """Let the AR draw its end token after `n` others."""
    from mars5.ar.sampling import draw

    drawn: list[Tensor] = []

    def counted(probabilities: Tensor, noise: Tensor) -> Tensor:
        drawn.append(draw(probabilities, noise))
        return torch.full_like(drawn[-1], end) if len(drawn) > n else drawn[-1]

    monkeypatch.setattr("mars5.ar.sampler.draw", counted)

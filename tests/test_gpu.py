"""The same speech path on a CUDA device; skipped where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mars5 import InferenceConfig, Mars5TTS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_speaks_on_cuda(dtype: torch.dtype, tiny_folder: Path, speechlike: np.ndarray) -> None:
    system = Mars5TTS.from_pretrained(tiny_folder, device="cuda", dtype=dtype)
    assert system.ar.embed.weight.dtype == dtype
    cfg = InferenceConfig(timesteps=200, generate_max_len_override=60, deep_clone=False)
    for settings in (None, cfg):
        speech = system.generate("hello there", speechlike, None, settings, seed=1)
        assert speech.audio.device.type == "cpu"
        assert speech.audio.isfinite().all()


def test_float32_on_cuda_equals_the_cpu(
    tiny: Mars5TTS, tiny_folder: Path, speechlike: np.ndarray
) -> None:
    cuda = Mars5TTS.from_pretrained(tiny_folder, device="cuda", dtype=torch.float32)
    for system in (tiny, cuda):
        system.generate("hello", speechlike, seed=1)
    a, b = (s.generate("hello", speechlike, seed=1).ar_codes for s in (tiny, cuda))
    assert (a[:10] == b[:10]).float().mean() > 0.8  # rounding may tip a choice

"""The same speech path on a CUDA device; skipped where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mars5 import InferenceConfig, Mars5TTS
from mars5.ar.decode import Request, generate_many
from mars5.ar.graph import GraphedSteps, Spare
from mars5.ar.steps import EagerSteps
from mars5.nar.decode import Known, denoise
from mars5.nar.diffusion import cosine_schedule
from mars5.nar.estimate import Estimator
from mars5.nar.graph import GraphedDecoder
from mars5.nar.settle import Settling

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


@pytest.mark.parametrize("settle_step", [0, 120])
@pytest.mark.parametrize("visited", [4, 200])
def test_graphs_of_the_nar_equal_its_plain_steps(
    visited: int, settle_step: int, tiny_folder: Path
) -> None:
    books = torch.randn(8, 1024, 6, generator=torch.Generator().manual_seed(2)).to("cuda")
    settling = Settling(settle_step, books) if settle_step else None
    nar = Mars5TTS.from_pretrained(tiny_folder, device="cuda", dtype=torch.float32).nar
    decoder = GraphedDecoder(nar)
    schedule = cosine_schedule(200).to("cuda")

    def both(*arguments: Any) -> Tensor:
        wanted, found = nar.decode(*arguments), decoder(*arguments)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-3)
        return wanted

    for frames in (30, 50, 70, 50):  # two of them share a graph
        coarse = torch.arange(frames, device="cuda")[None]
        text = torch.arange(frames // 5, device="cuda")[None]
        lengths = torch.tensor([text.shape[1]], device="cuda")
        speaker = nar.no_speaker_vector(1) + 1
        one = Estimator(nar, text, lengths, speaker, 3.0, 0.7, decode=both)
        generator = torch.Generator().manual_seed(1)
        walk = one, Known.from_coarse(coarse), schedule, visited, 3, generator, settling
        assert len(list(denoise(*walk))) > 1


def test_codec_and_vocoder_on_cuda_equal_the_cpu(
    tiny: Mars5TTS, tiny_folder: Path, speechlike: np.ndarray
) -> None:
    cuda = Mars5TTS.from_pretrained(tiny_folder, device="cuda", dtype=torch.float32)
    codes = tiny.voice(speechlike).codes
    assert (cuda.voice(speechlike).codes == codes).float().mean() > 0.95
    assert torch.allclose(cuda.vocode(codes), tiny.vocode(codes), atol=1e-3)


@pytest.mark.parametrize("rows", [1, 3])
def test_the_graph_draws_what_eager_steps_draw(
    rows: int, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float32, across a change of bucket, with rows refilled, twice with the same graphs."""
    monkeypatch.setattr("mars5.ar.graph.BUCKET", 16)
    system = Mars5TTS.from_pretrained(tiny_folder, device="cuda", dtype=torch.float32)
    cfg = InferenceConfig(top_p=0.9, freq_penalty=0.5, generate_max_len_override=60)

    def run(spare: Spare) -> list[list[int]]:
        generators = [torch.Generator().manual_seed(i) for i in range(5)]
        speaker = torch.zeros(1, system.config.ar.dim)
        requests = [Request(range(3 + i), speaker, 20, g) for i, g in enumerate(generators)]
        ids: list[list[int]] = [[] for _ in requests]
        for drawn in generate_many(system.ar, requests, system.vocabulary, cfg, rows, spare):
            ids[drawn.index] += drawn.ids
        return ids

    class Plain(Spare):
        def take(self, *arguments) -> EagerSteps:  # type: ignore[no-untyped-def]
            return EagerSteps(*arguments)

    wanted, spare = run(Plain()), Spare()
    assert run(spare) == wanted
    steps = spare.take(system.ar, system.vocabulary, cfg, rows)
    assert isinstance(steps, GraphedSteps)
    assert len(steps._graphs) > 1
    spare.give(steps)
    assert run(spare) == wanted

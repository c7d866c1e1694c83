"""A tiny random system of the embedded kind, on disk and loaded, for tests of everything above."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import checkpoint_files as files
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mars5 import Mars5TTS
from mars5.ar.model import CodecLM
from mars5.checkpoint import write_checkpoint
from mars5.codec import MelCodec, MelCodecDims
from mars5.config import ARDims, ModelConfig, NARDims, PromptConvention
from mars5.conversion import OwnVoice
from mars5.conversion.pitch import Register
from mars5.conversion.transposer import Transposer, TransposerDims
from mars5.engine import Engine, Task
from mars5.nar.model import ResidualTransformer
from mars5.tokenizers import SpeechTokenizer, TextTokenizer
from mars5.vocoder import Vocoder, VocoderDims

CODEC_DIMS = {"stack": 2, "rank": 8, "n_mels": 12, "n_fft": 512, "hop": 320}
VOCODER_DIMS = {
    "channels": 12,
    "stack": 2,
    "dim": 16,
    "ff_dim": 24,
    "n_layers": 1,
    "n_bandwidths": 0,
}

TRANSPOSER_DIMS = {"n_mels": 12, "dim": 16, "ff_dim": 24, "n_layers": 1}


def tiny_tokenizers() -> tuple[TextTokenizer, SpeechTokenizer]:
    text = TextTokenizer(
        [(104, 101), (32, 116)],
        {"<|startoftext|>": 258, "<|endoftext|>": 259, "<|padding|>": 260},
    )
    speech = SpeechTokenizer([(1, 1)], {"<|endofspeech|>": 1025})
    return text, speech


def tiny_config() -> ModelConfig:
    text, speech = tiny_tokenizers()
    return ModelConfig(
        ARDims(len(text) + len(speech), 32, 2, 2, 48, 1, 64, 3000),
        NARDims(len(text) + 1, dim=32, n_heads=2, n_enc_layers=1, n_dec_layers=1,
                n_spk_layers=1, ff_dim=48, t_emb_dim=16),
        PromptConvention(drop_first=False, repeat_reference=False),
        {"name": "mel-rvq", "dims": CODEC_DIMS, "vocoder": VOCODER_DIMS},
        {"timesteps": 4, "generate_max_len_override": 120, "freq_penalty": 0.0},
        {"name": "tiny random test model"},
    )  # fmt: skip


def converting(config: ModelConfig) -> ModelConfig:
    """The same with a delivery of its own, and a transposer."""
    return replace(
        config,
        prompt=replace(config.prompt, own_delivery=True),
        codec={**config.codec, "transposer": TRANSPOSER_DIMS},
        defaults={**config.defaults, "voice_conversion": 1.0},
    )


def write_tiny_model(folder: Path, config: ModelConfig | None = None) -> Path:
    """A random checkpoint folder; the same weights every time.

    If its config is `converting`, it has a transposer and a default voice.
    """
    config = config or tiny_config()
    torch.manual_seed(11)
    text, speech = tiny_tokenizers()
    ar, nar = CodecLM(config.ar), ResidualTransformer(config.nar)
    codec = MelCodec(MelCodecDims(**CODEC_DIMS))
    for buffer in codec.state_dict().values():
        buffer.normal_()
    vocoder = Vocoder(VocoderDims(**VOCODER_DIMS), 8192)
    for kind, model in (("ar", ar), ("nar", nar)):
        weights = dict(model.state_dict())
        write_checkpoint(folder / f"mars5_{kind}.safetensors", weights, text, speech, config)
    parts = {f"codec.{k}": v for k, v in codec.state_dict().items()}
    parts |= {f"vocoder.{k}": v for k, v in vocoder.state_dict().items() if k != "table"}
    if "transposer" in config.codec:
        transposer = Transposer(TransposerDims(**TRANSPOSER_DIMS))
        parts |= {f"transposer.{k}": v for k, v in transposer.state_dict().items()}
        spoken = torch.randint(1024, (200, 8), generator=torch.Generator().manual_seed(1))
        told = OwnVoice(spoken, Register(110.0, 0.1)).weights()
        parts |= {f"own.{k}": v for k, v in told.items()}
    save_file(parts, folder / "mars5_codec.safetensors")
    if "transposer" in config.codec:
        system = Mars5TTS.from_pretrained(folder, device="cpu")
        own = system.voice(torch.ones(30_000).cumsum(0).div(40).sin(), "Another.")
        own.save(folder / "default.voice.safetensors")
    return folder


@pytest.fixture(autouse=True)
def same_chance() -> None:
    """What a test draws without a generator is the same each time."""
    torch.manual_seed(20)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> Mars5TTS:
    return Mars5TTS.from_pretrained(tiny_folder, device="cpu")


@pytest.fixture(scope="session")
def speechlike() -> np.ndarray:
    """(T,) float32, 1.5 s at 24 kHz: a buzz with a changing pitch and loudness."""
    t = np.arange(36_000) / 24_000
    buzz = np.sin(2 * np.pi * (120 * t + 15 * np.sin(5 * t))) ** 7
    return (0.3 * buzz * (0.6 + 0.4 * np.sin(9 * t))).astype(np.float32)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """The two files of a sound checkpoint, AR and NAR."""
    paths = tmp_path / "ar.safetensors", tmp_path / "nar.safetensors"
    for path, weights in zip(paths, files.tiny_weights(), strict=True):
        write_checkpoint(path, weights, files.TEXT, files.SPEECH, files.CONFIG)
    return paths


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> list[Task]:
    """What the models are asked for."""
    seen: list[Task] = []
    task = Engine.task

    def spy(self: Engine, *given: object) -> Task:
        seen.append(task(self, *given))  # type: ignore[arg-type]
        return seen[-1]

    monkeypatch.setattr(Engine, "task", spy)
    return seen

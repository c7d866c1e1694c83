"""Systems of known sizes with random weights: as fast as trained ones, and nothing to download."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import cache
from typing import TypeVar

import torch
from torch import Tensor

from mars5.ar.model import CodecLM
from mars5.ar.steps import lay_side_by_side
from mars5.checkpoint import load_pair
from mars5.codec import MelCodec
from mars5.config import CODEBOOK_SIZE, N_CODEBOOKS, ModelConfig
from mars5.device import at_work, resolve_device, resolve_dtype
from mars5.encodec import EncodecCodec
from mars5.engine import Engine
from mars5.hub import NANO, find
from mars5.loading import load_sound
from mars5.nar.model import FLOAT32_PARTS, ResidualTransformer
from mars5.quantized import check_quantize, quantize_models
from mars5.tokenizers import SpeechTokenizer, TextTokenizer
from mars5.train.bpe import train_speech, train_text
from mars5.tts import Mars5TTS
from mars5.vocoder import Vocoder, VocoderDims

FULL = "full"
SIZES = (FULL, NANO)
# What the sizes of the published files imply: 2174 text ids and 5823 speech ids.
TEXT_MERGES, SPEECH_MERGES = 1915, 4798
POOL = 1_000_003  # random numbers that fill all weights; no row's length divides a prime

Parts = tuple[TextTokenizer, SpeechTokenizer, ModelConfig, EncodecCodec | MelCodec, Vocoder]
Model = TypeVar("Model", CodecLM, ResidualTransformer)


@at_work()
def random_system(
    size: str,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    quantize: str | None = None,
) -> Mars5TTS:
    """A system of the published sizes ("full") or of the embedded checkpoint's ("nano").

    What it says is noise. Arguments and errors are those of `Mars5TTS.from_pretrained`.
    """
    where = resolve_device(device)
    precision = resolve_dtype(dtype, where)
    check_quantize(quantize, where, precision)
    text, speech, config, codec, vocoder = _full_parts() if size == FULL else _nano_parts()
    ar = random_model(lambda: CodecLM(config.ar), where, precision)
    nar = random_model(lambda: ResidualTransformer(config.nar), where, precision, FLOAT32_PARTS)
    if quantize is None:
        lay_side_by_side(ar)
    else:
        quantize_models(ar, nar)
    codec.requires_grad_(False).eval().to(where)
    vocoder.requires_grad_(False).eval().to(where)
    return Mars5TTS(Engine(ar, nar, text, speech, codec, vocoder, config))


def _full_parts() -> Parts:
    """EnCodec and Vocos with random weights, too."""
    text, speech = make_tokenizers()
    vocoder = Vocoder(VocoderDims(), N_CODEBOOKS * CODEBOOK_SIZE)
    vocoder.table.copy_(random_weight("table", vocoder.table.shape, torch.float32))
    config = ModelConfig.published(len(text), len(speech))
    return text, speech, config, EncodecCodec(), vocoder


def _nano_parts() -> Parts:
    """The embedded checkpoint's own, but for the two transformers."""
    files = find(NANO)
    pair = load_pair(files.ar, files.nar)
    codec, vocoder, _ = load_sound(files, pair.config, {}, torch.device("cpu"))
    return pair.text_tokenizer, pair.speech_tokenizer, pair.config, codec, vocoder


def random_model(
    build: Callable[[], Model],
    device: torch.device,
    dtype: torch.dtype,
    float32_parts: Sequence[str] = (),
) -> Model:
    """A model with random weights; those with one of the parts in their name in float32."""
    with torch.device("meta"):  # no memory until the weights come
        model = build()
    weights = {}
    for name, empty in model.state_dict().items():
        wide = any(part in name for part in float32_parts)
        kind = torch.float32 if wide else dtype
        weights[name] = random_weight(name, empty.shape, kind).to(device)
    model.load_state_dict(weights, assign=True)
    return model.requires_grad_(False).eval()


def random_weight(name: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Small enough everywhere for activations to stay finite in half precision."""
    shape = torch.Size(shape)
    if len(shape) == 1:  # gains of norms and of positions are 1, biases 0
        return torch.full(shape, 0.0 if name.endswith("bias") else 1.0, dtype=dtype)
    weight = torch.empty(shape.numel(), dtype=dtype)
    for part in torch.split(weight, POOL):  # in place: what is freed leaves holes in the memory
        part.copy_(_pool(dtype)[: len(part)])
    return weight.view(shape)


@cache
def _pool(dtype: torch.dtype) -> Tensor:
    return torch.randn(POOL, generator=torch.Generator().manual_seed(1)).mul_(0.02).to(dtype)


def make_tokenizers() -> tuple[TextTokenizer, SpeechTokenizer]:
    """Tokenizers of the published sizes, trained on made-up words and on uneven random codes."""
    rng = random.Random(1)
    syllables = [c + v + e for c in "bcdfghlmnprstw" for v in "aeiou" for e in ("", *"nrst")]
    words = [" " + "".join(rng.choices(syllables, k=rng.randint(1, 4))) for _ in range(20_000)]
    shares = [1 / rank for rank in range(1, CODEBOOK_SIZE + 1)]
    codes = [rng.choices(range(CODEBOOK_SIZE), shares, k=300) for _ in range(400)]
    return train_text(["".join(words)], TEXT_MERGES), train_speech(codes, SPEECH_MERGES)

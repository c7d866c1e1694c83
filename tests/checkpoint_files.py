"""Small checkpoint files, sound and damaged ones, made for the tests."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from mars5.ar.model import CodecLM
from mars5.checkpoint import read_checkpoint
from mars5.config import ARDims, ModelConfig, NARDims
from mars5.encodec import EncodecCodec
from mars5.nar.model import ResidualTransformer
from mars5.tokenizers import SpeechTokenizer, TextTokenizer

TEXT = TextTokenizer([(97, 98)], {"<|startoftext|>": 257, "<|endoftext|>": 258})
SPEECH = SpeechTokenizer([], {"<|endofspeech|>": 1024})
N_TEXT, N_SPEECH = len(TEXT), len(SPEECH)
CONFIG = ModelConfig(
    ARDims(N_TEXT + N_SPEECH, 16, 2, 1, 12, 1, 12),
    NARDims(N_TEXT + 1, 1025, 16, 2, 1, 1, 1, 12, 10),
    facts={"name": "tiny"},
)
TEXTS = {"texttok.model": TEXT.to_text(), "speechtok.model": SPEECH.to_text()}
PICKLE = "archive/data.pkl"
_Target = TypeVar("_Target", Path, io.BytesIO)
ITEM = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def tiny_weights(half: bool = True) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    torch.manual_seed(0)
    ar, nar = CodecLM(CONFIG.ar).state_dict(), ResidualTransformer(CONFIG.nar).state_dict()
    if half:
        return {k: v.half() for k, v in ar.items()}, {k: v.half() for k, v in nar.items()}
    return ar, nar


def raw(path: Path, header: Any, data: bytes = b"") -> Path:
    """A safetensors file of a header that is free to lie."""
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + data)
    return path


def pt_records() -> dict[str, bytes]:
    """The records of a `.pt` with the one tensor w = [0, 1, 2, 3], float16."""
    plain = io.BytesIO()
    torch.save({"vocab": TEXTS, "model": {"w": torch.arange(4).half()}}, plain)
    with zipfile.ZipFile(plain) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pt_file(path: _Target, records: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> _Target:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in records.items():
            archive.writestr(name, data)
    return path


def with_pickle(path: Path, data: bytes) -> Path:
    return pt_file(path, pt_records() | {PICKLE: data})


def read(path: Path) -> dict[str, Tensor]:
    return read_checkpoint(path).weights


def encodec_weights() -> dict[str, Tensor]:
    """A random EnCodec by the names of its published file, a part of the decoder included."""
    torch.manual_seed(1)
    codec = EncodecCodec()
    weights = {"decoder.model.0.conv.conv.bias": torch.zeros(4)}
    for name, tensor in codec.state_dict().items():
        part, _, rest = name.partition(".")
        if part != "encoder":
            continue
        owner, _, last = rest.rpartition(".")
        theirs = f"encoder.model.{owner}." + ("" if "lstm" in name else "conv.conv.") + last
        if theirs.endswith("conv.weight"):
            weights[f"{theirs}_g"] = 2 * tensor.flatten(1).norm(dim=1)[:, None, None]
            theirs = f"{theirs}_v"
        weights[theirs] = tensor
    for q in range(32):
        book = 0.01 * torch.randn(1024, 128)  # about as large as what a random encoder puts out
        weights[f"quantizer.vq.layers.{q}._codebook.embed"] = book
        weights[f"quantizer.vq.layers.{q}._codebook.inited"] = torch.ones(1)
    return weights

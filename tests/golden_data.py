"""Access to the recorded data: tests/golden, or the folder that MARS5_GOLDEN_DIR names."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from mars5.ar.model import CodecLM
from mars5.config import ARDims, NARDims
from mars5.tokenizers import SpeechTokenizer, TextTokenizer

ROOT = Path(os.environ.get("MARS5_GOLDEN_DIR", Path(__file__).parent / "golden"))


@cache
def read_json(name: str) -> Any:
    return json.loads((ROOT / name).read_text(encoding="utf-8"))


@cache
def tensors(name: str) -> dict[str, Tensor]:
    return load_file(ROOT / name)


def cases(name: str) -> list[dict[str, Any]]:
    return read_json(name)["cases"]


def ids(case: dict[str, Any]) -> str:
    return str(case.get("case", case))


def ar_dims(constructor: dict[str, Any], sliding_window: int = 3000) -> ARDims:
    """Dimensions from the recorded constructor arguments; every size comes from there."""
    dim = constructor["dim"]
    return ARDims(
        constructor["n_vocab"],
        dim,
        constructor["nhead"],
        constructor["n_layers"],
        int(dim * constructor["dim_ff_scale"]),
        constructor["n_spk_layers"],
        int(dim * 4 * 0.75),
        sliding_window,
    )


def nar_dims(constructor: dict[str, Any], diffusion_steps: int = 200) -> NARDims:
    return NARDims(
        constructor["n_text_vocab"],
        constructor["n_quant"],
        constructor["dim"],
        constructor["nhead"],
        constructor["enc_layers"],
        constructor["dec_layers"],
        constructor["n_spk_layers"],
        int(constructor["dim"] * 4 * 0.75),
        constructor["t_emb_dim"],
        diffusion_steps,
    )


@cache
def text_tokenizer(name: str = "texttok.model") -> TextTokenizer:
    return TextTokenizer.from_text((ROOT / "tokenizers" / name).read_text(encoding="utf-8"))


@cache
def speech_tokenizer() -> SpeechTokenizer:
    path = ROOT / "tokenizers" / "speechtok.model"
    return SpeechTokenizer.from_text(path.read_text(encoding="utf-8"))


def assert_close(found: Tensor, wanted: Tensor, relative: float = 1e-5) -> None:
    """Equal infinities; else within `relative` of the largest recorded value."""
    assert found.shape == wanted.shape
    finite = wanted.isfinite()
    assert torch.equal(found.isfinite(), finite)
    assert torch.equal(found[~finite], wanted[~finite])
    scale = max(wanted[finite].abs().max().item(), 1.0) if finite.any() else 1.0
    assert (found[finite] - wanted[finite]).abs().max().item() <= relative * scale


GENERATE_CONFIG = read_json("ar_generate/config.json")
NAR_CONFIG = read_json("nar/config.json")


def generator_model(override: dict[str, Any] | None, sliding_window: int = 3000) -> CodecLM:
    """The recorded AR, one row of its output replaced by the recorded override."""
    model = CodecLM(ar_dims(GENERATE_CONFIG["constructor"], sliding_window))
    weights = dict(tensors("ar_generate/weights.safetensors"))
    if override is not None:
        key = override["tensor"].removeprefix("override.")
        rows = weights["ar.output.weight"].clone()
        rows[override["row"]] = tensors("ar_generate/inputs.safetensors")[f"override.{key}"]
        weights["ar.output.weight"] = rows
    model.load_state_dict(weights)
    return model.eval()

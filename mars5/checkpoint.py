"""Checkpoints: bytes to verified weights, tokenizers and dimensions, and back."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mars5.ar.model import CodecLM
from mars5.config import ModelConfig
from mars5.errors import CheckpointError, TokenizerError
from mars5.files import replacing
from mars5.nar.model import FLOAT32_PARTS, ResidualTransformer
from mars5.ptfile import PtFile
from mars5.safefile import (
    FLOATS,
    SafetensorsFile,
    WeightFile,
    open_unchanged,
    require_finite,
    shown,
    sniff,
    strict_json,
)
from mars5.tokenizers import SpeechTokenizer, TextTokenizer

_TEXT_KEY = "texttok.model"
_SPEECH_KEY = "speechtok.model"
_CONFIG_KEY = "config"
_SUFFIX = ".safetensors"
_AR_MARK = "ar.output.weight"
_NAR_MARK = "text_embed.weight"
_N_SHOWN = 5

_Model = TypeVar("_Model", CodecLM, ResidualTransformer)
_AnyPath = str | os.PathLike[str]


@dataclass(frozen=True)
class Checkpoint:
    """One verified file, AR or NAR.

    Attributes:
        weights: finite float tensors on the CPU, of the stored type, by parameter name.
        config: what the file states of its model; None for the published files.
    """

    path: Path
    weights: dict[str, Tensor]
    text_tokenizer: TextTokenizer
    speech_tokenizer: SpeechTokenizer
    config: ModelConfig | None


@dataclass(frozen=True)
class ModelPair:
    """The two models of a system, in eval mode without gradients, and what goes with them."""

    ar: CodecLM
    nar: ResidualTransformer
    text_tokenizer: TextTokenizer
    speech_tokenizer: SpeechTokenizer
    config: ModelConfig


def read_checkpoint(path: _AnyPath) -> Checkpoint:
    """Read one `.safetensors` or `.pt` file; its content decides which, not its suffix.

    Raises:
        CheckpointError: the file is damaged, hostile, or no checkpoint; NaN or Inf weights.
        TokenizerError: a tokenizer in it is malformed.
    """
    with _open(path) as file:
        text, speech = _read_tokenizers(file)
        weights = {name: file.read(name) for name in file.entries}
        return Checkpoint(file.path, weights, text, speech, _read_config(file))


def read_weights(path: _AnyPath, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """The tensors of a file that holds a state dict alone, such as a codec's or a vocoder's.

    Args:
        dtype: what to convert each to as it is read; None leaves them as stored.

    Raises:
        CheckpointError: the file is damaged, hostile, or holds anything else; NaN or Inf weights.
    """
    with _open(path, bare=True) as file:
        return {name: file.read(name, dtype) for name in file.entries}


def write_checkpoint(
    path: _AnyPath,
    weights: dict[str, Tensor],
    text_tokenizer: TextTokenizer,
    speech_tokenizer: SpeechTokenizer,
    config: ModelConfig | None,
) -> None:
    """Write a `.safetensors` file that `read_checkpoint` accepts, wholly or not at all.

    Raises:
        CheckpointError: another suffix; NaN or Inf; a type other than float16, bfloat16 and
            float32; the file cannot be written.
    """
    path = Path(path)
    if path.suffix != _SUFFIX:
        raise CheckpointError(f"{path} must end in {_SUFFIX}, the only format that is written")
    ready = {name: _ready(path, name, tensor) for name, tensor in weights.items()}
    metadata = {_TEXT_KEY: text_tokenizer.to_text(), _SPEECH_KEY: speech_tokenizer.to_text()}
    try:
        if config is not None:
            metadata[_CONFIG_KEY] = json.dumps(config.to_json())
        with replacing(path) as temporary:
            save_file(ready, temporary, metadata)
            with _open(temporary) as written:  # never put in place what would be refused
                _read_tokenizers(written)
                _read_config(written)
    except (OSError, SafetensorError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} could not be written: {error}") from error


def _ready(path: Path, name: str, tensor: Tensor) -> Tensor:
    if tensor.dtype not in FLOATS.values() or not tensor.numel():
        raise CheckpointError(
            f"{path}: tensor {shown(name)} has {tensor.numel()} elements of {tensor.dtype}; "
            f"weights have at least one, of {', '.join(FLOATS)}"
        )
    require_finite(path, name, tensor)
    return tensor.detach().cpu().contiguous()


def convert(pt_path: _AnyPath, safetensors_path: _AnyPath) -> None:
    """Rewrite a `.pt` as `.safetensors`: same names, types and values, both tokenizers.

    Raises:
        CheckpointError, TokenizerError: as `read_checkpoint` and `write_checkpoint`.
    """
    read = read_checkpoint(pt_path)
    write_checkpoint(
        safetensors_path, read.weights, read.text_tokenizer, read.speech_tokenizer, read.config
    )


def load_pair(
    ar_path: _AnyPath,
    nar_path: _AnyPath,
    *,
    config: ModelConfig | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> ModelPair:
    """Build both models from their files, with about one copy of the weights in memory.

    Args:
        config: overrides the files' own; without either, the published sizes apply.

    Raises:
        CheckpointError: as `read_checkpoint`; the files are swapped or do not belong together;
            tensors are missing, left over, or of another shape.
        TokenizerError: a tokenizer is malformed, or its size is not that of the embedding.
    """
    with _open(ar_path) as ar_file, _open(nar_path) as nar_file:
        _check_roles(ar_file, nar_file)
        text, speech = _common_tokenizers(ar_file, nar_file)
        stated = _common_config(ar_file, nar_file)
        config = config or stated or ModelConfig.published(len(text), len(speech))
        ar_dims, nar_dims = config.ar, config.nar
        _check_vocabulary(ar_file, "embed.weight", ar_dims.n_vocab, len(text) + len(speech))
        _check_vocabulary(nar_file, _NAR_MARK, nar_dims.n_text_vocab, len(text) + 1)
        _check_layers(ar_file, ar_dims.n_layers + ar_dims.n_spk_layers)
        _check_layers(
            nar_file, nar_dims.n_enc_layers + nar_dims.n_dec_layers + nar_dims.n_spk_layers
        )
        ar = _fill(lambda: CodecLM(ar_dims), ar_file, device, dtype)
        nar = _fill(lambda: ResidualTransformer(nar_dims), nar_file, device, dtype, FLOAT32_PARTS)
    return ModelPair(ar, nar, text, speech, config)


@contextmanager
def _open(path: _AnyPath, bare: bool = False) -> Iterator[WeightFile]:
    path = Path(path)
    with open_unchanged(path) as file:
        is_pt = sniff(path, file) == "pt"
        yield PtFile(path, file, bare) if is_pt else SafetensorsFile(path, file)


def _read_tokenizers(file: WeightFile) -> tuple[TextTokenizer, SpeechTokenizer]:
    for key in (_TEXT_KEY, _SPEECH_KEY):
        if key not in file.texts:
            raise CheckpointError(
                f"{file.path} has no metadata {key!r}: bare weights are not a checkpoint; use "
                "the published file, or write it with its tokenizers"
            )
    try:
        return (
            TextTokenizer.from_text(file.texts[_TEXT_KEY]),
            SpeechTokenizer.from_text(file.texts[_SPEECH_KEY]),
        )
    except TokenizerError as error:
        raise TokenizerError(f"{file.path}: {error}") from error


def _read_config(file: WeightFile) -> ModelConfig | None:
    text = file.texts.get(_CONFIG_KEY)
    if text is None:
        return None
    data = strict_json(text, f"{file.path}: the metadata {_CONFIG_KEY!r}")
    try:
        return ModelConfig.from_json(data)
    except CheckpointError as error:
        raise CheckpointError(f"{file.path}: {error}") from error


def _check_roles(ar_file: WeightFile, nar_file: WeightFile) -> None:
    ar_holds_nar = _NAR_MARK in ar_file.entries
    nar_holds_ar = _AR_MARK in nar_file.entries
    if ar_holds_nar and nar_holds_ar:
        raise CheckpointError(
            f"the AR and NAR checkpoints are swapped: {ar_file.path} holds the NAR model and "
            f"{nar_file.path} the AR model; exchange the two paths"
        )
    if ar_holds_nar:
        raise CheckpointError(f"{ar_file.path} holds a NAR model where the AR model is expected")
    if nar_holds_ar:
        raise CheckpointError(f"{nar_file.path} holds an AR model where the NAR model is expected")


def _common_tokenizers(
    ar_file: WeightFile, nar_file: WeightFile
) -> tuple[TextTokenizer, SpeechTokenizer]:
    ours, theirs = _read_tokenizers(ar_file), _read_tokenizers(nar_file)
    for key, one, other in zip((_TEXT_KEY, _SPEECH_KEY), ours, theirs, strict=True):
        if one.to_text() != other.to_text():
            raise CheckpointError(
                f"{ar_file.path} and {nar_file.path} differ in {key!r}: they are not of one "
                "system; use files published together"
            )
    return ours


def _common_config(ar_file: WeightFile, nar_file: WeightFile) -> ModelConfig | None:
    ours, theirs = _read_config(ar_file), _read_config(nar_file)
    if ours != theirs:
        raise CheckpointError(
            f"{ar_file.path} and {nar_file.path} differ in {_CONFIG_KEY!r}: they are not of one "
            "system; use files published together"
        )
    return ours


def _check_vocabulary(file: WeightFile, name: str, configured: int, needed: int) -> None:
    if configured != needed:
        raise TokenizerError(
            f"{file.path}: the config gives {name} {configured} rows, the tokenizers need {needed}"
        )
    rows = file.entries[name].shape[:1] if name in file.entries else (needed,)
    if rows != (needed,):
        raise TokenizerError(
            f"{file.path}: {name} has {rows[0] if rows else 0} rows, the tokenizers need {needed}: "
            "these tokenizers are not of these weights"
        )


def _check_layers(file: WeightFile, n_layers: int) -> None:
    """Bound the modules that are built by the tensors that are there to fill them."""
    if n_layers > len(file.entries):
        raise CheckpointError(
            f"{file.path}: a model of this config has {n_layers} layers, but the file has only "
            f"{len(file.entries)} tensors: they do not belong together"
        )


class _NoDraws(TorchFunctionMode):
    """Skips `normal_`: on the meta device it draws nothing, but loads the compiler (1.4 s)."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is nn.init.normal_:
            return None
        return func(*args, **(kwargs or {}))


def _fill(
    build: Callable[[], _Model],
    file: WeightFile,
    device: torch.device | str,
    dtype: torch.dtype,
    float32_parts: tuple[str, ...] = (),
) -> _Model:
    """The model with the file's weights; those with one of the parts in their name in float32."""
    with torch.device("meta"), _NoDraws():  # no memory until the weights come
        model = build()
    _check_tensors(file, {name: tuple(x.shape) for name, x in model.state_dict().items()})
    weights = {}
    for name in file.entries:
        wide = any(part in name for part in float32_parts)
        weights[name] = file.read(name, torch.float32 if wide else dtype).to(device)
    model.load_state_dict(weights, assign=True)
    return model.requires_grad_(False).eval()


def _check_tensors(file: WeightFile, needed: dict[str, tuple[int, ...]]) -> None:
    found = {name: info.shape for name, info in file.entries.items()}
    faults = [f"{name!r} is missing" for name in needed if name not in found]
    faults += [f"{shown(name)} is not part of the model" for name in found if name not in needed]
    faults += [
        f"{name!r} has shape {found[name]} instead of {shape}"
        for name, shape in needed.items()
        if name in found and found[name] != shape
    ]
    if faults:
        more = f" and {len(faults) - _N_SHOWN} more" if len(faults) > _N_SHOWN else ""
        raise CheckpointError(
            f"{file.path} does not fit its model: {'; '.join(faults[:_N_SHOWN])}{more}. A model "
            f"of other than the published sizes needs the metadata {_CONFIG_KEY!r}, or config="
        )

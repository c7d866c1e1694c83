"""From the files of a checkpoint to an `Engine`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mars5 import hub
from mars5.ar.steps import lay_side_by_side
from mars5.checkpoint import load_pair, read_weights
from mars5.codec import MelCodec, build_mel_codec
from mars5.config import ModelConfig
from mars5.conversion import Converter, OwnVoice
from mars5.conversion.transposer import build_transposer
from mars5.device import at_work, resolve_device, resolve_dtype
from mars5.encodec import EncodecCodec, build_encodec
from mars5.engine import Engine
from mars5.errors import CheckpointError
from mars5.quantized import check_quantize, quantize_models
from mars5.vocoder import Vocoder, build_published_vocoder, build_vocoder
from mars5.voice import Voice


@at_work()
def load_engine(
    files: hub.ModelFiles,
    device: str | torch.device | None,
    dtype: torch.dtype | None,
    quantize: str | None,
    hub_options: dict[str, Any],
) -> Engine:
    """The models of one checkpoint; arguments and errors are those of `Mars5TTS.from_files`."""
    hub.check_options(hub_options)
    where = resolve_device(device)
    precision = resolve_dtype(dtype, where)
    check_quantize(quantize, where, precision)
    pair = load_pair(files.ar, files.nar, device=where, dtype=precision)
    if quantize is None:
        lay_side_by_side(pair.ar)
    else:
        quantize_models(pair.ar, pair.nar)
    codec, vocoder, converter = load_sound(files, pair.config, hub_options, where)
    return Engine(
        pair.ar,
        pair.nar,
        pair.text_tokenizer,
        pair.speech_tokenizer,
        codec,
        vocoder,
        pair.config,
        Voice.load(files.voice) if files.voice is not None else None,
        converter,
    )


def load_sound(
    files: hub.ModelFiles, config: ModelConfig, hub_options: dict[str, Any], device: torch.device
) -> tuple[EncodecCodec | MelCodec, Vocoder, Converter | None]:
    """EnCodec and Vocos for published weights, else what the checkpoint brings.

    Raises:
        CheckpointError: a file is missing or does not fit the config.
        HubError: the published weights could not be had.
    """
    stated = config.codec
    if stated.get("name") == EncodecCodec.name:
        encodec = read_weights(hub.encodec_file(bool(hub_options.get("local_files_only"))))
        vocos = read_weights(hub.vocos_file(**_caching(hub_options)))
        return build_encodec(encodec).to(device), build_published_vocoder(vocos).to(device), None
    if stated.get("name") != MelCodec.kind or files.codec is None:
        raise CheckpointError(
            f"{files.ar} states the codec {stated.get('name')!r}, whose file {hub.CODEC_FILE} is "
            "not beside it or not known to this version"
        )
    parts: dict[str, dict[str, Tensor]] = {
        "codec": {}, "vocoder": {}, "transposer": {}, "own": {}
    }  # fmt: skip
    for name, tensor in read_weights(files.codec, torch.float32).items():
        part, _, rest = name.partition(".")
        if part not in parts:
            raise CheckpointError(f"{files.codec}: unexpected tensor {name!r}")
        parts[part][rest] = tensor
    codec = build_mel_codec(stated.get("dims", {}), parts["codec"])
    vocoder = build_vocoder(stated.get("vocoder", {}), parts["vocoder"], codec.vector_table())
    codec, vocoder = codec.to(device), vocoder.to(device)
    if ("transposer" in stated) != bool(parts["transposer"]):
        raise CheckpointError(
            f"only one of {files.ar} and {files.codec} knows of a transposer: they are of "
            "different versions, take all files of one"
        )
    if "transposer" not in stated:
        return codec, vocoder, None
    if (vocoder.dims.channels, vocoder.dims.stack) != (codec.dims.n_mels, codec.dims.stack):
        raise CheckpointError(
            f"{files.ar} states a vocoder of {vocoder.dims.channels} channels and "
            f"{vocoder.dims.stack} frames to a code, and a codec of {codec.dims.n_mels} and "
            f"{codec.dims.stack}: with a transposer they must be the same"
        )
    transposer = build_transposer(stated["transposer"], parts["transposer"], codec.dims.n_mels)
    own = OwnVoice.from_weights(parts["own"], files.codec)
    return codec, vocoder, Converter(codec, transposer.to(device), own.to(device))


def _caching(hub_options: dict[str, Any]) -> dict[str, Any]:
    """The hub keywords that hold for any repository: a revision names one of the model's only."""
    return {key: value for key, value in hub_options.items() if key != "revision"}

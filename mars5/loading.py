"""Parts of a system beside its two transformers: codec, vocoder, and the fingerprint of voices."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor

from mars5 import hub
from mars5.ar.model import CodecLM
from mars5.checkpoint import read_weights
from mars5.codec import EncodecCodec, MelCodec, build_encodec, build_mel_codec
from mars5.config import ModelConfig
from mars5.errors import CheckpointError
from mars5.nar.model import ResidualTransformer
from mars5.vocoder import Vocoder, build_published_vocoder, build_vocoder

_SPEAKER_PARTS = ("spk_", "ref_", "pos_embedding")  # parameters of the two speaker encoders


def load_codec_and_vocoder(
    files: hub.ModelFiles, config: ModelConfig, hub_options: dict[str, Any]
) -> tuple[EncodecCodec | MelCodec, Vocoder]:
    """EnCodec and Vocos for published weights, else what the checkpoint brings.

    Raises:
        CheckpointError: a file is missing or does not fit the config.
        HubError: the published weights could not be had.
    """
    stated = config.codec
    if stated.get("name") == EncodecCodec.name:
        return (
            build_encodec(
                read_weights(hub.encodec_file(bool(hub_options.get("local_files_only"))))
            ),
            build_published_vocoder(read_weights(hub.vocos_file(**_caching(hub_options)))),
        )
    if stated.get("name") != MelCodec.kind or files.codec is None:
        raise CheckpointError(
            f"{files.ar} states the codec {stated.get('name')!r}, whose file {hub.CODEC_FILE} is "
            "not beside it or not known to this version"
        )
    weights = read_weights(files.codec)
    parts: dict[str, dict[str, Tensor]] = {"codec": {}, "vocoder": {}}
    for name, tensor in weights.items():
        part, _, rest = name.partition(".")
        if part not in parts:
            raise CheckpointError(f"{files.codec}: unexpected tensor {name!r}")
        parts[part][rest] = tensor.float()
    codec = build_mel_codec(stated.get("dims", {}), parts["codec"])
    return codec, build_vocoder(stated.get("vocoder", {}), parts["vocoder"], codec.vector_table())


def _caching(hub_options: dict[str, Any]) -> dict[str, Any]:
    """The hub keywords that hold for any repository: a revision names one of the model's only."""
    return {key: value for key, value in hub_options.items() if key != "revision"}


def speaker_fingerprint(ar: CodecLM, nar: ResidualTransformer) -> str:
    """Tells whether stored speaker vectors came from these models.

    Covers a part of every parameter that a speaker vector depends on: training changes them all.
    """
    digest = hashlib.sha256()
    for model in (ar, nar):
        for name, parameter in model.named_parameters():
            if name.startswith(_SPEAKER_PARTS):
                values = parameter.detach().flatten()
                some = values[:: max(1, len(values) // 64)]
                # In the coarsest precision a model is loaded in, so that all of them agree.
                digest.update(some.bfloat16().cpu().view(torch.int16).numpy().tobytes())
    return digest.hexdigest()[:16]

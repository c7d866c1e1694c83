"""The file of a voice: one safetensors file, checked whenever it is read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from mars5.audio_files import container
from mars5.config import CODEBOOK_SIZE, N_CODEBOOKS
from mars5.errors import TextError, VoiceError
from mars5.files import replacing
from mars5.text import check_speakable

FORMAT = "mars5-voice 1"
MAX_FILE_BYTES = 16 * 1024 * 1024
MAX_FRAMES = 8192  # the longest reference, a minute of EnCodec, has 4500
SPEAKERS = ("ar_speaker", "nar_speaker")
_BLEND = "blend"


class Contents(NamedTuple):
    """What a file holds of a voice; the fields, and their order, are those of `Voice`."""

    codes: Tensor
    transcript: str | None
    codec: str
    checkpoint: str
    ar_speaker: Tensor
    nar_speaker: Tensor
    provenance: dict[str, str]
    frame_rate: float | None


def write(path: str | os.PathLike[str], voice: Contents) -> None:
    """Write a voice, whole or not at all.

    Raises:
        VoiceError: the folder does not exist or cannot be written.
    """
    tensors = {
        "codes": voice.codes.to("cpu", torch.int16).contiguous(),
        "ar_speaker": voice.ar_speaker.to("cpu", torch.float32).contiguous(),
        "nar_speaker": voice.nar_speaker.to("cpu", torch.float32).contiguous(),
    }
    target = Path(path)
    try:
        with replacing(target) as temporary:
            temporary.write_bytes(save(tensors, _texts(voice)))
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        raise VoiceError(
            f"cannot write the voice {target}: {error}; give a file name in an existing folder "
            "that you may write to and that has space"
        ) from error


def _texts(voice: Contents) -> dict[str, str]:
    """What the header says."""
    texts = {
        "format": FORMAT,
        "codec": voice.codec,
        "checkpoint": voice.checkpoint,
        "provenance": json.dumps(voice.provenance),
    }
    if not len(voice.codes):
        texts["kind"] = _BLEND
    if voice.transcript is not None:
        texts["transcript"] = voice.transcript
    if voice.frame_rate is not None:
        texts["frame_rate"] = repr(voice.frame_rate)
    return texts


def read(path: str | os.PathLike[str]) -> Contents:
    """Read what `write` wrote.

    Raises:
        VoiceError: no such file, or not a voice file, or a damaged one.
    """
    path = Path(path)
    try:
        size = path.stat().st_size if path.is_file() else None
    except OSError:  # such as too long a name
        size = None
    if size is None:
        raise VoiceError(f"no voice file at {path}: make one with `mars5 voice make`")
    data = b""
    try:
        with path.open("rb") as file:  # never mapped: it may be cut short while in use
            data = file.read(MAX_FILE_BYTES)
        if size > MAX_FILE_BYTES:
            raise ValueError(f"it is larger than {MAX_FILE_BYTES} bytes")
        tensors = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        texts = header.get("__metadata__", {})
        provenance = json.loads(texts.get("provenance", "{}"))
        frame_rate = float(texts["frame_rate"]) if "frame_rate" in texts else None
    except KeyError as error:  # safetensors takes more types than it knows for torch
        raise VoiceError(
            f"{path} is no voice file: it holds a tensor of type {error}, which cannot be read"
        ) from error
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        if container(data) is not None:
            raise VoiceError(
                f"{path} is a recording, not a voice file: give it to --ref, or make a voice "
                "of it with `mars5 voice make`"
            ) from error
        raise VoiceError(f"{path} is no intact voice file: {error}") from error
    return _checked(path, tensors, texts, provenance, frame_rate)


def _checked(
    path: Path,
    tensors: dict[str, Tensor],
    texts: dict[str, str],
    provenance: object,
    frame_rate: float | None,
) -> Contents:
    if texts.get("format") != FORMAT:
        raise VoiceError(
            f"{path}: format is {texts.get('format')!r}, expected {FORMAT!r}: "
            "make the voice again with this version"
        )
    if not {"codes", *SPEAKERS} <= tensors.keys() or "codec" not in texts:
        raise VoiceError(f"{path} lacks codes, speaker vectors or the codec's name")
    blend = texts.get("kind") == _BLEND
    codes = _checked_codes(path, tensors["codes"], blend)
    if blend and "transcript" in texts:
        raise VoiceError(f"{path} is a blend of voices, but has a transcript: make it again")
    ar_speaker, nar_speaker = (_checked_speaker(path, name, tensors[name]) for name in SPEAKERS)
    if not isinstance(provenance, dict):
        raise VoiceError(f"{path}: provenance is no object")
    if frame_rate is not None and not 0 < frame_rate < 1000:  # also refuses NaN
        raise VoiceError(f"{path}: frame_rate is {frame_rate}, expected 0 to 1000 per second")
    return Contents(
        codes,
        _checked_transcript(path, texts.get("transcript")),
        texts["codec"],
        texts.get("checkpoint", ""),
        ar_speaker,
        nar_speaker,
        {str(key): str(value) for key, value in provenance.items()},
        frame_rate,
    )


def _checked_codes(path: Path, codes: Tensor, blend: bool) -> Tensor:
    if codes.dtype != torch.int16 or codes.ndim != 2 or codes.shape[1] != N_CODEBOOKS:
        raise VoiceError(
            f"{path}: codes are {codes.dtype} of shape {tuple(codes.shape)}, expected torch.int16 "
            f"of shape (frames, {N_CODEBOOKS})"
        )
    if blend and len(codes) == 0:
        return codes.long()
    if blend:
        raise VoiceError(f"{path} is a blend of voices, but has {len(codes)} frames of codes")
    if not 1 <= len(codes) <= MAX_FRAMES:
        raise VoiceError(f"{path} has {len(codes)} frames of codes, expected 1 to {MAX_FRAMES}")
    if codes.min() < 0 or codes.max() >= CODEBOOK_SIZE:
        raise VoiceError(f"{path}: codes lie outside 0..{CODEBOOK_SIZE - 1}")
    return codes.long()


def _checked_speaker(path: Path, name: str, vector: Tensor) -> Tensor:
    if vector.dtype != torch.float32 or vector.ndim != 1 or not vector.isfinite().all():
        raise VoiceError(f"{path}: {name} is no vector of finite float32 numbers")
    return vector


def _checked_transcript(path: Path, transcript: str | None) -> str | None:
    try:
        return None if transcript is None else check_speakable(transcript, "the transcript")
    except TextError as error:
        raise VoiceError(f"{path}: {error}") from error

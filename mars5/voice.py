"""A voice: a reference prepared once, as a value that is saved, loaded and passed around."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from mars5.config import CODEBOOK_SIZE, N_CODEBOOKS
from mars5.errors import TextError, VoiceError
from mars5.files import replacing
from mars5.text import check_speakable

FORMAT = "mars5-voice 1"
_SPEAKERS = ("ar_speaker", "nar_speaker")
MAX_FILE_BYTES = 16 * 1024 * 1024
MAX_FRAMES = 8192  # the longest reference, a minute of EnCodec, has 4500


@dataclass(frozen=True, eq=False)
class Voice:
    """A reference, prepared: its audio is not needed again.

    Attributes:
        codes: (R, Q) int64 codec codes of the reference.
        transcript: what the reference says; None allows shallow clones only.
        codec: name of the codec that made the codes.
        checkpoint: fingerprint of the models that computed the speaker vectors.
        ar_speaker, nar_speaker: (D,) float32 speaker vectors of the two models.
        provenance: free facts for people: source, licence, consent.
        frame_rate: frames of codes per second, for people; None if not known.
    """

    codes: Tensor
    transcript: str | None
    codec: str
    checkpoint: str
    ar_speaker: Tensor
    nar_speaker: Tensor
    provenance: dict[str, str] = field(default_factory=dict)
    frame_rate: float | None = None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file, whole or not at all.

        Raises:
            VoiceError: the folder does not exist or cannot be written.
        """
        tensors = {
            "codes": self.codes.to("cpu", torch.int16).contiguous(),
            "ar_speaker": self.ar_speaker.to("cpu", torch.float32).contiguous(),
            "nar_speaker": self.nar_speaker.to("cpu", torch.float32).contiguous(),
        }
        metadata = {
            "format": FORMAT,
            "codec": self.codec,
            "checkpoint": self.checkpoint,
            "provenance": json.dumps(self.provenance),
        }
        if self.transcript is not None:
            metadata["transcript"] = self.transcript
        if self.frame_rate is not None:
            metadata["frame_rate"] = repr(self.frame_rate)
        target = Path(path)
        try:
            with replacing(target) as temporary:
                temporary.write_bytes(save(tensors, metadata))
        except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
            raise VoiceError(
                f"cannot write the voice {target}: {error}; give a file name in an existing folder "
                "that you may write to and that has space"
            ) from error

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Voice:
        """Read what `save` wrote.

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
        if size > MAX_FILE_BYTES:
            raise VoiceError(f"{path} is larger than {MAX_FILE_BYTES} bytes: this is no voice file")
        try:
            data = path.read_bytes()  # never mapped: the file may be cut short while in use
            tensors = load(data)
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            texts = header.get("__metadata__", {})
            provenance = json.loads(texts.get("provenance", "{}"))
            frame_rate = float(texts["frame_rate"]) if "frame_rate" in texts else None
        except (SafetensorError, OSError, ValueError, RecursionError) as error:
            raise VoiceError(f"{path} is no intact voice file: {error}") from error
        return cls._from_parts(path, tensors, texts, provenance, frame_rate)

    @classmethod
    def _from_parts(
        cls, path: Path, tensors: dict[str, Tensor], texts: dict[str, str], provenance: object,
        frame_rate: float | None,
    ) -> Voice:  # fmt: skip
        if texts.get("format") != FORMAT:
            raise VoiceError(
                f"{path}: format is {texts.get('format')!r}, expected {FORMAT!r}: "
                "make the voice again with this version"
            )
        if not {"codes", *_SPEAKERS} <= tensors.keys() or "codec" not in texts:
            raise VoiceError(f"{path} lacks codes, speaker vectors or the codec's name")
        codes = _checked_codes(path, tensors["codes"])
        speakers = [_checked_speaker(path, name, tensors[name]) for name in _SPEAKERS]
        if not isinstance(provenance, dict):
            raise VoiceError(f"{path}: provenance is no object")
        if frame_rate is not None and not 0 < frame_rate < 1000:  # also refuses NaN
            raise VoiceError(f"{path}: frame_rate is {frame_rate}, expected 0 to 1000 per second")
        return cls(
            codes,
            _checked_transcript(path, texts.get("transcript")),
            texts["codec"],
            texts.get("checkpoint", ""),
            speakers[0],
            speakers[1],
            {str(key): str(value) for key, value in provenance.items()},
            frame_rate,
        )


def _checked_codes(path: Path, codes: Tensor) -> Tensor:
    if codes.dtype != torch.int16 or codes.ndim != 2 or codes.shape[1] != N_CODEBOOKS:
        raise VoiceError(
            f"{path}: codes are {codes.dtype} of shape {tuple(codes.shape)}, expected torch.int16 "
            f"of shape (frames, {N_CODEBOOKS})"
        )
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

"""A voice: a reference prepared once, as a value that is saved, loaded and passed around."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mars5.config import CODEBOOK_SIZE, N_CODEBOOKS
from mars5.errors import VoiceError

FORMAT = "mars5-voice 1"
MAX_FILE_BYTES = 16 * 1024 * 1024


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
    """

    codes: Tensor
    transcript: str | None
    codec: str
    checkpoint: str
    ar_speaker: Tensor
    nar_speaker: Tensor
    provenance: dict[str, str] = field(default_factory=dict)

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
        target = Path(path)
        temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                file.write(save(tensors, metadata))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except OSError as error:
            raise VoiceError(f"cannot write the voice {target}: {error.strerror}") from error
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Voice:
        """Read what `save` wrote.

        Raises:
            VoiceError: no such file, or not a voice file, or a damaged one.
        """
        path = Path(path)
        if not path.is_file():
            raise VoiceError(f"no voice file at {path}: make one with `mars5 voice make`")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise VoiceError(f"{path} is larger than {MAX_FILE_BYTES} bytes: this is no voice file")
        try:
            with safe_open(path, "pt") as file:
                texts = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            provenance = json.loads(texts.get("provenance", "{}"))
        except (SafetensorError, ValueError) as error:
            raise VoiceError(f"{path} is no intact voice file: {error}") from error
        return cls._from_parts(path, tensors, texts, provenance)

    @classmethod
    def _from_parts(
        cls, path: Path, tensors: dict[str, Tensor], texts: dict[str, str], provenance: object
    ) -> Voice:
        if texts.get("format") != FORMAT:
            raise VoiceError(
                f"{path}: format is {texts.get('format')!r}, expected {FORMAT!r}: "
                "make the voice again with this version"
            )
        if not {"codes", "ar_speaker", "nar_speaker"} <= tensors.keys() or "codec" not in texts:
            raise VoiceError(f"{path} lacks codes, speaker vectors or the codec's name")
        codes = tensors["codes"].long()
        if codes.ndim != 2 or codes.shape[1] != N_CODEBOOKS or not len(codes):
            raise VoiceError(f"{path}: codes have shape {tuple(codes.shape)}, expected (frames, 8)")
        if codes.min() < 0 or codes.max() >= CODEBOOK_SIZE:
            raise VoiceError(f"{path}: codes lie outside 0..{CODEBOOK_SIZE - 1}")
        if not isinstance(provenance, dict):
            raise VoiceError(f"{path}: provenance is no object")
        return cls(
            codes,
            texts.get("transcript"),
            texts["codec"],
            texts.get("checkpoint", ""),
            tensors["ar_speaker"].float(),
            tensors["nar_speaker"].float(),
            {str(key): str(value) for key, value in provenance.items()},
        )

"""`VoiceMaker`: references prepared for the models of one checkpoint."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from mars5.ar.model import CodecLM
from mars5.audio import AudioInput, load_reference
from mars5.codec import Codec
from mars5.config import SAMPLE_RATE, InferenceConfig, check_settings
from mars5.device import at_work
from mars5.errors import ConfigError, VoiceError
from mars5.nar.model import ResidualTransformer
from mars5.text import check_speakable
from mars5.voice import Voice

log = logging.getLogger("mars5")

_SPEAKER_PARTS = ("spk_", "ref_", "pos_embedding")  # parameters of the two speaker encoders


class VoiceMaker:
    """Makes voices, and takes those that were made before.

    Args:
        defaults: settings of calls that give none.
        default: the voice of calls that give no reference, if the checkpoint brings one.

    Attributes:
        fingerprint: of the models, kept in each voice: see `speaker_fingerprint`.
    """

    def __init__(
        self,
        ar: CodecLM,
        nar: ResidualTransformer,
        codec: Codec,
        defaults: InferenceConfig,
        default: Voice | None,
    ) -> None:
        self._ar, self._nar, self._codec = ar, nar, codec
        self._defaults = defaults
        self.default = default
        self.fingerprint = speaker_fingerprint(ar, nar)
        self._codec_name = codec.name  # that of a mel codec is a digest of its codebooks

    @at_work()
    def make(
        self,
        ref_audio: AudioInput,
        transcript: str | None = None,
        cfg: InferenceConfig | None = None,
        provenance: dict[str, str] | None = None,
    ) -> Voice:
        """The voice of a recording; arguments and errors are those of `Mars5TTS.voice`."""
        check_settings(cfg)
        cfg = cfg or self._defaults
        if transcript is not None:
            check_speakable(transcript, "ref_transcript")
        wave = load_reference(ref_audio)
        remedy = "`mars5 voice make FILE -o FILE.voice` picks the best part"
        warn_of_length("reference", wave, cfg, remedy)
        return self.of_wave(wave, cfg, transcript, provenance)

    @at_work()
    def of_wave(
        self,
        wave: Tensor,
        cfg: InferenceConfig,
        transcript: str | None = None,
        provenance: dict[str, str] | None = None,
    ) -> Voice:
        """The voice of a wave (T,) that `load_reference` gave, however long it is."""
        padded = F.pad(wave, (round(cfg.ref_audio_pad * SAMPLE_RATE), 0))
        codes = self._codec.encode(padded[None].to(self._device))[0].cpu()
        return self.of_codes(codes, transcript, _checked_facts(provenance or {}))

    def of(
        self,
        ref: AudioInput | Voice | None,
        transcript: str | None = None,
        cfg: InferenceConfig | None = None,
    ) -> Voice:
        """The voice to speak with, its speaker vectors computed by these models.

        Args:
            ref: a recording, a voice of these or of other models, or None for the default voice.
            transcript: what it says; None leaves that of a voice.
            cfg: settings for a recording.

        Raises:
            VoiceError: a voice of another codec or other sizes; none given, and no default.
            ConfigError: a transcript of a recording that is not given.
            AudioInputError, TextError: as in `make`.
        """
        if ref is None:
            if transcript is not None:
                raise ConfigError(
                    f"ref_transcript is {transcript!r:.80}, but there is no ref_audio that could "
                    "say it: give both, or neither"
                )
            if self.default is None:
                raise VoiceError("this model brings no voice of its own: give ref_audio")
            ref = self.default
        if not isinstance(ref, Voice):
            return self.make(ref, transcript, cfg)
        if ref.codec != self._codec_name:
            raise VoiceError(
                f"the voice was made with the codec {ref.codec!r}, this model uses "
                f"{self._codec_name!r}: make it again from the audio"
            )
        ref.check_usable(self.fingerprint, transcript)
        if transcript is not None:
            check_speakable(transcript, "ref_transcript")
            ref = replace(ref, transcript=transcript)
        if ref.checkpoint != self.fingerprint:
            return self.of_codes(ref.codes, ref.transcript, ref.provenance)
        found = len(ref.ar_speaker), len(ref.nar_speaker)
        wanted = self._ar.dims.dim, self._nar.dims.dim
        if found != wanted:
            raise VoiceError(
                f"the voice has speaker vectors of {found}, this model needs {wanted}: make it "
                "again from the audio"
            )
        return ref

    @torch.no_grad()
    def of_codes(self, codes: Tensor, transcript: str | None, provenance: dict[str, str]) -> Voice:
        """The voice of codes (R, Q), with speaker vectors."""
        batch = codes[None].to(self._device)
        lengths = torch.tensor([len(codes)], device=self._device)
        ar_speaker = self._ar.speaker_vector(batch)[0].float().cpu()
        nar_speaker = self._nar.speaker_vector(batch, lengths)[0].float().cpu()
        return Voice(
            codes, transcript, self._codec_name, self.fingerprint,
            ar_speaker, nar_speaker, provenance, self._codec.frame_rate,
        )  # fmt: skip

    @property
    def _device(self) -> torch.device:
        return self._ar.embed.weight.device


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


def _checked_facts(provenance: dict[str, str]) -> dict[str, str]:
    if not all(isinstance(x, str) for item in provenance.items() for x in item):
        raise ConfigError(f"provenance must map strings to strings, got {provenance!r:.200}")
    return dict(provenance)


def warn_of_length(what: str, wave: Tensor, cfg: InferenceConfig, remedy: str) -> None:
    """Warn of a wave (T,) that is longer than the model was made for."""
    seconds = len(wave) / SAMPLE_RATE
    if seconds > cfg.max_prompt_dur:
        log.warning(
            "the %s lasts %.1f s; the model was made for 2 to %g s and may get worse: %s",
            what,
            seconds,
            cfg.max_prompt_dur,
            remedy,
        )

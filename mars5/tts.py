"""The facade: the order of the stages, and nothing else.

    text + voice -> prompt -> ar.decode -> L0 codes -> nar.decode -> codes -> vocoder -> wave

`Mars5TTS` holds the models of one checkpoint and no state of any call.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mars5 import hub
from mars5.ar.decode import generate_ids
from mars5.ar.model import CodecLM
from mars5.audio import AudioInput, load_reference, trim_silence
from mars5.checkpoint import load_pair
from mars5.codec import Codec
from mars5.config import CODEBOOK_SIZE, N_CODEBOOKS, SAMPLE_RATE, InferenceConfig, ModelConfig
from mars5.device import memory_errors, resolve_device, resolve_dtype
from mars5.errors import ConfigError, GenerationError, TextError, VoiceError
from mars5.loading import load_codec_and_vocoder, speaker_fingerprint
from mars5.nar.decode import Estimator, Known, denoise
from mars5.nar.diffusion import cosine_schedule
from mars5.nar.model import ResidualTransformer
from mars5.prompt import Prompt, build_prompt, joint_vocabulary, speech_codes
from mars5.text import check_speakable
from mars5.tokenizers import SpeechTokenizer, TextTokenizer
from mars5.vocoder import Vocoder
from mars5.voice import Voice

log = logging.getLogger("mars5")

Item = TypeVar("Item")

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


@dataclass(frozen=True, eq=False)
class Speech:
    """What one generation gave.

    Attributes:
        audio: (T,) float32 at 24 kHz on the CPU, silence at the ends trimmed.
        codes: (n, Q) int64, all codebooks of the new speech.
        ar_codes: (m,) int64 coarse codes as the AR gave them; in a deep clone they begin with
            (almost all of) the reference's own.
        finish_reason: "stop" if the AR ended by itself, "length" if it reached its limit.
    """

    audio: Tensor
    codes: Tensor
    ar_codes: Tensor
    finish_reason: str
    sample_rate: int = SAMPLE_RATE


class Mars5TTS:
    """A text-to-speech system that speaks with the voice of a short reference.

    Attributes:
        sr: sample rate of all audio, 24 000 Hz.
        config: what the checkpoint states of itself.
    """

    sr = SAMPLE_RATE

    def __init__(
        self,
        ar: CodecLM,
        nar: ResidualTransformer,
        text_tokenizer: TextTokenizer,
        speech_tokenizer: SpeechTokenizer,
        codec: Codec,
        vocoder: Vocoder,
        config: ModelConfig,
        default_voice: Voice | None = None,
    ) -> None:
        self.ar, self.nar = ar, nar
        self.text_tokenizer, self.speech_tokenizer = text_tokenizer, speech_tokenizer
        self.codec, self.vocoder = codec, vocoder
        self.config = config
        self.default_voice = default_voice
        self.vocabulary = joint_vocabulary(text_tokenizer, speech_tokenizer)
        self.schedule = cosine_schedule(config.nar.diffusion_steps).to(self.device)
        self._fingerprint = speaker_fingerprint(ar, nar)

    @classmethod
    def from_pretrained(
        cls,
        model: str | os.PathLike[str] = hub.NANO,
        *,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        **hub_options: Any,
    ) -> Mars5TTS:
        """Load a system.

        Args:
            model: "nano" for the checkpoint inside this package, a folder, or a hub repository
                such as "CAMB-AI/MARS5-TTS".
            device: "cpu", "cuda", "cuda:1", "mps"; None takes the best one there is.
            dtype: of the two transformers; None takes float32 on a CPU and float16 elsewhere.
            hub_options: keywords of `huggingface_hub.hf_hub_download`: revision, cache_dir, token,
                local_files_only, force_download, ...

        Raises:
            CheckpointError, TokenizerError: files are missing, damaged or do not fit.
            HubError: the hub could not give the files.
            DeviceError: the device is not there.
            ConfigError: `dtype` is not float32, float16 or bfloat16.
            OutOfMemoryError: the model does not fit into memory.
        """
        return cls.from_files(
            hub.find(model, **hub_options), device=device, dtype=dtype, **hub_options
        )

    @classmethod
    @memory_errors()
    def from_files(
        cls,
        files: hub.ModelFiles,
        *,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        **hub_options: Any,
    ) -> Mars5TTS:
        """Load a system from its files; arguments and errors as in `from_pretrained`."""
        hub.check_options(hub_options)
        where = resolve_device(device)
        pair = load_pair(files.ar, files.nar, device=where, dtype=resolve_dtype(dtype, where))
        codec, vocoder = load_codec_and_vocoder(files, pair.config, hub_options)
        return cls(
            pair.ar,
            pair.nar,
            pair.text_tokenizer,
            pair.speech_tokenizer,
            codec.to(_audio_device(where)),
            vocoder.to(_audio_device(where)),
            pair.config,
            Voice.load(files.voice) if files.voice is not None else None,
        )

    @property
    def device(self) -> torch.device:
        """Where the models live."""
        return self.ar.embed.weight.device

    @property
    def default_config(self) -> InferenceConfig:
        """The settings recommended by the checkpoint's makers."""
        return InferenceConfig(**self.config.defaults)

    def tts(
        self,
        text: str,
        ref_audio: AudioInput | Voice | None = None,
        ref_transcript: str | None = None,
        cfg: InferenceConfig | None = None,
        *,
        seed: int | None = None,
        generator: torch.Generator | None = None,
        progress: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Speak `text`: `(ar_codes (n,) int64, audio (T,) float32 at 24 kHz)`.

        Arguments and errors are those of `generate`, which returns more.
        """
        speech = self.generate(
            text, ref_audio, ref_transcript, cfg, seed=seed, generator=generator, progress=progress
        )
        return speech.ar_codes, speech.audio

    @memory_errors()
    def generate(
        self,
        text: str,
        ref_audio: AudioInput | Voice | None = None,
        ref_transcript: str | None = None,
        cfg: InferenceConfig | None = None,
        *,
        seed: int | None = None,
        generator: torch.Generator | None = None,
        progress: bool = False,
    ) -> Speech:
        """Speak `text` with the voice of `ref_audio`.

        Args:
            ref_audio: a `Voice`; a path or the bytes of an audio file; a waveform at 24 kHz; a
                pair (waveform, rate); None for the model's own voice.
            ref_transcript: what the reference says; needed for a deep clone.
            cfg: settings; None takes `default_config`, with a deep clone only if there is a
                transcript.
            seed: makes the result repeat on the same machine and versions.
            generator: a CPU generator to draw from instead; with neither, torch's global one.
            progress: show progress bars on standard error.

        Raises:
            TextError, AudioInputError, VoiceError, ConfigError: what was given is not usable.
            GenerationError: the model ended at once, or there is nothing to hear.
            OutOfMemoryError: memory did not suffice; the next request works as ever.
        """
        generator = _generator(seed, generator)
        _check_settings(cfg)
        check_speakable(text)
        voice = self._voice_for(ref_audio, ref_transcript, cfg)
        cfg = self._settings_for(voice, cfg)
        prompt = self._prompt(text, voice, cfg)
        generated, finish_reason = self._generate_coarse(
            text, prompt, voice, cfg, generator, progress
        )
        ar_codes = speech_codes(
            prompt,
            generated,
            self.vocabulary.n_text,
            self.speech_tokenizer,
            self.config.prompt.drop_first,
        )
        codes = self._refine(prompt, ar_codes, voice, cfg, generator, progress)
        audio = trim_silence(self.vocode(codes)[0], cfg.trim_db).clone()  # not what was cut
        if not len(audio):
            raise GenerationError(
                "the vocoder gave no audible sound: try another seed, another reference, or a "
                f"trim_db above {cfg.trim_db:g}"
            )
        return Speech(audio, codes, torch.tensor(ar_codes), finish_reason)

    @memory_errors()
    def voice(
        self,
        ref_audio: AudioInput,
        transcript: str | None = None,
        *,
        cfg: InferenceConfig | None = None,
        provenance: dict[str, str] | None = None,
    ) -> Voice:
        """Prepare a reference once: codes and speaker vectors, to be reused, saved and passed.

        Args:
            ref_audio: as in `generate`.
            transcript: what it says; without it only shallow clones are possible.
            provenance: facts kept with the voice: source, licence, consent.

        Raises:
            AudioInputError: the audio is not usable as a reference.
            TextError: the transcript is not speakable.
        """
        _check_settings(cfg)
        cfg = cfg or self.default_config
        if transcript is not None:
            check_speakable(transcript, "ref_transcript")
        wave = load_reference(ref_audio)
        seconds = len(wave) / self.sr
        if seconds > cfg.max_prompt_dur:
            log.warning(
                "the reference lasts %.1f s; the model was made for 2 to %g s and may get worse",
                seconds,
                cfg.max_prompt_dur,
            )
        padded = F.pad(wave, (round(cfg.ref_audio_pad * self.sr), 0))
        codes = self.codec.encode(padded[None].to(_audio_device(self.device)))[0].cpu()
        return self._prepared(codes, transcript, _checked_facts(provenance or {}))

    def get_speaker_embedding(self, ref_audio: AudioInput) -> Tensor:
        """(1, D): the AR's speaker vector of a reference given as in `generate`."""
        return self.voice(ref_audio).ar_speaker[None]

    @memory_errors()
    @torch.no_grad()  # not inference_mode, whose tensors a caller could not change in place
    def vocode(self, codes: Tensor) -> Tensor:
        """Integer codes (n, q) or (n,), 1 <= q <= 8 -> (1, T) float32 at 24 kHz on the CPU.

        Raises:
            ConfigError: no integer tensor, another shape, no frames, or codes outside 0..1023.
            OutOfMemoryError: memory did not suffice.
        """
        if not isinstance(codes, Tensor) or codes.dtype not in _INTEGERS:
            found = codes.dtype if isinstance(codes, Tensor) else type(codes).__name__
            raise ConfigError(f"codes must be a tensor of integers, got {found}")
        codes = codes[:, None] if codes.ndim == 1 else codes
        if codes.ndim != 2 or not 1 <= codes.shape[1] <= N_CODEBOOKS or not len(codes):
            raise ConfigError(
                f"codes must have shape (frames, 1 to {N_CODEBOOKS}), got {tuple(codes.shape)}"
            )
        if codes.min() < 0 or codes.max() >= CODEBOOK_SIZE:
            raise ConfigError(
                f"codes must lie in 0..{CODEBOOK_SIZE - 1}, got {codes.min()}..{codes.max()}"
            )
        return self.vocoder(codes[None].to(_audio_device(self.device))).cpu()

    def _voice_for(
        self, ref: AudioInput | Voice | None, transcript: str | None, cfg: InferenceConfig | None
    ) -> Voice:
        """The voice to speak with, its speaker vectors computed by these models."""
        if ref is None:
            if self.default_voice is None:
                raise VoiceError("this model brings no voice of its own: give ref_audio")
            ref = self.default_voice
        if not isinstance(ref, Voice):
            return self.voice(ref, transcript, cfg=cfg)
        if ref.codec != self.codec.name:
            raise VoiceError(
                f"the voice was made with the codec {ref.codec!r}, this model uses "
                f"{self.codec.name!r}: make it again from the audio"
            )
        if transcript is not None:
            check_speakable(transcript, "ref_transcript")
            ref = replace(ref, transcript=transcript)
        if ref.checkpoint == self._fingerprint:
            widths = (len(ref.ar_speaker), len(ref.nar_speaker))
            if widths != (self.config.ar.dim, self.config.nar.dim):
                raise VoiceError(
                    f"the voice has speaker vectors of {widths}, this model needs "
                    f"{(self.config.ar.dim, self.config.nar.dim)}: make it again from the audio"
                )
            return ref
        return self._prepared(ref.codes, ref.transcript, ref.provenance)

    @torch.no_grad()
    def _prepared(self, codes: Tensor, transcript: str | None, provenance: dict[str, str]) -> Voice:
        """The voice of codes (R, Q), with speaker vectors."""
        batch = codes[None].to(self.device)
        lengths = torch.tensor([len(codes)], device=self.device)
        ar_speaker = self.ar.speaker_vector(batch)[0].float().cpu()
        nar_speaker = self.nar.speaker_vector(batch, lengths)[0].float().cpu()
        return Voice(
            codes, transcript, self.codec.name, self._fingerprint,
            ar_speaker, nar_speaker, provenance, self.codec.frame_rate,
        )  # fmt: skip

    def _settings_for(self, voice: Voice, cfg: InferenceConfig | None) -> InferenceConfig:
        if cfg is None:
            cfg = self.default_config
            cfg = replace(cfg, deep_clone=cfg.deep_clone and voice.transcript is not None)
        if cfg.deep_clone and voice.transcript is None:
            raise TextError(
                "a deep clone needs the reference's transcript: give ref_transcript, or set "
                "deep_clone=False in the InferenceConfig"
            )
        if cfg.timesteps > len(self.schedule):
            raise ConfigError(f"timesteps is {cfg.timesteps}, this model has {len(self.schedule)}")
        return cfg

    def _prompt(self, text: str, voice: Voice, cfg: InferenceConfig) -> Prompt:
        prompt = build_prompt(
            text,
            voice.transcript if cfg.deep_clone else None,
            voice.codes[:, 0].tolist(),
            self.text_tokenizer,
            self.speech_tokenizer,
        )
        limit = min(cfg.max_len, self.config.ar.sliding_window)
        if len(prompt.ids) >= limit:
            raise TextError(
                f"text and reference take {len(prompt.ids)} ids, the model has room for {limit}: "
                "shorten the text or the reference, or split the text"
            )
        return prompt

    def _generate_coarse(
        self, text: str, prompt: Prompt, voice: Voice, cfg: InferenceConfig,
        generator: torch.Generator | None, progress: bool,
    ) -> tuple[list[int], str]:  # fmt: skip
        """New joint ids without the end token, and why the loop ended."""
        estimate = round(cfg.eos_estimated_gen_length_factor * len(text))
        ids = generate_ids(
            self.ar,
            torch.tensor([prompt.ids], device=self.device),
            voice.ar_speaker[None].to(self.device),
            self.vocabulary,
            cfg,
            estimate,
            generator,
        )
        generated = list(_shown(ids, progress, "coarse codes", None))
        if generated and generated[-1] == self.vocabulary.end:
            return generated[:-1], "stop"
        log.warning("generation reached its limit of %d ids before the speech ended", cfg.max_len)
        return generated, "length"

    def _refine(
        self, prompt: Prompt, ar_codes: list[int], voice: Voice, cfg: InferenceConfig,
        generator: torch.Generator | None, progress: bool,
    ) -> Tensor:  # fmt: skip
        """All codebooks (n, Q) of the new speech, from the coarse codes."""
        reference = voice.codes.to(self.device)
        n_reference = len(reference) if cfg.deep_clone else 0
        repeated = n_reference if self.config.prompt.repeat_reference else 0
        coarse = torch.tensor(ar_codes[n_reference - repeated :], device=self.device)
        if len(coarse) <= repeated:
            raise GenerationError(
                "the model ended the speech at once: try another seed, a longer text, or other "
                "sampling settings"
            )
        known = Known.from_coarse(coarse[None], reference[None] if cfg.deep_clone else None)
        estimator = Estimator(
            self.nar,
            torch.tensor([prompt.ids[: prompt.n_text]], device=self.device),
            torch.tensor([prompt.n_text], device=self.device),
            voice.nar_speaker[None].to(self.device, self.nar.text_embed.weight.dtype),
            cfg.nar_guidance_w,
            cfg.x_0_temp,
        )
        steps = denoise(
            estimator, known, self.schedule, cfg.timesteps, cfg.q0_override_steps, generator
        )
        *_, codes = _shown(steps, progress, "all codebooks", cfg.timesteps)
        return codes[0, n_reference + repeated :].cpu().clone()


def _audio_device(device: torch.device) -> torch.device:
    """Where codec and vocoder run: MPS lacks operators of their Fourier transforms."""
    return torch.device("cpu") if device.type == "mps" else device


def _checked_facts(provenance: dict[str, str]) -> dict[str, str]:
    if not all(isinstance(x, str) for item in provenance.items() for x in item):
        raise ConfigError(f"provenance must map strings to strings, got {provenance!r:.200}")
    return dict(provenance)


def _check_settings(cfg: InferenceConfig | None) -> None:
    if cfg is not None and not isinstance(cfg, InferenceConfig):
        raise ConfigError(
            f"cfg must be an InferenceConfig, got {type(cfg).__name__}: write "
            "InferenceConfig(name=value, ...)"
        )


def _generator(seed: int | None, generator: torch.Generator | None) -> torch.Generator | None:
    if generator is not None and not (
        isinstance(generator, torch.Generator) and generator.device.type == "cpu"
    ):
        raise ConfigError(f"generator must be a torch.Generator on the CPU, got {generator!r}")
    if seed is None:
        return generator
    if generator is not None:
        raise ConfigError("give a seed or a generator, not both")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise ConfigError(f"seed must be a whole number from 0 to 2**63 - 1, got {seed!r}")
    return torch.Generator().manual_seed(seed)


def _shown(items: Iterable[Item], progress: bool, name: str, total: int | None) -> Iterator[Item]:
    """The same items, under a progress bar if one is wanted."""
    if not progress:
        yield from items
        return
    from tqdm import tqdm

    yield from tqdm(items, name, total, leave=False)

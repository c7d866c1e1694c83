"""`Engine`: the models of one checkpoint, and the stages of one utterance.

    text + voice -> prompt -> ar.decode -> L0 codes -> nar.decode -> codes -> vocoder -> wave

`utterance` runs them one after the other. Batches, streams and edits call the stages themselves.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mars5.ar.decode import generate_ids
from mars5.ar.graph import Spare
from mars5.ar.model import CodecLM
from mars5.audio import AudioInput, trim_silence
from mars5.codec import Codec, MelCodec
from mars5.config import CODEBOOK_SIZE, N_CODEBOOKS, InferenceConfig, ModelConfig, check_settings
from mars5.device import at_work
from mars5.errors import ConfigError, GenerationError, TextError
from mars5.nar.decode import Known, denoise, steps_made
from mars5.nar.diffusion import cosine_schedule
from mars5.nar.draws import Source
from mars5.nar.estimate import Estimator
from mars5.nar.graph import GraphedDecoder
from mars5.nar.model import ResidualTransformer
from mars5.nar.settle import Settling
from mars5.nar.timbre import Timbre
from mars5.progress import shown
from mars5.prompt import Prompt, build_prompt, joint_vocabulary, speech_codes
from mars5.speech import Speech, inaudible
from mars5.tempo import retimed
from mars5.text import check_speakable
from mars5.timbres import Timbres
from mars5.tokenizers import SpeechTokenizer, TextTokenizer
from mars5.vocoder import Vocoder
from mars5.voice import Voice
from mars5.voice_maker import VoiceMaker

log = logging.getLogger("mars5")

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


@dataclass(frozen=True, eq=False)
class Task:
    """One utterance, checked and prepared.

    Attributes:
        voice: who speaks: what the NAR is given.
        ar_speaker: (D,) vector that the AR is given.
        delivery: whose codes and transcript the AR continues in a deep clone.
    """

    text: str
    voice: Voice
    ar_speaker: Tensor
    delivery: Voice
    cfg: InferenceConfig
    prompt: Prompt
    generator: torch.Generator | None

    @property
    def estimate(self) -> int:
        """Tokens the speech should take."""
        return round(self.cfg.eos_estimated_gen_length_factor * len(self.text))


@dataclass(frozen=True)
class Coarse:
    """What the AR gave for one utterance: coarse codes, and why it stopped."""

    codes: list[int]
    finish_reason: str


class Engine:
    """The models of one checkpoint; nothing here belongs to a call.

    Args:
        default_voice: of calls that give no reference.

    Attributes:
        vocabulary: text and speech ids in one row of logits.
        schedule: of the diffusion.
        voices: makes voices and takes those that are given.
        spare_steps: what the AR needs for its steps, kept between calls.
    """

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
        self.vocabulary = joint_vocabulary(text_tokenizer, speech_tokenizer)
        self.schedule = cosine_schedule(config.nar.diffusion_steps).to(self.device)
        self.voices = VoiceMaker(ar, nar, codec, self.default_config, default_voice)
        self.spare_steps = Spare()
        self._timbres = Timbres()
        self._nar_decode = GraphedDecoder(nar) if self.device.type == "cuda" else None

    @property
    def device(self) -> torch.device:
        """Where the models live."""
        return self.ar.embed.weight.device

    @property
    def default_config(self) -> InferenceConfig:
        """The settings recommended by the checkpoint's makers."""
        return InferenceConfig(**self.config.defaults)

    def utterance(
        self,
        text: str,
        voice: Voice,
        cfg: InferenceConfig,
        generator: torch.Generator | None,
        progress: bool = False,
    ) -> Speech:
        """Speak one piece of text as it stands, by all stages; errors as in `Mars5TTS.generate`."""
        task = self.task(text, voice, None, cfg, generator)
        ids = self.draw(task)
        coarse = self.coarse(task, list(shown(ids, progress, "coarse codes", None)))
        estimator, known = self.refinement(task, coarse)
        steps = self.denoise(estimator, known, task.cfg, task.generator)
        *_, codes = shown(steps, progress, "all codebooks", len(self.nar_steps(task.cfg)))
        return self.speech(task, coarse, codes[0])

    def settings_for(self, voice: Voice, cfg: InferenceConfig | None) -> InferenceConfig:
        """The settings of a call; None takes `default_config`, as deep as the voice allows.

        Raises:
            TextError: a deep clone of a voice without a transcript, or of a blend.
            ConfigError: more timesteps than the model has, or a timbre that its codec cannot take.
        """
        if cfg is None:
            cfg = self.default_config.for_reference(is_transcribed(voice))
        if cfg.deep_clone and not is_transcribed(voice):
            shallow = "set deep_clone=False in the InferenceConfig (--shallow)"
            if voice.is_blend:
                raise TextError(
                    "the voice is a blend, which has no recording that a deep clone could "
                    f"continue: {shallow}"
                )
            raise TextError(
                "a deep clone needs the reference's transcript: give ref_transcript (--ref-text; "
                f"for a voice file --text of `mars5 voice make`), or {shallow}"
            )
        if cfg.nar_timbre and not isinstance(self.codec, MelCodec):
            raise ConfigError(
                f"nar_timbre is {cfg.nar_timbre}: it needs a mel codec, as the embedded checkpoint "
                "has; with this one leave it at 0"
            )
        if cfg.timesteps > len(self.schedule):
            raise ConfigError(f"timesteps is {cfg.timesteps}, this model has {len(self.schedule)}")
        return cfg

    @at_work()
    def task(
        self,
        text: str,
        ref_audio: AudioInput | Voice | None,
        ref_transcript: str | None,
        cfg: InferenceConfig | None,
        generator: torch.Generator | None,
    ) -> Task:
        """Everything checked and prepared that one utterance needs.

        Raises:
            TextError, AudioInputError, VoiceError, ConfigError: what was given is not usable.
            OutOfMemoryError: memory did not suffice.
        """
        check_settings(cfg)
        check_speakable(text)
        voice = self.voices.of(ref_audio, ref_transcript, cfg)
        cfg = self.settings_for(voice, cfg)
        speaking = self._delivering(voice)
        return self._task(text, voice, speaking.ar_speaker, speaking.delivery, cfg, generator)

    def continuation(
        self,
        text: str,
        voice: Voice,
        codes: Tensor,
        said: str,
        cfg: InferenceConfig,
        generator: torch.Generator | None,
    ) -> Task:
        """A task in which the AR goes on from coarse codes (n,), which say `said`; errors as above.

        Args:
            voice: prepared by `voices`.
        """
        every = codes[:, None].expand(-1, N_CODEBOOKS)  # the AR looks at the first ones only
        speaking = self._delivering(voice)
        before = replace(speaking, codes=every, transcript=said, style=None)
        cfg = replace(cfg, deep_clone=True)
        return self._task(text, voice, speaking.ar_speaker, before, cfg, generator)

    def _task(
        self,
        text: str,
        voice: Voice,
        ar_speaker: Tensor,
        delivery: Voice,
        cfg: InferenceConfig,
        generator: torch.Generator | None,
    ) -> Task:
        prompt = self._prompt(text, delivery, cfg)
        limit = min(cfg.max_len, self.config.ar.sliding_window)
        if len(prompt.ids) >= limit:
            raise TextError(
                f"text and reference take {len(prompt.ids)} ids, the model has room for {limit}: "
                "shorten the text or the reference, or split the text"
            )
        return Task(text, voice, ar_speaker, delivery, cfg, prompt, generator)

    def _own(self) -> Voice | None:
        """Whose voice the AR has, whoever is cloned (`own_delivery`); None for the clone's."""
        if not self.config.prompt.own_delivery or self.voices.default is None:
            return None
        return self.voices.of(None)

    def goes_on_from(self, voice: Voice) -> bool:
        """Whether the AR can: with a delivery of its own it goes on from its own codes alone."""
        own = self._own()
        return own is None or torch.equal(own.codes, voice.codes)

    def _delivering(self, voice: Voice) -> Voice:
        """The voice that the AR speaks with: this one, or the checkpoint's own.

        The own one is not continued: its vector says all, and what is spoken from the beginning is
        clearer. A style is added to it.
        """
        own = self._own()
        if own is None:
            return voice
        own = replace(own, transcript=None)
        if voice.style is None:
            return own
        return own.with_style(voice.style, voice.style_strength, plain=voice.style_plain)

    def _prompt(self, text: str, reference: Voice, cfg: InferenceConfig) -> Prompt:
        return build_prompt(
            text,
            reference.transcript if cfg.deep_clone else None,
            reference.codes[:, 0].tolist(),
            self.text_tokenizer,
            self.speech_tokenizer,
        )

    def draw(self, task: Task) -> Generator[int, None, None]:
        """The AR's new ids, one by one, the end token included; closing it stops the work."""
        return generate_ids(
            self.ar,
            torch.tensor([task.prompt.ids]),
            task.ar_speaker[None],
            self.vocabulary,
            task.cfg,
            task.estimate,
            task.generator,
            self.spare_steps,
        )

    def coarse(self, task: Task, generated: list[int]) -> Coarse:
        """Coarse codes of what the AR generated, and why it stopped."""
        stopped = bool(generated) and generated[-1] == self.vocabulary.end
        if not stopped:
            limit = task.cfg.max_len
            log.warning("generation reached its limit of %d ids before the speech ended", limit)
        codes = speech_codes(
            task.prompt,
            generated[:-1] if stopped else generated,
            self.vocabulary.n_text,
            self.speech_tokenizer,
            self.config.prompt.drop_first,
        )
        return Coarse(codes, "stop" if stopped else "length")

    def refinement(self, task: Task, coarse: Coarse) -> tuple[Estimator, Known]:
        """What the NAR is to be asked, to fill in all codebooks; errors as in `known`."""
        return self.estimator(task), self.known(task, coarse)

    def known(self, task: Task, coarse: Coarse) -> Known:
        """What is given to the NAR: coarse codes, and in a deep clone the reference.

        Raises:
            GenerationError: there are no new coarse codes.
        """
        reference = task.voice.codes.to(self.device)
        n_reference, repeated = self.reference_frames(task)
        codes = torch.tensor(self._coarse_shown(task, coarse), device=self.device)
        if len(codes) <= repeated:
            raise GenerationError(
                "the model ended the speech at once: try another seed, a longer text, or other "
                "sampling settings"
            )
        return Known.from_coarse(codes[None], reference[None] if n_reference else None)

    def estimator(self, task: Task) -> Estimator:
        """The NAR, told the text and the voice."""
        cfg, voice, prompt = task.cfg, task.voice, task.prompt
        if task.delivery is not voice:  # the AR's text begins with another transcript
            prompt = self._prompt(task.text, voice, cfg)
        return Estimator(
            self.nar,
            torch.tensor([prompt.ids[: prompt.n_text]], device=self.device),
            torch.tensor([prompt.n_text], device=self.device),
            voice.nar_speaker[None].to(self.device, self.nar.text_embed.weight.dtype),
            cfg.nar_guidance_w,
            cfg.x_0_temp,
            decode=self._nar_decode,
            timbre=self._timbre(task),
        )

    def _timbre(self, task: Task) -> Timbre | None:
        """What brings the NAR's sound of the voice to that of its recording; found once a voice."""
        cfg, voice = task.cfg, task.voice
        if not cfg.nar_timbre or not cfg.nar_settle_step or voice.is_blend:
            return None
        return self._timbres.of(voice, cfg, lambda: self._find_timbre(voice, cfg))

    def _find_timbre(self, voice: Voice, cfg: InferenceConfig) -> Timbre | None:
        """By what the NAR makes, in the voice, of coarse codes that are known.

        They are those of the voice that the AR speaks with; None without its transcript.
        """
        plain = replace(voice, style=None, style_strength=0.0, style_plain=None)
        source = self._own() or plain
        if source.transcript is None:
            return None
        generator = torch.Generator().manual_seed(0)
        strength = cfg.nar_timbre
        cfg = replace(cfg, nar_timbre=0.0, generate_max_len_override=-1)  # a limit of other texts
        cfg = cfg.for_reference(plain.transcript is not None)
        task = self.task(source.transcript, plain, None, cfg, generator)
        begun = source.codes[: self.continued_frames(task), 0].tolist()
        asked = self.refinement(task, Coarse([*begun, *source.codes[:, 0].tolist()], "stop"))
        *_, codes = self.denoise(*asked, cfg, generator)
        made = codes[0, sum(self.reference_frames(task)) :]
        return Timbre.between(self._sound(made), self._sound(voice.codes), strength).to(self.device)

    def _sound(self, codes: Tensor) -> Tensor:
        """Codes (n, Q) -> (n * stack, C) log-mel frames."""
        return self.vocoder.features(codes[None].to(self.device))[0].T.float().cpu()

    def denoise(
        self, estimator: Estimator, known: Known, cfg: InferenceConfig, generator: Source
    ) -> Iterator[Tensor]:
        """The codes (B, L, Q) after each step of the diffusion."""
        settling = None
        if cfg.nar_settle_step:
            settling = Settling(cfg.nar_settle_step, self.vocoder.books)
        steps = cfg.timesteps, cfg.q0_override_steps
        return denoise(estimator, known, self.schedule, *steps, generator, settling)

    def nar_steps(self, cfg: InferenceConfig) -> list[int]:
        """The diffusion steps at which the NAR is asked."""
        return steps_made(len(self.schedule), cfg.timesteps, cfg.nar_settle_step)

    def speech(self, task: Task, coarse: Coarse, codes: Tensor) -> Speech:
        """The result for all codes (L, Q) of the NAR's decoder, a reference in front included.

        Raises:
            GenerationError: there is nothing to hear.
        """
        codes = codes[sum(self.reference_frames(task)) :].cpu().clone()
        trim_db = task.cfg.trim_db
        audio = trim_silence(self.vocode(codes)[0], trim_db).clone()  # not what was cut
        audio = retimed(audio, task.cfg.speed)
        if not len(audio):
            raise inaudible(trim_db)
        chosen = task.voice.style_choice
        return Speech(audio, codes, torch.tensor(coarse.codes), coarse.finish_reason, style=chosen)

    @at_work()
    @torch.no_grad()  # not inference_mode, whose tensors a caller could not change in place
    def vocode(self, codes: Tensor) -> Tensor:
        """The sound of codes; shapes and errors are those of `Mars5TTS.vocode`."""
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
        return self.vocoder(codes[None].to(self.device)).cpu()

    def continued_frames(self, task: Task) -> int:
        """Frames of the delivering voice with which the AR's codes begin."""
        return len(task.delivery.codes) if _continues(task.delivery, task.cfg) else 0

    def reference_frames(self, task: Task) -> tuple[int, int]:
        """Frames of the reference in the NAR's decoder: known in full, and repeated after that."""
        n_reference = len(task.voice.codes) if _continues(task.voice, task.cfg) else 0
        twice = self.config.prompt.repeat_reference and not task.cfg.show_reference_once
        return n_reference, n_reference if twice else 0

    def _coarse_shown(self, task: Task, coarse: Coarse) -> list[int]:
        """L0 codes after the known reference in the NAR's decoder, its second copy included."""
        n_reference, repeated = self.reference_frames(task)
        if task.delivery is task.voice:
            return coarse.codes[n_reference - repeated :]
        new = coarse.codes[self.continued_frames(task) :]
        return [*task.voice.codes[:repeated, 0].tolist(), *new]


def is_transcribed(voice: Voice) -> bool:
    """Whether at least one of the two models can continue what it is given."""
    return voice.transcript is not None or voice.delivery.transcript is not None


def _continues(reference: Voice, cfg: InferenceConfig) -> bool:
    """Whether a model that is given this reference continues it: a deep clone."""
    return cfg.deep_clone and reference.transcript is not None

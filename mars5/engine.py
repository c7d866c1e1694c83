"""`Engine`: the models of one checkpoint, and the stages of one utterance.

    text + voice -> prompt -> ar.decode -> L0 codes -> nar.decode -> codes -> vocoder -> wave

A checkpoint with a delivery of its own speaks with its own voice, and between the NAR and the
vocoder their sound is converted to the voice that is wanted (`mars5.conversion`).

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
from mars5.codec import Codec
from mars5.config import CODEBOOK_SIZE, N_CODEBOOKS, InferenceConfig, ModelConfig, check_settings
from mars5.conversion import Conversion, Converter
from mars5.conversion.found import Found
from mars5.conversion.pitch import register
from mars5.device import at_work
from mars5.errors import ConfigError, GenerationError, TextError
from mars5.nar.decode import Known, denoise, steps_made
from mars5.nar.diffusion import cosine_schedule
from mars5.nar.draws import Source
from mars5.nar.estimate import Estimator
from mars5.nar.graph import GraphedDecoder
from mars5.nar.model import ResidualTransformer
from mars5.nar.settle import Settling
from mars5.progress import shown
from mars5.prompt import Prompt, build_prompt, joint_vocabulary, speech_codes
from mars5.speech import Speech, inaudible
from mars5.tempo import retimed
from mars5.text import check_speakable
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
        voice: whose voice is wanted.
        ar_speaker: (D,) vector that the AR is given.
        delivery: whose codes and transcript the AR continues in a deep clone.
        narrator: what the NAR is given: the voice, or the checkpoint's own, to be converted.
    """

    text: str
    voice: Voice
    ar_speaker: Tensor
    delivery: Voice
    narrator: Voice
    cfg: InferenceConfig
    prompt: Prompt
    generator: torch.Generator | None

    @property
    def is_converted(self) -> bool:
        """Whether what the NAR gives is still to be converted to the voice."""
        return self.narrator is not self.voice

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
        converter: of the own voice to others, if the checkpoint brings one.

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
        converter: Converter | None = None,
    ) -> None:
        self.ar, self.nar = ar, nar
        self.text_tokenizer, self.speech_tokenizer = text_tokenizer, speech_tokenizer
        self.codec, self.vocoder = codec, vocoder
        self.config = config
        self.vocabulary = joint_vocabulary(text_tokenizer, speech_tokenizer)
        self.schedule = cosine_schedule(config.nar.diffusion_steps).to(self.device)
        self.converter = converter
        defaults = InferenceConfig(**config.defaults)
        self.voices = VoiceMaker(ar, nar, codec, defaults, default_voice)
        self.spare_steps = Spare()
        self._conversions: Found[Conversion] = Found()
        self._nar_decode = GraphedDecoder(nar) if self.device.type == "cuda" else None

    @property
    def device(self) -> torch.device:
        """Where the models live."""
        return self.ar.embed.weight.device

    @property
    def default_config(self) -> InferenceConfig:
        """The settings recommended by the checkpoint's makers, as far as all files are there."""
        settings = InferenceConfig(**self.config.defaults)
        return settings if self._can_convert else replace(settings, voice_conversion=0.0)

    @property
    def _can_convert(self) -> bool:
        """Whether all speak with an own voice, which can become another one."""
        return (
            self.voices.default is not None
            and self.config.prompt.own_delivery
            and self.converter is not None
        )

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
            ConfigError: more timesteps than the model has, or a conversion that it cannot do.
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
        if cfg.voice_conversion and not self._can_convert:
            raise ConfigError(
                f"voice_conversion is {cfg.voice_conversion}: it needs a checkpoint with a "
                "delivery of its own, a transposer and a default voice, as the embedded one; with "
                "this one leave it at 0"
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
        narrator = self._narrator(voice, cfg)
        return Task(text, voice, ar_speaker, delivery, narrator, cfg, prompt, generator)

    def _own(self) -> Voice | None:
        """Whose voice the AR has, whoever is cloned (`own_delivery`); None for the clone's.

        It is not continued: its vector says all, and what is spoken from the beginning is clearer.
        """
        if not self.config.prompt.own_delivery or self.voices.default is None:
            return None
        return replace(self.voices.of(None), transcript=None)

    def _narrator(self, voice: Voice, cfg: InferenceConfig) -> Voice:
        """What the NAR is given: this voice, or the checkpoint's own, to be converted to it.

        The own voice itself is left as it is, and a blend has no recording that tells its pitch.
        """
        own = self._own()
        if not cfg.voice_conversion or voice.is_blend or own is None or self.goes_on_from(voice):
            return voice
        return own

    def goes_on_from(self, voice: Voice) -> bool:
        """Whether the AR can: with a delivery of its own it goes on from its own codes alone."""
        own = self._own()
        return own is None or torch.equal(own.codes, voice.codes)

    def _delivering(self, voice: Voice) -> Voice:
        """The voice that the AR speaks with: this one, or the checkpoint's own with its style."""
        own = self._own()
        if own is None:
            return voice
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
        reference = task.narrator.codes.to(self.device)
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
        cfg, voice, prompt = task.cfg, task.narrator, task.prompt
        if task.delivery is not voice:  # the AR's text may begin with another transcript
            prompt = self._prompt(task.text, voice, cfg)
        return Estimator(
            self.nar,
            torch.tensor([prompt.ids[: prompt.n_text]], device=self.device),
            torch.tensor([prompt.n_text], device=self.device),
            voice.nar_speaker[None].to(self.device, self.nar.text_embed.weight.dtype),
            cfg.nar_guidance_w,
            cfg.x_0_temp,
            decode=self._nar_decode,
        )

    def refined(self, task: Task, coarse: Coarse) -> Tensor:
        """All codes (L, Q) that the NAR makes of new coarse ones; errors as in `known`."""
        estimator, known = self.refinement(task, coarse)
        *_, codes = self.denoise(estimator, known, task.cfg, task.generator)
        return codes[0, sum(self.reference_frames(task)) :]

    @at_work()
    @torch.no_grad()
    def sound(self, task: Task, codes: Tensor) -> tuple[Tensor, Tensor]:
        """What the NAR gave, codes (L, Q), in the voice that is wanted.

        Returns:
            Its features for the vocoder (1, channels, L * stack), and its codes (L, Q), on the
            models' device. Converted speech is no sum of codebook vectors: its codes are the
            nearest ones.
        """
        codes, converter = codes.to(self.device), self.converter
        if converter is None or not task.is_converted:
            return self.vocoder.features(codes[None]), codes
        voice, strength = task.voice, task.cfg.voice_conversion
        conversion = self._conversions.of(
            (voice.codes.numpy().tobytes(), strength),
            lambda: converter.towards(
                voice.codes.to(self.device), register(self.vocode(voice.codes)[0]), strength
            ),
        )
        sound = converter(codes[None], conversion)
        return sound.mT, converter.codes(sound)[0]

    def conversion_reach(self, task: Task) -> int:
        """Frames on either side of a frame that its conversion depends on."""
        return self.converter.reach if self.converter and task.is_converted else 0

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
        codes = codes[sum(self.reference_frames(task)) :]
        sound, codes = self.sound(task, codes)
        codes, trim_db = codes.cpu().clone(), task.cfg.trim_db
        audio = trim_silence(self.rendered(sound)[0], trim_db).clone()  # not what was cut
        audio = retimed(audio, task.cfg.speed)
        if not len(audio):
            raise inaudible(trim_db)
        chosen = task.voice.style_choice
        return Speech(audio, codes, torch.tensor(coarse.codes), coarse.finish_reason, style=chosen)

    @at_work()
    @torch.no_grad()  # not inference_mode, whose tensors a caller could not change in place
    def rendered(self, features: Tensor) -> Tensor:
        """The samples (1, T) of features for the vocoder, on the CPU."""
        return self.vocoder.wave(features).cpu()

    @at_work()
    @torch.no_grad()
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
        return self.rendered(self.vocoder.features(codes[None].to(self.device)))

    def continued_frames(self, task: Task) -> int:
        """Frames of the delivering voice with which the AR's codes begin."""
        return len(task.delivery.codes) if _continues(task.delivery, task.cfg) else 0

    def reference_frames(self, task: Task) -> tuple[int, int]:
        """Frames of the reference in the NAR's decoder: known in full, and repeated after that."""
        n_reference = len(task.narrator.codes) if _continues(task.narrator, task.cfg) else 0
        twice = self.config.prompt.repeat_reference and not task.cfg.show_reference_once
        return n_reference, n_reference if twice else 0

    def _coarse_shown(self, task: Task, coarse: Coarse) -> list[int]:
        """L0 codes after the known reference in the NAR's decoder, its second copy included."""
        n_reference, repeated = self.reference_frames(task)
        if task.delivery is task.narrator:
            return coarse.codes[n_reference - repeated :]
        new = coarse.codes[self.continued_frames(task) :]
        return [*task.narrator.codes[:repeated, 0].tolist(), *new]


def is_transcribed(voice: Voice) -> bool:
    """Whether at least one of the two models can continue what it is given."""
    return voice.transcript is not None or voice.delivery.transcript is not None


def _continues(reference: Voice, cfg: InferenceConfig) -> bool:
    """Whether a model that is given this reference continues it: a deep clone."""
    return cfg.deep_clone and reference.transcript is not None

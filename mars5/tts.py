"""The facade: the order of the stages, and nothing else.

    text + voice -> prompt -> ar.decode -> L0 codes -> nar.decode -> codes -> vocoder -> wave

`Mars5TTS` holds the models of one checkpoint and no state of any call.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mars5 import hub
from mars5.ar.decode import generate_ids
from mars5.ar.graph import Spare
from mars5.ar.model import CodecLM
from mars5.ar.steps import lay_side_by_side
from mars5.audio import AudioInput, load_reference, trim_silence
from mars5.checkpoint import load_pair
from mars5.codec import Codec
from mars5.config import CODEBOOK_SIZE, N_CODEBOOKS, SAMPLE_RATE, InferenceConfig, ModelConfig
from mars5.device import memory_errors, resolve_device, resolve_dtype
from mars5.direction import Direction, StyleInput, choose_style, styled
from mars5.errors import (
    BatchError,
    ConfigError,
    GenerationError,
    Mars5Error,
    TextError,
    VoiceError,
)
from mars5.loading import load_codec_and_vocoder, speaker_fingerprint
from mars5.nar.decode import Known, denoise
from mars5.nar.diffusion import cosine_schedule
from mars5.nar.draws import Source
from mars5.nar.estimate import Estimator
from mars5.nar.graph import GraphedDecoder
from mars5.nar.model import ResidualTransformer
from mars5.profiles import Profile, resolve_profile
from mars5.prompt import Prompt, build_prompt, joint_vocabulary, speech_codes
from mars5.quantized import check_quantize, quantize_linears
from mars5.seeds import Seeds
from mars5.styles import StyleBank, StyleChoice
from mars5.text import Piece, check_speakable, prepare, prepare_limited, prepare_stream
from mars5.tokenizers import SpeechTokenizer, TextTokenizer
from mars5.vocoder import Vocoder
from mars5.voice import Voice

if TYPE_CHECKING:
    from mars5.editing import Edited
    from mars5.longform import Passage
    from mars5.longform.chapter import Chapter
    from mars5.streaming import Chunk, SpeechStream
    from mars5.verify import Hearing, Verify

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
            (almost all of) the reference's own, or the style's.
        finish_reason: "stop" if the AR ended by itself, "length" if it reached its limit.
        heard: what a recogniser understood, piece by piece, if that was asked for (`verify`).
        style: what instructions chose, and why; None without them.
        profile: the profile whose settings were used, and why; None without one.
        pieces: what was spoken when. The codes of a text of several pieces are those of all
            pieces, one after the other; of a pause there are none.
        first_sound_seconds: of a stream, how long its first sound took.
    """

    audio: Tensor
    codes: Tensor
    ar_codes: Tensor
    finish_reason: str
    sample_rate: int = SAMPLE_RATE
    heard: tuple[Hearing, ...] = ()
    style: StyleChoice | None = None
    profile: Profile | None = None
    pieces: tuple[SpokenPiece, ...] = ()
    first_sound_seconds: float | None = None


@dataclass(frozen=True)
class SpokenPiece:
    """One piece of a text in the audio of all.

    Attributes:
        text: as it was spoken.
        start, stop: its samples in the audio, half-open; pauses lie outside.
        finish_reason: as in `Speech`.
    """

    text: str
    start: int
    stop: int
    finish_reason: str


def worst_reason(finish_reasons: Iterable[str]) -> str:
    """ "length" if any of the pieces reached its limit, else "stop"."""
    return "length" if "length" in set(finish_reasons) else "stop"


def inaudible(trim_db: float) -> GenerationError:
    """The error for speech of which nothing is left after trimming."""
    return GenerationError(
        "the vocoder gave no audible sound: try another seed, another reference, or a trim_db "
        f"above {trim_db:g}"
    )


@dataclass(frozen=True, eq=False)
class BatchItem:
    """One text of a batch: its place, and either its speech or why there is none."""

    index: int
    speech: Speech | None
    error: Mars5Error | None = None


@dataclass(frozen=True, eq=False)
class Task:
    """One utterance, checked and prepared."""

    text: str
    voice: Voice
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


class Mars5TTS:
    """A text-to-speech system that speaks with the voice of a short reference.

    Attributes:
        sr: sample rate of all audio, 24 000 Hz.
        config: what the checkpoint states of itself.
        profile: name of the profile for calls that give neither profile nor settings, or None.
        style_bank: what instructions choose from; None for the shipped bank.
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
        self.profile: str | None = None
        self.style_bank: StyleBank | None = None
        self.vocabulary = joint_vocabulary(text_tokenizer, speech_tokenizer)
        self.schedule = cosine_schedule(config.nar.diffusion_steps).to(self.device)
        self._nar_decode = GraphedDecoder(nar) if self.device.type == "cuda" else None
        self._spare_steps = Spare()
        self._fingerprint = speaker_fingerprint(ar, nar)

    @classmethod
    def from_pretrained(
        cls,
        model: str | os.PathLike[str] | None = None,
        *,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        quantize: str | None = None,
        profile: str | None = None,
        **hub_options: Any,
    ) -> Mars5TTS:
        """Load a system.

        Args:
            model: "nano" for the checkpoint inside this package, a folder, or a hub repository
                such as "CAMB-AI/MARS5-TTS"; None for the profile's, or "nano" without a profile.
            device: "cpu", "cuda", "cuda:1", "mps"; None takes the best one there is.
            dtype: of the two transformers; None takes float32 on a CPU and float16 elsewhere.
            quantize: "int8" rounds the AR's weights to 8 bits, for a CPU: at full size 4 to 5 times
                as fast as float32 and a quarter of its memory; codes may differ. `dtype` is then
                that of the NAR, float32 or bfloat16.
            profile: "flash", "pro", "instruct", "nano" or "auto": names the checkpoint if `model`
                does not, and the settings of calls that give none (docs/profiles.md).
            hub_options: keywords of `huggingface_hub.hf_hub_download`: revision, cache_dir, token,
                local_files_only, force_download, ...

        Raises:
            CheckpointError, TokenizerError: files are missing, damaged or do not fit.
            HubError: the hub could not give the files.
            DeviceError: the device is not there.
            ConfigError: `dtype` is not float32, float16 or bfloat16; `quantize` is not "int8", or
                the device is no CPU or `dtype` float16; there is no such profile.
            OutOfMemoryError: the model does not fit into memory.
        """
        if profile is not None:
            chosen = resolve_profile(profile, resolve_device(device).type)
            model = chosen.model if model is None else model
        system = cls.from_files(
            hub.find(hub.NANO if model is None else model, **hub_options),
            device=device,
            dtype=dtype,
            quantize=quantize,
            **hub_options,
        )
        system.profile = profile
        return system

    @classmethod
    @memory_errors()
    def from_files(
        cls,
        files: hub.ModelFiles,
        *,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
        quantize: str | None = None,
        **hub_options: Any,
    ) -> Mars5TTS:
        """Load a system from its files; arguments and errors as in `from_pretrained`."""
        hub.check_options(hub_options)
        where = resolve_device(device)
        precision = resolve_dtype(dtype, where)
        check_quantize(quantize, where, precision)
        ar_dtype = precision if quantize is None else torch.float32
        pair = load_pair(files.ar, files.nar, device=where, dtype=precision, ar_dtype=ar_dtype)
        if quantize is None:
            lay_side_by_side(pair.ar)
        else:
            quantize_linears(pair.ar.ar)
        codec, vocoder = load_codec_and_vocoder(files, pair.config, hub_options)
        return cls(
            pair.ar,
            pair.nar,
            pair.text_tokenizer,
            pair.speech_tokenizer,
            codec.to(where),
            vocoder.to(where),
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
        profile: str | None = None,
        style: StyleInput | None = None,
        style_strength: float = 1.0,
        instructions: str | None = None,
        normalise: bool = True,
        lexicon: Mapping[str, str] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Speak `text`: `(ar_codes (n,) int64, audio (T,) float32 at 24 kHz)`.

        Arguments and errors are those of `generate`, which returns more.
        """
        speech = self.generate(
            text, ref_audio, ref_transcript, cfg, seed=seed, generator=generator, progress=progress,
            profile=profile, style=style, style_strength=style_strength,
            instructions=instructions, normalise=normalise, lexicon=lexicon,
        )  # fmt: skip
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
        verify: bool | Verify = False,
        profile: str | None = None,
        style: StyleInput | None = None,
        style_strength: float = 1.0,
        instructions: str | None = None,
        normalise: bool = True,
        lexicon: Mapping[str, str] | None = None,
    ) -> Speech:
        """Speak `text` with the voice of `ref_audio`; several sentences piece by piece.

        Args:
            text: at most 50 000 characters, see docs/longform.md; `narrate` takes any number.
            ref_audio: a `Voice`; a path or the bytes of an audio file; a waveform at 24 kHz; a
                pair (waveform, rate); None for the model's own voice.
            ref_transcript: what the reference says; needed for a deep clone.
            cfg: settings; None takes `default_config`, with a deep clone only if there is a
                transcript.
            seed: makes the result repeat on the same machine and versions.
            generator: a CPU generator to draw from instead; with neither, torch's global one.
            progress: show progress bars on standard error.
            verify: have a recogniser hear the speech, and make it again with other seeds until it
                is understood (True is `Verify()`); `Speech.heard` tells. Needs `mars5[eval]`.
            profile: "flash", "pro", "instruct", "nano" or "auto", instead of `cfg`: settings for a
                use, over those of the checkpoint. None takes that of `from_pretrained`.
            style: whose delivery the AR follows, given as `ref_audio` is, or from a `StyleBank`;
                the sound stays that of `ref_audio`, which the NAR follows.
            style_strength: 0 (as if there were no style) to 1 (see `Voice.with_style`).
            instructions: words that choose the style from `style_bank`, instead of `style`.
            normalise: write out numbers, dates, money and so on, in English.
            lexicon: words, and how to write them as they are said; see docs/text.md.

        Raises:
            TextError, AudioInputError, VoiceError, ConfigError: what was given is not usable.
            GenerationError: the model ended at once, or there is nothing to hear.
            OutOfMemoryError: memory did not suffice; the next request works as ever.
            MissingExtraError: `verify` without the extra.
            StyleError: the bank has nothing like the instructions.
        """
        from mars5.longform import join

        check = _verification(verify)
        source = _generator(seed, generator)
        direction = Direction(profile, style, style_strength, instructions)
        pieces = prepare_limited(text, lexicon, normalise)
        voice, cfg, choice, chosen = self._directions(
            text, ref_audio, ref_transcript, cfg, direction
        )
        cfg = self._settings_for(voice, cfg)
        for piece in pieces:  # what can be refused is refused before the long work
            self._task(piece.text, voice, None, cfg, source)
        speeches = self._speeches(pieces, voice, cfg, Seeds(seed, source), progress, check)
        speech = join(list(zip(pieces, speeches, strict=True)))
        return replace(speech, style=choice, profile=chosen)

    def _speeches(
        self,
        pieces: Sequence[Piece],
        voice: Voice,
        cfg: InferenceConfig,
        seeds: Seeds,
        progress: bool,
        check: Verify | None,
    ) -> Iterator[Speech]:
        """The speech of each piece; under one bar, or a bar for each stage of a single one."""
        alone = len(pieces) == 1
        shown = _shown(pieces, progress and not alone, "pieces", len(pieces))
        for index, piece in enumerate(shown):
            speak = partial(self._utterance, piece.text, voice, cfg, progress=progress and alone)
            if check is None:
                yield speak(seeds.of_piece(index))
                continue
            from mars5.verify import verified

            def seeded(number: int, speak: partial[Speech] = speak) -> Speech:
                return speak(torch.Generator().manual_seed(number))

            yield verified(seeded, piece.text, check, seeds.number(index))

    def _utterance(
        self,
        text: str,
        voice: Voice,
        cfg: InferenceConfig,
        generator: torch.Generator | None,
        progress: bool = False,
    ) -> Speech:
        """Speak one piece of text as it stands, by all stages."""
        task = self._task(text, voice, None, cfg, generator)
        ids = generate_ids(
            self.ar,
            torch.tensor([task.prompt.ids]),
            task.voice.ar_speaker[None],
            self.vocabulary,
            task.cfg,
            task.estimate,
            task.generator,
            self._spare_steps,
        )
        coarse = self._coarse(task, list(_shown(ids, progress, "coarse codes", None)))
        estimator, known = self._refinement(task, coarse)
        steps = self._denoise(estimator, known, task.cfg, task.generator)
        *_, codes = _shown(steps, progress, "all codebooks", task.cfg.timesteps)
        return self._speech(task, coarse, codes[0])

    @memory_errors()
    def stream(
        self,
        text: str | Iterable[str],
        ref_audio: AudioInput | Voice | None = None,
        ref_transcript: str | None = None,
        cfg: InferenceConfig | None = None,
        *,
        seed: int | None = None,
        generator: torch.Generator | None = None,
        normalise: bool = True,
        lexicon: Mapping[str, str] | None = None,
        profile: str | None = None,
        style: StyleInput | None = None,
        style_strength: float = 1.0,
        instructions: str | None = None,
    ) -> SpeechStream:
        """Speak `text` in chunks of audio, each as soon as it is made; see docs/streaming.md.

        Args:
            text: all of it, or an iterator of its parts, such as the tokens of a language model:
                each sentence is spoken when it is complete.
            seed, generator: give the coarse codes that they give in `generate`; the other codes
                are drawn anew.

        The other arguments and the errors are those of `generate`. What can be refused at once is;
        errors of text still to come, and of the models, end the stream.
        """
        from mars5.streaming import open_stream

        direction = Direction(profile, style, style_strength, instructions, live=True)
        seeds = Seeds(seed, _generator(seed, generator))
        given = ref_audio, ref_transcript, cfg, direction, seeds, lexicon, normalise
        return open_stream(self, text, *given)

    def astream(
        self,
        text: str | Iterable[str] | AsyncIterable[str],
        ref_audio: AudioInput | Voice | None = None,
        ref_transcript: str | None = None,
        cfg: InferenceConfig | None = None,
        **options: Any,
    ) -> AsyncIterator[Chunk]:
        """`stream` for async code: the work is done in a thread, one chunk ahead of the reader.

        Args:
            text: may also be an asynchronous iterator of parts.
            options: the keywords of `stream`.

        Cancelling the task that iterates, or `aclose`, ends the work at once.
        """
        from mars5.streaming import stream_async

        return stream_async(self, text, ref_audio, ref_transcript, cfg, **options)

    def narrate(
        self,
        text: str | Iterable[str],
        ref_audio: AudioInput | Voice | None = None,
        ref_transcript: str | None = None,
        cfg: InferenceConfig | None = None,
        *,
        seed: int | None = None,
        generator: torch.Generator | None = None,
        normalise: bool = True,
        lexicon: Mapping[str, str] | None = None,
        profile: str | None = None,
        style: StyleInput | None = None,
        style_strength: float = 1.0,
        instructions: str | None = None,
    ) -> Iterator[Passage]:
        """Speak a text of any length, passage by passage, in flat memory; see docs/longform.md.

        Args:
            text: all of it, or an iterator of its parts.

        The other arguments and the errors are those of `generate`, and each piece is what it gives
        there; but a piece that gives no speech is tried again with another seed.
        """
        from mars5.longform import narrate

        direction = Direction(profile, style, style_strength, instructions)
        seeds = Seeds(seed, _generator(seed, generator))
        pieces: Iterable[Piece]
        if isinstance(text, Iterable) and not isinstance(text, (str, bytes)):
            pieces, said = prepare_stream(text, lexicon, normalise), ""
        else:
            pieces, said = prepare(text, lexicon, normalise), text
        voice, cfg, _, _ = self._directions(said, ref_audio, ref_transcript, cfg, direction)
        return narrate(self, pieces, voice, self._settings_for(voice, cfg), seeds)

    @memory_errors()
    def speak_file(
        self,
        text: str | os.PathLike[str],
        output: str | os.PathLike[str],
        ref_audio: AudioInput | Voice | None = None,
        ref_transcript: str | None = None,
        cfg: InferenceConfig | None = None,
        *,
        seed: int | None = None,
        progress: bool = False,
        normalise: bool = True,
        lexicon: Mapping[str, str] | None = None,
        profile: str | None = None,
        style: StyleInput | None = None,
        style_strength: float = 1.0,
        instructions: str | None = None,
    ) -> Chapter:
        """Speak a text of any length into an audio file, in flat memory; see docs/longform.md.

        Finished pieces are kept in the folder `OUTPUT.part` until the file is complete. A call that
        was killed goes on when it is made again, and gives what it would have given.

        Args:
            text: a string is the text itself, a `Path` a file of UTF-8 text.
            output: .wav, .flac, .ogg or .mp3; an existing file is replaced.
            seed: None takes that of an interrupted call, or a new one.
            progress: show a progress bar on standard error.

        The other arguments are those of `generate`.

        Raises:
            ConfigError: a file cannot be written; others as in `generate`.
        """
        from mars5.longform.chapter import read_text, speak_chapter

        _generator(seed, None)
        direction = Direction(profile, style, style_strength, instructions)
        words = read_text(text) if isinstance(text, os.PathLike) else text
        pieces = prepare(words, lexicon, normalise)
        voice, cfg, _, _ = self._directions(words, ref_audio, ref_transcript, cfg, direction)
        cfg = self._settings_for(voice, cfg)
        return speak_chapter(self, pieces, output, voice, cfg, seed, progress)

    def tts_batch(
        self,
        texts: Sequence[str],
        ref_audio: AudioInput | Voice | list[AudioInput | Voice] | None = None,
        ref_transcript: str | list[str | None] | None = None,
        cfg: InferenceConfig | None = None,
        *,
        seeds: int | Sequence[int] | None = None,
        batch_size: int = 8,
        progress: bool = False,
        normalise: bool = True,
        lexicon: Mapping[str, str] | None = None,
    ) -> list[Speech]:
        """Speak many texts at once: what `generate` gives for each, in the order of the texts.

        Args:
            texts: any number of them.
            ref_audio, ref_transcript: as in `generate`, for all texts; or a list with one for each.
            cfg: settings of all.
            seeds: one for each text, or the first's, to which the others add their place. An item
                is what `generate` gives with its seed, save where rounding tips a choice.
            batch_size: how many pieces of text the models work on at a time.
            normalise, lexicon: as in `generate`.
            progress: show progress bars on standard error.

        Raises:
            BatchError: some texts failed; it holds the errors, and the speech of the others.
            ConfigError: the lists differ in length; `seeds` or `batch_size` is not usable.
        """
        items = self.tts_batch_iter(
            texts, ref_audio, ref_transcript, cfg, seeds=seeds, batch_size=batch_size,
            normalise=normalise, lexicon=lexicon,
        )  # fmt: skip
        speeches: list[Speech | None] = [None] * len(texts)
        errors: dict[int, Mars5Error] = {}
        for item in _shown(items, progress, "texts", len(texts)):
            speeches[item.index] = item.speech
            if item.error is not None:
                errors[item.index] = item.error
        if errors:
            raise BatchError(speeches, errors)
        return [speech for speech in speeches if speech is not None]

    def tts_batch_iter(
        self,
        texts: Sequence[str],
        ref_audio: AudioInput | Voice | list[AudioInput | Voice] | None = None,
        ref_transcript: str | list[str | None] | None = None,
        cfg: InferenceConfig | None = None,
        *,
        seeds: int | Sequence[int] | None = None,
        batch_size: int = 8,
        normalise: bool = True,
        lexicon: Mapping[str, str] | None = None,
    ) -> Iterator[BatchItem]:
        """Yield each text's speech, or why there is none, as soon as it is there.

        Arguments are those of `tts_batch`; nothing but what concerns all texts is raised.
        """
        from mars5.batch import check_batch
        from mars5.longform.batches import speak_each_text

        inputs = check_batch(texts, ref_audio, ref_transcript, seeds, batch_size)
        _check_settings(cfg)
        return speak_each_text(self, inputs, cfg, batch_size, lexicon, normalise)

    @memory_errors()
    def edit(
        self,
        recording: AudioInput | Voice,
        transcript: str,
        new_transcript: str,
        cfg: InferenceConfig | None = None,
        *,
        times: Sequence[tuple[float, float]] | None = None,
        seed: int | None = None,
        generator: torch.Generator | None = None,
        verify: bool | Verify = False,
    ) -> Edited:
        """Replace words inside a recording; outside of them its codes stay as they are.

        Args:
            recording: as `ref_audio` in `generate`, at most 29 s; or a `Voice`, which is a
                recording as codes.
            transcript: what it says.
            new_transcript: what it shall say: words may be replaced, inserted and left out.
            cfg: settings; None takes `default_config`. `deep_clone` does not matter.
            times: seconds (start, end) of each word of `transcript`, as separated by blanks; None
                has a recogniser find them, which needs `mars5[eval]`.
            seed, generator, verify: as in `generate`; the whole recording is heard.

        Raises:
            TextError: no word differs, or none stays; `transcript` is not what is heard.
            ConfigError: `times` do not fit the words or the recording.
            MissingExtraError: no `times`, or `verify`, and the extra is not installed.
            AudioInputError, VoiceError, GenerationError, OutOfMemoryError: as in `generate`.
        """
        from mars5.editing import edit

        _check_settings(cfg)
        source = _generator(seed, generator)
        given = recording, transcript, new_transcript, cfg, times, _verification(verify)
        return edit(self, *given, seed, source)

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
        codes = self.codec.encode(padded[None].to(self.device))[0].cpu()
        return self._prepared(codes, transcript, _checked_facts(provenance or {}))

    @memory_errors()
    def directed(
        self,
        ref_audio: AudioInput | Voice | None = None,
        ref_transcript: str | None = None,
        *,
        style: StyleInput | None = None,
        style_strength: float = 1.0,
        instructions: str | None = None,
    ) -> Voice:
        """A voice with a style, prepared once, to be given as `ref_audio` anywhere.

        Arguments and errors are those of `generate`.
        """
        direction = Direction(None, style, style_strength, instructions)
        return self._directions("", ref_audio, ref_transcript, None, direction)[0]

    def _directions(
        self,
        text: str,
        ref_audio: AudioInput | Voice | None,
        ref_transcript: str | None,
        cfg: InferenceConfig | None,
        direction: Direction,
    ) -> tuple[Voice, InferenceConfig | None, StyleChoice | None, Profile | None]:
        """Voice and settings of a request, what instructions chose, and the profile."""
        _check_settings(cfg)
        if cfg is not None and direction.profile is not None:
            raise ConfigError("give a profile or settings (cfg), not both")
        choice = choose_style(self.style_bank, direction)
        voice = self._voice_for(ref_audio, ref_transcript, cfg)
        style = direction.style if choice is None else choice
        if style is not None:
            voice = styled(self, voice, style, direction.style_strength)
        name = direction.profile or self.profile
        if cfg is not None or name is None:
            return voice, cfg, choice, None
        profile = resolve_profile(
            name, self.device.type, characters=len(text), transcript=voice.transcript is not None,
            live=direction.live, directed=voice.style is not None,
        )  # fmt: skip
        cfg = profile.config(self.config)
        cfg = replace(cfg, deep_clone=cfg.deep_clone and _is_transcribed(voice))
        return voice, cfg, choice, profile

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
        return self.vocoder(codes[None].to(self.device)).cpu()

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
        ref.check_usable(self._fingerprint, transcript)
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
            cfg = replace(cfg, deep_clone=cfg.deep_clone and _is_transcribed(voice))
        if cfg.deep_clone and not _is_transcribed(voice):
            raise TextError(
                "a deep clone needs the reference's transcript: give ref_transcript, or set "
                "deep_clone=False in the InferenceConfig"
            )
        if cfg.timesteps > len(self.schedule):
            raise ConfigError(f"timesteps is {cfg.timesteps}, this model has {len(self.schedule)}")
        return cfg

    def _prompt(self, text: str, voice: Voice, cfg: InferenceConfig) -> Prompt:
        prompt = self._unchecked_prompt(text, voice.delivery, cfg)
        limit = min(cfg.max_len, self.config.ar.sliding_window)
        if len(prompt.ids) >= limit:
            raise TextError(
                f"text and reference take {len(prompt.ids)} ids, the model has room for {limit}: "
                "shorten the text or the reference, or split the text"
            )
        return prompt

    def _unchecked_prompt(self, text: str, reference: Voice, cfg: InferenceConfig) -> Prompt:
        return build_prompt(
            text,
            reference.transcript if cfg.deep_clone else None,
            reference.codes[:, 0].tolist(),
            self.text_tokenizer,
            self.speech_tokenizer,
        )

    @memory_errors()
    def _task(
        self,
        text: str,
        ref_audio: AudioInput | Voice | None,
        ref_transcript: str | None,
        cfg: InferenceConfig | None,
        generator: torch.Generator | None,
    ) -> Task:
        """Everything checked and prepared that one utterance needs."""
        _check_settings(cfg)
        check_speakable(text)
        voice = self._voice_for(ref_audio, ref_transcript, cfg)
        cfg = self._settings_for(voice, cfg)
        return Task(text, voice, cfg, self._prompt(text, voice, cfg), generator)

    def _coarse(self, task: Task, generated: list[int]) -> Coarse:
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

    def _refinement(self, task: Task, coarse: Coarse) -> tuple[Estimator, Known]:
        """What the NAR is to be asked, to fill in all codebooks."""
        reference = task.voice.codes.to(self.device)
        n_reference, repeated = self._reference_frames(task)
        codes = torch.tensor(self._coarse_shown(task, coarse), device=self.device)
        if len(codes) <= repeated:
            raise GenerationError(
                "the model ended the speech at once: try another seed, a longer text, or other "
                "sampling settings"
            )
        known = Known.from_coarse(codes[None], reference[None] if n_reference else None)
        return self._estimator(task), known

    def _estimator(self, task: Task) -> Estimator:
        """The NAR, told the text and the voice."""
        cfg, voice, prompt = task.cfg, task.voice, task.prompt
        if voice.delivery is not voice:  # the AR's text begins with the style's transcript
            prompt = self._unchecked_prompt(task.text, voice, cfg)
        return Estimator(
            self.nar,
            torch.tensor([prompt.ids[: prompt.n_text]], device=self.device),
            torch.tensor([prompt.n_text], device=self.device),
            voice.nar_speaker[None].to(self.device, self.nar.text_embed.weight.dtype),
            cfg.nar_guidance_w,
            cfg.x_0_temp,
            decode=self._nar_decode,
        )

    def _denoise(
        self, estimator: Estimator, known: Known, cfg: InferenceConfig, generator: Source
    ) -> Iterator[Tensor]:
        """The codes (B, L, Q) after each step of the diffusion."""
        return denoise(
            estimator, known, self.schedule, cfg.timesteps, cfg.q0_override_steps, generator
        )

    def _speech(self, task: Task, coarse: Coarse, codes: Tensor) -> Speech:
        """The result for all codes (L, Q) of the NAR's decoder, a reference in front included."""
        codes = codes[sum(self._reference_frames(task)) :].cpu().clone()
        trim_db = task.cfg.trim_db
        audio = trim_silence(self.vocode(codes)[0], trim_db).clone()  # not what was cut
        if not len(audio):
            raise inaudible(trim_db)
        return Speech(audio, codes, torch.tensor(coarse.codes), coarse.finish_reason)

    def _coarse_shown(self, task: Task, coarse: Coarse) -> list[int]:
        """L0 codes after the known reference in the NAR's decoder, its second copy included."""
        n_reference, repeated = self._reference_frames(task)
        if task.voice.delivery is task.voice:
            return coarse.codes[n_reference - repeated :]
        new = coarse.codes[self._continued_frames(task) :]
        return [*task.voice.codes[:repeated, 0].tolist(), *new]

    def _continued_frames(self, task: Task) -> int:
        """Frames of the reference, or of the style, with which the AR's codes begin."""
        delivery = task.voice.delivery
        return len(delivery.codes) if _continues(delivery, task.cfg) else 0

    def _reference_frames(self, task: Task) -> tuple[int, int]:
        """Frames of the reference in the NAR's decoder: known in full, and repeated after that."""
        n_reference = len(task.voice.codes) if _continues(task.voice, task.cfg) else 0
        twice = self.config.prompt.repeat_reference and not task.cfg.show_reference_once
        return n_reference, n_reference if twice else 0


def _continues(reference: Voice, cfg: InferenceConfig) -> bool:
    """Whether a model that is given this reference continues it: a deep clone."""
    return cfg.deep_clone and reference.transcript is not None


def _is_transcribed(voice: Voice) -> bool:
    """Whether at least one of the two models can continue what it is given."""
    return voice.transcript is not None or voice.delivery.transcript is not None


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


def _verification(verify: bool | Verify) -> Verify | None:
    """How to verify, if at all; what that needs is there when this returns."""
    if verify is False:
        return None
    from mars5.verify import as_verify

    return as_verify(verify)


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

"""The facade: what a user may ask for. Start reading here, and go on with `mars5/engine.py`.

`Mars5TTS` checks what is asked, prepares text and voice, and has an `Engine` make the speech: as
one, as a stream, in a batch, or inside a recording. It holds no state of any call.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mars5 import hub
from mars5.ar.model import CodecLM
from mars5.ar.sampling import Vocabulary
from mars5.audio import AudioInput
from mars5.batch import check_batch, profile_settings
from mars5.codec import Codec
from mars5.config import SAMPLE_RATE, InferenceConfig, ModelConfig, check_settings
from mars5.device import at_work, resolve_device
from mars5.direction import Direction, StyleInput, directed, directed_voice
from mars5.engine import Engine
from mars5.errors import BatchError, ConfigError, Mars5Error
from mars5.letters import warn_of_letters, watched
from mars5.loading import load_engine
from mars5.longform import Passage, join, narrate, speeches
from mars5.longform.batches import speak_each_text
from mars5.longform.chapter import Chapter, given_text, speak_chapter
from mars5.nar.diffusion import Schedule
from mars5.nar.model import ResidualTransformer
from mars5.profiles import resolve_profile
from mars5.progress import shown
from mars5.seeds import Seeds, checked_seed, checked_source
from mars5.speech import BatchItem, Speech
from mars5.streaming import Chunk, SpeechStream, open_stream, stream_async
from mars5.styles import StyleBank
from mars5.text import Piece, prepare, prepare_limited, prepare_stream
from mars5.tokenizers import SpeechTokenizer, TextTokenizer
from mars5.vocoder import Vocoder
from mars5.voice import Voice

if TYPE_CHECKING:
    from mars5.editing import Edited
    from mars5.verify import Verify


class Mars5TTS:
    """A text-to-speech system that speaks with the voice of a short reference.

    Attributes:
        sr: sample rate of all audio, 24 000 Hz.
        engine: the models, and the stages of one utterance.
        profile: name of the profile for calls that give neither profile nor settings, or None.
        style_bank: what instructions choose from; None for the shipped bank.
    """

    sr = SAMPLE_RATE

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.profile: str | None = None
        self.style_bank: StyleBank | None = None

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
            quantize: "int8" rounds the weights of both transformers to 8 bits, for a CPU: at full
                size the AR is 4 to 5 times and the NAR 3 times as fast as in float32, in a quarter
                of the memory; codes may differ. `dtype` must then be None or float32. Voices are
                the same.
            profile: "flash", "pro", "instruct", "nano" or "auto": names the checkpoint if `model`
                does not, and the settings of calls that give none (docs/profiles.md).
            hub_options: keywords of `huggingface_hub.hf_hub_download`: revision, cache_dir, token,
                local_files_only, force_download, ...

        Raises:
            CheckpointError, TokenizerError: files are missing, damaged or do not fit.
            HubError: the hub could not give the files.
            DeviceError: the device is not there.
            ConfigError: `dtype` is not float32, float16 or bfloat16; `quantize` is not "int8", or
                the device is no CPU or `dtype` not float32; there is no such profile.
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
        return cls(load_engine(files, device, dtype, quantize, hub_options))

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
        verify: bool | Verify = False,
        profile: str | None = None,
        style: StyleInput | None = None,
        style_strength: float = 1.0,
        instructions: str | None = None,
        speed: float | None = None,
        normalise: bool = True,
        lexicon: Mapping[str, str] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Speak `text`: `(ar_codes (n,) int64, audio (T,) float32 at 24 kHz)`.

        Arguments and errors are those of `generate`, which returns more.
        """
        speech = self.generate(
            text, ref_audio, ref_transcript, cfg, seed=seed, generator=generator, progress=progress,
            verify=verify, profile=profile, style=style, style_strength=style_strength,
            instructions=instructions, speed=speed, normalise=normalise, lexicon=lexicon,
        )  # fmt: skip
        return speech.ar_codes, speech.audio

    @at_work()
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
        speed: float | None = None,
        normalise: bool = True,
        lexicon: Mapping[str, str] | None = None,
    ) -> Speech:
        """Speak `text` with the voice of `ref_audio`; several sentences piece by piece.

        Args:
            text: at most 50 000 characters, see docs/longform.md; `narrate` takes any number.
            ref_audio: a `Voice`; a path or the bytes of an audio file, also as an open binary file;
                a waveform at 24 kHz; a pair (waveform, rate); None for the model's own voice.
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
            speed: 0.5 to 2 times as fast, at the same pitch; None takes `cfg.speed`.
            normalise: write out numbers, dates, money and so on, in English.
            lexicon: words, and how to write them as they are said; see docs/text.md.

        Raises:
            TextError, AudioInputError, VoiceError, ConfigError: what was given is not usable.
            GenerationError: the model ended at once, or there is nothing to hear.
            OutOfMemoryError: memory did not suffice; the next request works as ever.
            MissingExtraError: `verify` without the extra.
            StyleError: the bank has nothing like the instructions.
        """
        check = _verification(verify)
        source = checked_source(seed, generator)
        direction = self._direction(profile, style, style_strength, instructions, speed)
        pieces = prepare_limited(text, lexicon, normalise)
        warn_of_letters(self.text_tokenizer, (piece.text for piece in pieces))
        given = directed(self.engine, text, ref_audio, ref_transcript, cfg, direction)
        voice, cfg = given.voice, given.cfg
        for piece in pieces:  # what can be refused is refused before the long work
            self.engine.task(piece.text, voice, None, cfg, source)
        seeds = Seeds(seed, source)
        spoken = speeches(self.engine, pieces, voice, cfg, seeds, progress, check)
        speech = join(list(zip(pieces, spoken, strict=True)))
        return replace(speech, profile=given.profile)

    @at_work()
    def stream(
        self,
        text: str | Iterable[str],
        ref_audio: AudioInput | Voice | None = None,
        ref_transcript: str | None = None,
        cfg: InferenceConfig | None = None,
        *,
        seed: int | None = None,
        generator: torch.Generator | None = None,
        verify: bool | Verify = False,
        normalise: bool = True,
        lexicon: Mapping[str, str] | None = None,
        profile: str | None = None,
        style: StyleInput | None = None,
        style_strength: float = 1.0,
        instructions: str | None = None,
        speed: float | None = None,
    ) -> SpeechStream:
        """Speak `text` in chunks of audio, each as soon as it is made; see docs/streaming.md.

        Args:
            text: all of it, or an iterator of its parts, such as the tokens of a language model:
                each sentence is spoken when it is complete.
            seed, generator: give the coarse codes that they give in `generate`; the other codes
                are drawn anew.
            verify: must be False: speech is verified when it is complete; see `narrate`.

        The other arguments and the errors are those of `generate`. What can be refused at once is;
        errors of text still to come, and of the models, end the stream.
        """
        if verify is not False:
            raise ConfigError(
                "a stream is heard before it could be verified: leave out verify, or let "
                "`narrate(..., verify=True)` give the text piece by piece, each verified"
            )
        direction = self._direction(profile, style, style_strength, instructions, speed, live=True)
        seeds = Seeds(seed, checked_source(seed, generator))
        given = ref_audio, ref_transcript, cfg, direction, seeds, lexicon, normalise
        return open_stream(self.engine, text, *given)

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

        def start(parts: str | Iterable[str]) -> SpeechStream:
            return self.stream(parts, ref_audio, ref_transcript, cfg, **options)

        return stream_async(start, text)

    def narrate(
        self,
        text: str | Iterable[str],
        ref_audio: AudioInput | Voice | None = None,
        ref_transcript: str | None = None,
        cfg: InferenceConfig | None = None,
        *,
        seed: int | None = None,
        generator: torch.Generator | None = None,
        verify: bool | Verify = False,
        normalise: bool = True,
        lexicon: Mapping[str, str] | None = None,
        profile: str | None = None,
        style: StyleInput | None = None,
        style_strength: float = 1.0,
        instructions: str | None = None,
        speed: float | None = None,
    ) -> Iterator[Passage]:
        """Speak a text of any length, passage by passage, in flat memory; see docs/longform.md.

        Args:
            text: all of it, or an iterator of its parts.

        The other arguments and the errors are those of `generate`, and each piece is what it gives
        there; but a piece that gives no speech is tried again with another seed. With `verify`,
        `Passage.heard` tells what was understood of a piece, before the next one is begun.
        """
        check = _verification(verify)
        direction = self._direction(profile, style, style_strength, instructions, speed)
        seeds = Seeds(seed, checked_source(seed, generator))
        pieces: Iterable[Piece]
        if isinstance(text, Iterable) and not isinstance(text, (str, bytes)):
            pieces, said = prepare_stream(text, lexicon, normalise), ""
        else:
            pieces, said = prepare(text, lexicon, normalise), text
        given = directed(self.engine, said, ref_audio, ref_transcript, cfg, direction)
        pieces, spoken_by = watched(self.text_tokenizer, pieces), (given.voice, given.cfg)
        return narrate(self.engine, pieces, *spoken_by, seeds, check, profile=given.profile)

    @at_work()
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
        verify: bool | Verify = False,
        normalise: bool = True,
        lexicon: Mapping[str, str] | None = None,
        profile: str | None = None,
        style: StyleInput | None = None,
        style_strength: float = 1.0,
        instructions: str | None = None,
        speed: float | None = None,
    ) -> Chapter:
        """Speak a text of any length into an audio file, in flat memory; see docs/longform.md.

        Finished pieces are kept in the folder `OUTPUT.part` until the file is complete. A call that
        was killed goes on when it is made again, and gives what it would have given.

        Args:
            text: a string is the text itself, a `Path` a file of UTF-8 text. A string that is the
                name of a file draws a warning.
            output: .wav, .flac, .ogg or .mp3; an existing file is replaced.
            seed: None takes that of an interrupted call, or a new one.
            progress: show a progress bar on standard error.

        The other arguments are those of `generate`; with `verify`, each piece is verified before it
        is kept, and `Chapter.heard` tells.

        Raises:
            ConfigError: a file cannot be written; others as in `generate`.
        """
        check = _verification(verify)
        seed = None if seed is None else checked_seed(seed)
        direction = self._direction(profile, style, style_strength, instructions, speed)
        words = given_text(text)
        pieces = prepare(words, lexicon, normalise)
        warn_of_letters(self.text_tokenizer, (piece.text for piece in pieces))
        given = directed(self.engine, words, ref_audio, ref_transcript, cfg, direction)
        spoken_by = given.voice, given.cfg
        return speak_chapter(self.engine, pieces, output, *spoken_by, seed, progress, check)

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
        for item in shown(items, progress, "texts", len(texts)):
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
        inputs = check_batch(texts, ref_audio, ref_transcript, seeds, batch_size)
        check_settings(cfg)
        profile = None
        if cfg is None and self.profile is not None:
            cfg, profile = profile_settings(self.engine, self.profile, inputs)
        return speak_each_text(self.engine, inputs, cfg, profile, batch_size, lexicon, normalise)

    @at_work()
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
        normalise: bool = True,
        lexicon: Mapping[str, str] | None = None,
    ) -> Edited:
        """Replace words inside a recording; outside of them its codes stay as they are.

        Args:
            recording: as `ref_audio` in `generate`, at most 29 s; or a `Voice`, which is a
                recording as codes.
            transcript: what it says.
            new_transcript: what it shall say: words may be replaced, inserted and left out.
            cfg: settings; None takes `default_config`. `deep_clone` does not matter,
                and `speed` must be 1.
            times: seconds (start, end) of each word of `transcript`, as separated by blanks; None
                has a recogniser find them, which needs `mars5[eval]`.
            seed, generator, verify: as in `generate`; the whole recording is heard.
            normalise, lexicon: as in `generate`, for both transcripts. Words that are written out
                together, such as "$5 million", are changed together.

        Raises:
            TextError: no word differs, or none stays; there is a pause tag; `transcript` is not
                what is heard; the lexicon is not usable.
            ConfigError: `times` do not fit the words or the recording.
            MissingExtraError: no `times`, or `verify`, and the extra is not installed.
            AudioInputError, VoiceError, GenerationError, OutOfMemoryError: as in `generate`.
        """
        from mars5.editing import edit

        check_settings(cfg)
        source = checked_source(seed, generator)
        given = recording, transcript, new_transcript, cfg, times, _verification(verify)
        return edit(self.engine, *given, seed, source, lexicon, normalise)

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
        return self.engine.voices.make(ref_audio, transcript, cfg, provenance)

    @at_work()
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
        direction = self._direction(None, style, style_strength, instructions)
        return directed_voice(self.engine.voices, ref_audio, ref_transcript, None, direction)

    def get_speaker_embedding(self, ref_audio: AudioInput) -> Tensor:
        """(1, D): the AR's speaker vector of a reference given as in `generate`."""
        return self.voice(ref_audio).ar_speaker[None]

    def vocode(self, codes: Tensor) -> Tensor:
        """Integer codes (n, q) or (n,), 1 <= q <= 8 -> (1, T) float32 at 24 kHz on the CPU.

        Raises:
            ConfigError: no integer tensor, another shape, no frames, or codes outside 0..1023.
            OutOfMemoryError: memory did not suffice.
        """
        return self.engine.vocode(codes)

    @property
    def device(self) -> torch.device:
        """Where the models live."""
        return self.engine.device

    @property
    def default_config(self) -> InferenceConfig:
        """The settings recommended by the checkpoint's makers."""
        return self.engine.default_config

    @property
    def default_voice(self) -> Voice | None:
        """The voice of calls that give no reference, if the checkpoint brings one."""
        return self.engine.voices.default

    @property
    def config(self) -> ModelConfig:
        """What the checkpoint states of itself."""
        return self.engine.config

    @property
    def ar(self) -> CodecLM:
        """The model that writes the coarse codes."""
        return self.engine.ar

    @property
    def nar(self) -> ResidualTransformer:
        """The model that fills in all codebooks."""
        return self.engine.nar

    @property
    def text_tokenizer(self) -> TextTokenizer:
        """Text to ids."""
        return self.engine.text_tokenizer

    @property
    def speech_tokenizer(self) -> SpeechTokenizer:
        """Coarse codes to ids, and back."""
        return self.engine.speech_tokenizer

    @property
    def vocabulary(self) -> Vocabulary:
        """The ids of both."""
        return self.engine.vocabulary

    @property
    def schedule(self) -> Schedule:
        """The noise of each step of the diffusion."""
        return self.engine.schedule

    @property
    def codec(self) -> Codec:
        """Waveform to codes."""
        return self.engine.codec

    @property
    def vocoder(self) -> Vocoder:
        """Codes to waveform."""
        return self.engine.vocoder

    def _direction(
        self,
        profile: str | None,
        style: StyleInput | None,
        style_strength: float,
        instructions: str | None,
        speed: float | None = None,
        live: bool = False,
    ) -> Direction:
        """What a call wishes, with this system's profile and bank."""
        own = self.profile, self.style_bank
        return Direction(profile, style, style_strength, instructions, speed, live, *own)


def _verification(verify: bool | Verify) -> Verify | None:
    """How to verify, if at all; what that needs is there when this returns."""
    if verify is False:
        return None
    from mars5.verify import as_verify

    return as_verify(verify)

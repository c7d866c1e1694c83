"""What is evaluated: a checkpoint, a teacher, or recordings, all as makers of utterances.

A source is asked for every text with every seed it distinguishes; it answers with a wave at
16 kHz, what it took to make it, and the recording that it should sound like.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mars5 import hub
from mars5.config import InferenceConfig
from mars5.errors import ConfigError, GenerationError
from mars5.eval.clips import (
    MANIFESTS,
    SUFFIXES,
    Clip,
    read_folder,
    read_manifest,
    read_wave,
    to_judges,
)
from mars5.eval.ears import Wave
from mars5.eval.references import Reference

if TYPE_CHECKING:
    import torch

    from mars5.speech import Speech
    from mars5.tts import Mars5TTS
    from mars5.voice import Voice

TEACHERS = ("flite", "kokoro")


@dataclass(frozen=True, eq=False)
class Utterance:
    """One text, spoken.

    Attributes:
        wave: (T,) at 16 kHz; empty if nothing came.
        seed: None for what cannot be spoken again differently.
        reference: recording of the voice wanted (a key for `reference_wave`), None if unknown.
        took: seconds of computing; None for recordings.
        first_sound: seconds until the first samples were there; None for recordings.
        at_limit: stopped by the length limit.
        speed: by which the wave was made faster (`InferenceConfig.speed`).
    """

    text: str
    wave: Wave
    seed: int | None = None
    reference: str | None = None
    took: float | None = None
    first_sound: float | None = None
    at_limit: bool = False
    speed: float = 1.0


class Source(Protocol):
    """Speaks texts.

    Attributes:
        name: as given by the user; of a checkpoint also its precision, if one was asked for.
    """

    name: str

    def count(self, texts: Sequence[str], seeds: Sequence[int]) -> int:
        """How many utterances `speak` gives."""

    def speak(self, texts: Sequence[str], seeds: Sequence[int]) -> Iterator[Utterance]:
        """Every text, with every seed."""

    def references(self) -> dict[str, list[tuple[str, Wave]]]:
        """The recordings that utterances name as references: person -> (key, wave at 16 kHz)."""


class Checkpoint:
    """A system of this package, with its own voice or cloning references in turn.

    Text number i is spoken with reference i modulo their number. A seed is given to every text
    as it is, so `mars5 say TEXT --seed SEED` repeats any utterance.
    """

    def __init__(
        self,
        name: str,
        system: Mars5TTS,
        cfg: InferenceConfig,
        references: Sequence[Reference] = (),
        streamed: bool = False,
    ) -> None:
        self.name = name
        self.cfg = cfg
        self.streamed = streamed
        self._system = system
        self._references = list(references)
        self._voices: list[Voice | None] = [
            system.voice(r.path, r.transcript, cfg=cfg) for r in references
        ] or [None]

    def with_settings(self, settings: dict[str, Any]) -> Checkpoint:
        """The same system and references, with some other settings."""
        cfg = replace(self.cfg, **settings)
        return Checkpoint(self.name, self._system, cfg, self._references, self.streamed)

    def count(self, texts: Sequence[str], seeds: Sequence[int]) -> int:
        return len(texts) * len(seeds)

    def speak(self, texts: Sequence[str], seeds: Sequence[int]) -> Iterator[Utterance]:
        for seed in seeds:
            for i, text in enumerate(texts):
                yield self._speak(text, seed, i % len(self._voices))

    def _speak(self, text: str, seed: int, turn: int) -> Utterance:
        """The only place that generates and takes the time."""
        started = time.perf_counter()
        wave, at_limit, first = np.zeros(0, np.float32), False, None
        try:
            speech = self._speech(text, seed, self._voices[turn])
            wave, at_limit = speech.audio.numpy(), speech.finish_reason == "length"
            first = speech.first_sound_seconds
        except GenerationError:
            pass  # an empty utterance is what it gave, and a failure in the card
        took = time.perf_counter() - started
        key = str(self._references[turn].path) if self._references else self._own_voice
        wave = to_judges(wave, self._system.sr)
        return Utterance(text, wave, seed, key, took, first or took, at_limit, self.cfg.speed)

    def _speech(self, text: str, seed: int, voice: Voice | None) -> Speech:
        if not self.streamed:
            return self._system.generate(text, voice, cfg=self.cfg, seed=seed)
        with self._system.stream(text, voice, cfg=self.cfg, seed=seed) as stream:
            for _ in stream:
                pass
        return stream.speech

    @property
    def _own_voice(self) -> str | None:
        return None if self._system.default_voice is None else f"voice of {self.name}"

    def references(self) -> dict[str, list[tuple[str, Wave]]]:
        found: dict[str, list[tuple[str, Wave]]] = {}
        for reference in self._references:
            entry = (str(reference.path), read_wave(reference.path))
            found.setdefault(reference.speaker, []).append(entry)
        voice = self._system.default_voice
        if not found and voice is not None and self._own_voice is not None:
            # Kept as codes only: the nearest thing to its recording is their sound.
            wave = self._system.vocode(voice.codes)[0].numpy()
            found[self._own_voice] = [(self._own_voice, to_judges(wave, self._system.sr))]
        return found


class Teacher:
    """A teacher of the training recipe, such as flite:rms or kokoro:jf_alpha; it has no seeds."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._engine, _, self._voice = name.partition(":")

    def count(self, texts: Sequence[str], seeds: Sequence[int]) -> int:
        return len(texts)

    def speak(self, texts: Sequence[str], seeds: Sequence[int]) -> Iterator[Utterance]:
        for text in texts:
            started = time.perf_counter()
            wave = self.say(text)
            took = time.perf_counter() - started
            yield Utterance(text, wave, None, self.name, took, took)

    def say(self, text: str) -> Wave:
        """One text at 16 kHz.

        Raises:
            TrainError: the teacher is not installed, or refused the text.
        """
        from mars5.train.teachers import SAMPLE_RATE, Speaker, speak

        pcm, _ = speak(text, Speaker(self._engine, self._voice))
        return to_judges(pcm.astype(np.float32) / 32768, SAMPLE_RATE)

    def references(self) -> dict[str, list[tuple[str, Wave]]]:
        sentence = "This is how I speak when there is nothing in particular to say."
        return {self.name: [(self.name, self.say(sentence))]}


class Recordings:
    """Audio files that are there: of other engines, of teachers, of people."""

    def __init__(self, name: str, clips: Sequence[Clip]) -> None:
        self.name = name
        self._clips = clips

    def count(self, texts: Sequence[str], seeds: Sequence[int]) -> int:
        return len(self._clips)

    def speak(self, texts: Sequence[str], seeds: Sequence[int]) -> Iterator[Utterance]:
        for clip in self._clips:
            key = None if clip.reference is None else str(clip.reference)
            yield Utterance(clip.text, read_wave(clip.path), reference=key)

    def references(self) -> dict[str, list[tuple[str, Wave]]]:
        paths = sorted({clip.reference for clip in self._clips if clip.reference is not None})
        return {str(path): [(str(path), read_wave(path))] for path in paths}


def open_source(
    name: str,
    texts: Sequence[str],
    settings: dict[str, Any],
    references: Sequence[Reference] = (),
    device: str | None = None,
    streamed: bool = False,
    *,
    dtype: torch.dtype | None = None,
    quantize: str | None = None,
) -> Source:
    """The source that a name means.

    Args:
        name: a manifest (.csv, .jsonl), a folder of audio files, TEACHER:VOICE, or a checkpoint
            as `Mars5TTS.from_pretrained` takes it.
        texts: the list, for folders of audio files.
        settings: `InferenceConfig` fields that replace the checkpoint's defaults.
        references: what the checkpoint clones; none for its own voice.
        streamed: hear a checkpoint as it streams.
        device, dtype, quantize: of a checkpoint, as in `Mars5TTS.from_pretrained`.

    Raises:
        Mars5Error: what the name means cannot be read or loaded.
    """
    path = Path(name)
    if _means_checkpoint(name):
        return load_checkpoint(
            name, settings, references, device, streamed, dtype=dtype, quantize=quantize
        )
    if path.suffix.lower() in MANIFESTS:
        return Recordings(name, read_manifest(path))
    if path.is_dir():
        return Recordings(name, read_folder(path, texts))
    return Teacher(name)


def check_source(name: str) -> None:
    """Look for the checkpoint that a name means, if it means one; nothing is loaded.

    Raises:
        Mars5Error: it is not there.
    """
    if _means_checkpoint(name):
        hub.find(name)


def _means_checkpoint(name: str) -> bool:
    path = Path(name)
    is_teacher = name.partition(":")[0] in TEACHERS and ":" in name
    holds_audio = name != hub.NANO and path.is_dir() and _holds_audio(path)
    return not (path.suffix.lower() in MANIFESTS or is_teacher or holds_audio)


def load_checkpoint(
    name: str,
    settings: dict[str, Any],
    references: Sequence[Reference] = (),
    device: str | None = None,
    streamed: bool = False,
    *,
    dtype: torch.dtype | None = None,
    quantize: str | None = None,
) -> Checkpoint:
    """A checkpoint with its own defaults, but for `settings`; arguments as in `open_source`."""
    from mars5.tts import Mars5TTS

    system = Mars5TTS.from_pretrained(name, device=device, dtype=dtype, quantize=quantize)
    if not references and system.default_voice is None:
        raise ConfigError(f"{name} has no voice of its own: give --ref or --references librivox")
    cfg = system.default_config
    known = [r.transcript for r in references] or [
        getattr(system.default_voice, "transcript", None)
    ]
    cfg = replace(cfg.for_reference(None not in known), **settings)
    asked = [str(kind).removeprefix("torch.") for kind in (dtype, quantize) if kind is not None]
    return Checkpoint(" ".join([name, *asked]), system, cfg, references, streamed)


def _holds_audio(folder: Path) -> bool:
    return any(path.suffix.lower() in SUFFIXES for path in folder.iterdir())

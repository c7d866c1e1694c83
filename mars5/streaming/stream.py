"""`SpeechStream`: text in pieces, whole or still being written, to chunks of audio."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType

import torch
from torch import Tensor

from mars5.audio import AudioInput
from mars5.config import N_CODEBOOKS, SAMPLE_RATE, InferenceConfig
from mars5.device import at_work
from mars5.direction import Directed, Direction, directed
from mars5.engine import Engine
from mars5.errors import GenerationError
from mars5.letters import warn_of_letters, watched
from mars5.seeds import Seeds
from mars5.speech import Speech, SpokenPiece, worst_reason
from mars5.streaming.edges import silence
from mars5.streaming.utterance import Part, speak
from mars5.text import Piece, prepare_limited, prepare_stream
from mars5.voice import Voice


@dataclass(frozen=True, eq=False)
class Chunk:
    """Some audio of a stream; all chunks one after the other are the whole.

    Attributes:
        audio: (T,) float32 at 24 kHz on the CPU, T > 0.
        piece: place of the text's piece that is spoken.
        text: of that piece.
        ends_piece: whether the piece ends here; the pause after it is part of this chunk.
    """

    audio: Tensor
    piece: int
    text: str
    ends_piece: bool
    sample_rate: int = SAMPLE_RATE


class _StoppedError(Exception):
    """The stream was closed while a chunk was being made."""


class SpeechStream(Iterator[Chunk]):
    """An iterator of chunks, made when they are asked for; see `Mars5TTS.stream`.

    An error ends it; what was given until then stays valid and is in `speech`.

    Attributes:
        first_sound_seconds: from the call, or from the moment the first piece of a text still
            being written was there, to the first chunk; None before that.
    """

    def __init__(
        self,
        engine: Engine,
        pieces: Iterable[Piece],
        given: Directed,
        seeds: Seeds,
        started: float | None,
    ) -> None:
        self.first_sound_seconds: float | None = None
        self._engine, self._wished, self._seeds = engine, given, seeds
        self._started = started
        self._stopped, self._turn = threading.Event(), threading.Lock()
        self._given: list[Tensor] = []
        self._done: list[tuple[SpokenPiece, Part]] = []
        self._chunks = self._run(pieces)

    def __next__(self) -> Chunk:
        with self._turn, at_work():
            if self._stopped.is_set():
                self._chunks.close()
            chunk = next(self._chunks)
            if self.first_sound_seconds is None and self._started is not None:
                self.first_sound_seconds = time.perf_counter() - self._started
            self._given.append(chunk.audio)
        return chunk

    def close(self) -> None:
        """End the work at once: no model makes another step. From any thread, any number of times.

        If another thread is waiting for a chunk, it gets no more.
        """
        self._stopped.set()
        if self._turn.acquire(blocking=False):  # else who is at work looks at the flag
            try:
                self._chunks.close()
            finally:
                self._turn.release()

    def __enter__(self) -> SpeechStream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def speech(self) -> Speech:
        """All that was given so far, as one; the codes of the pieces that were finished.

        Raises:
            GenerationError: nothing was given yet.
        """
        if not self._given:
            raise GenerationError("the stream has given nothing yet: iterate over it first")
        parts = [part for _, part in self._done]
        none = torch.zeros(0, dtype=torch.int64)
        return Speech(
            torch.cat(self._given),
            torch.cat([part.codes for part in parts]) if parts else none.reshape(0, N_CODEBOOKS),
            torch.cat([none, *(torch.tensor(part.coarse.codes) for part in parts)]),
            worst_reason(piece.finish_reason for piece, _ in self._done),
            style=self._wished.voice.style_choice,
            profile=self._wished.profile,
            pieces=tuple(piece for piece, _ in self._done),
            first_sound_seconds=self.first_sound_seconds,
        )

    def _check(self) -> None:
        if self._stopped.is_set():
            raise _StoppedError

    def _run(self, pieces: Iterable[Piece]) -> Generator[Chunk, None, None]:
        try:
            for index, piece in enumerate(pieces):
                self._check()
                if self._started is None:
                    self._started = time.perf_counter()
                yield from self._speak(index, piece)
        except _StoppedError:
            return

    def _speak(self, index: int, piece: Piece) -> Iterator[Chunk]:
        task = self._engine.task(
            piece.text, self._wished.voice, None, self._wished.cfg, self._seeds.of_piece(index)
        )
        before = silence(piece.pause_before)
        start = sum(map(len, self._given)) + len(before)
        length = 0
        for part in speak(self._engine, task, self._seeds.of_refinement(index), self._check):
            audio, length = part.audio, length + len(part.audio)
            if part.is_last:
                spoken = SpokenPiece(piece.text, start, start + length, part.coarse.finish_reason)
                self._done.append((spoken, part))
                audio = torch.cat([audio, silence(piece.pause_after)])
            if len(audio):
                yield Chunk(torch.cat([before, audio]), index, piece.text, part.is_last)
                before = before[:0]


def open_stream(
    engine: Engine,
    text: str | Iterable[str],
    ref_audio: AudioInput | Voice | None,
    ref_transcript: str | None,
    cfg: InferenceConfig | None,
    direction: Direction,
    seeds: Seeds,
    lexicon: Mapping[str, str] | None,
    normalise: bool,
) -> SpeechStream:
    """See `Mars5TTS.stream`."""
    started = time.perf_counter()
    pieces: list[Piece] | Iterator[Piece]
    if isinstance(text, Iterable) and not isinstance(text, (str, bytes)):
        coming = prepare_stream(text, lexicon, normalise)
        pieces, said, begun = watched(engine.text_tokenizer, coming), "", None
    else:
        pieces, said, begun = prepare_limited(text, lexicon, normalise), text, started
    given = directed(engine, said, ref_audio, ref_transcript, cfg, direction)
    if isinstance(pieces, list):
        warn_of_letters(engine.text_tokenizer, (piece.text for piece in pieces))
        for piece in pieces:  # what can be refused is refused before the first sound
            engine.task(piece.text, given.voice, None, given.cfg, None)
    return SpeechStream(engine, pieces, given, seeds, begun)

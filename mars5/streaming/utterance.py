"""One piece of text as a stream: codes in growing chunks, each refined and vocoded at once.

    coarse   |=========================>            the AR goes on
    refined      |-- known -|-- new --|~ held ~|    the NAR: finished frames in reach, and all text
    converted               |-- new --|~~~~~~~~|    to the voice that is wanted; reads neighbours
    vocoded                 |-- new --|             reads both neighbours
    heard    |-- given ---|x|-----------|x|         x: cross-faded with the chunk before

What is finished stays as it is. The NAR is shown the last of it, at the positions where it is, and
so does no more work for a late chunk than for an early one. The held frames had no right context:
they are drawn again with the next chunk. A conversion reads finished frames on both sides, and so
is what it would be for the whole. All lengths but the AR's follow from the frame rate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain, repeat

import torch
from torch import Tensor

from mars5.config import N_CODEBOOKS
from mars5.engine import Coarse, Engine, Task
from mars5.nar.decode import Known
from mars5.prompt import Prompt, speech_codes
from mars5.speech import inaudible
from mars5.streaming.edges import Edges, cross_fade, silence
from mars5.tempo import Tempo

# Of codes in each chunk, the last number for all that follow. The second is short, too: a machine
# that is twice as fast as speech has each chunk ready before the one before has been heard.
CHUNK_SECONDS = (0.53, 0.53, 1.07, 2.13, 4.27)
CONTEXT_SECONDS = 1.0  # of finished codes that the NAR is shown; see docs/streaming.md
HELD_SECONDS = 0.08  # drawn again with the next chunk
FADE_SECONDS = 0.04

_NOTHING = Prompt([], 0)


@dataclass(frozen=True)
class Part:
    """What one chunk adds.

    Attributes:
        audio: (T,) float32; may be empty.
        coarse: all coarse codes so far; only in the last part are they complete.
        codes: (n, Q) all codes that are finished.
        is_last: nothing follows.
    """

    audio: Tensor
    coarse: Coarse
    codes: Tensor
    is_last: bool


def speak(
    engine: Engine, task: Task, refinement: torch.Generator, check: Callable[[], None]
) -> Iterator[Part]:
    """Speak one piece, as soon as each part of it is there.

    Args:
        task: its generator is the AR's alone.
        refinement: source of the NAR's random numbers.
        check: called before each step of a model; what it raises ends the work.

    Raises:
        GenerationError: the model ended at once, or there is nothing to hear.
    """
    wave, edges = _Wave(engine, task, refinement, check), Edges(task.cfg.trim_db)
    tempo = Tempo(task.cfg.speed)
    audible = False
    for coarse, is_last in _growing(engine, task, check):
        audio = edges.feed(wave.of(coarse, is_last))
        if is_last:
            audio = torch.cat([audio, edges.finish()])
        audible = audible or bool(len(audio))
        if is_last and not audible:
            raise inaudible(task.cfg.trim_db)
        audio = tempo.feed(audio)
        if is_last:
            audio = torch.cat([audio, tempo.finish()])
        yield Part(audio, coarse, wave.finished, is_last)


def _growing(
    engine: Engine, task: Task, check: Callable[[], None]
) -> Iterator[tuple[Coarse, bool]]:
    """The coarse codes so far, whenever there is a chunk more of them, and whether that is all."""
    sizes = _chunk_sizes(engine, task)
    ids: list[int] = []
    wanted, frames = next(sizes), 0
    drawn = engine.draw(task)
    with closing(drawn):
        for token in drawn:
            check()
            ids.append(token)
            frames += len(_codes(engine, _NOTHING, [token]))
            if frames >= wanted and token != engine.vocabulary.end:
                coarse = Coarse(_codes(engine, task.prompt, ids), "length")
                held = _held(engine) + engine.conversion_reach(task) + _faded(engine)
                if _n_new(engine, task, coarse) > held:
                    yield coarse, False
                wanted = frames + next(sizes)
    yield engine.coarse(task, ids), True


def _codes(engine: Engine, prompt: Prompt, ids: list[int]) -> list[int]:
    return speech_codes(
        prompt,
        ids,
        engine.vocabulary.n_text,
        engine.speech_tokenizer,
        engine.config.prompt.drop_first and prompt is not _NOTHING,
    )


def _n_new(engine: Engine, task: Task, coarse: Coarse) -> int:
    """How many frames of the coarse codes are new speech."""
    return len(coarse.codes) - engine.continued_frames(task)


def _chunk_sizes(engine: Engine, task: Task) -> Iterator[int]:
    """Frames of each chunk; the first also has those that a conversion waits for."""
    yield _frames(engine, CHUNK_SECONDS[0]) + engine.conversion_reach(task)
    for seconds in chain(CHUNK_SECONDS[1:], repeat(CHUNK_SECONDS[-1])):
        yield _frames(engine, seconds)


def _held(engine: Engine) -> int:
    return _frames(engine, HELD_SECONDS)


def _faded(engine: Engine) -> int:
    return _frames(engine, FADE_SECONDS)


def _frames(engine: Engine, seconds: float) -> int:
    return max(1, round(seconds * engine.codec.frame_rate))


class _Wave:
    """Coarse codes to the wave, chunk by chunk.

    Attributes:
        finished: (n, Q) the codes that will not change.
    """

    def __init__(
        self,
        engine: Engine,
        task: Task,
        refinement: torch.Generator,
        check: Callable[[], None],
    ) -> None:
        self._engine, self._task = engine, task
        self._refinement, self._check = refinement, check
        steps = engine.nar_steps(task.cfg)
        self._estimator = engine.estimator(task).ahead(steps)  # all chunks have the same text
        self.finished = torch.zeros(0, N_CODEBOOKS, dtype=torch.int64)
        self._refined = self.finished  # the same codes as the NAR gave them
        self._sound = engine.vocoder.features(self.finished[None].to(engine.device))
        self._given = 0  # frames
        self._old_end = silence(0)  # samples of the finished frames that are not yet given

    def of(self, coarse: Coarse, is_last: bool) -> Tensor:
        """The next samples (T,), now that there are these coarse codes."""
        refined = self._refine(coarse)
        fixed = stop = len(refined)
        if not is_last:
            fixed -= _held(self._engine)
            stop = fixed - self._engine.conversion_reach(self._task)
        sound, codes = self._sounding(refined)
        self._refined = refined[:fixed].cpu().clone()  # not inference tensors
        self.finished = codes[:stop].cpu().clone()
        self._sound = sound[..., : stop * self._engine.vocoder.dims.stack]
        wave = self._vocoded(sound, stop)
        n = min(len(self._old_end), len(wave))
        wave[:n] = cross_fade(self._old_end[:n], wave[:n])
        if is_last:
            return wave
        kept = _faded(self._engine)
        samples = len(wave) // (stop - self._given) * kept
        self._given, self._old_end = stop - kept, wave[len(wave) - samples :]
        return wave[: len(wave) - samples]

    def _refine(self, coarse: Coarse) -> Tensor:
        """All codes (n, Q) of the new speech by the NAR; what is finished stays as it is."""
        known = self._engine.known(self._task, coarse)
        codes, mask = known.codes.clone(), known.mask.clone()
        finished = self._refined.to(codes.device)
        start = sum(self._engine.reference_frames(self._task))
        stop = start + len(finished)
        codes[0, start:stop], mask[0, start:stop] = finished, True
        unseen = max(0, len(finished) - _frames(self._engine, CONTEXT_SECONDS))
        places = torch.arange(codes.shape[1], device=codes.device)
        shown = torch.cat([places[:start], places[start + unseen :]])
        known = Known(codes[:, shown], mask[:, shown])
        estimator = replace(self._estimator, positions=shown)
        x = known.codes
        for step in self._engine.denoise(estimator, known, self._task.cfg, self._refinement):
            self._check()
            x = step
        return torch.cat([finished, x[0, stop - unseen :]])

    def _sounding(self, refined: Tensor) -> tuple[Tensor, Tensor]:
        """Features and codes as of `Engine.sound`; those of what is finished stay as they are."""
        done = len(self.finished)
        first = max(0, done - self._engine.conversion_reach(self._task))
        sound, codes = self._engine.sound(self._task, refined[first:])
        before = (done - first) * self._engine.vocoder.dims.stack
        return (
            torch.cat([self._sound, sound[..., before:]], 2),
            torch.cat([self.finished.to(codes.device), codes[done - first :]]),
        )

    @torch.no_grad()
    def _vocoded(self, sound: Tensor, stop: int) -> Tensor:
        """The samples from what was given up to frame `stop`, with all the context there is."""
        wave = self._engine.vocoder.span(sound, self._given, stop)
        return wave[0].cpu().clone()

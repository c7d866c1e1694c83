"""Many texts at once: rows of the AR refilled as speech ends, the NAR over speech of like length.

Each text draws from its own generator, in the order in which it draws alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mars5.ar.decode import Drawn, Request, generate_many
from mars5.audio import AudioInput
from mars5.config import MAX_BATCH, SEEDS, InferenceConfig
from mars5.device import at_work
from mars5.engine import Coarse, Engine, Task, is_transcribed
from mars5.errors import ConfigError, Mars5Error, OutOfMemoryError
from mars5.nar.decode import stack
from mars5.profiles import Profile, resolve_profile
from mars5.seeds import checked_seed
from mars5.speech import BatchItem
from mars5.voice import Voice

LEAST_FILLED = 0.75  # speech shorter than this share of the longest waits for another NAR batch


@dataclass(frozen=True)
class Input:
    """What was given for one text."""

    text: str
    ref_audio: AudioInput | Voice | None
    ref_transcript: str | None
    seed: int


def check_batch(
    texts: Sequence[str],
    ref_audio: AudioInput | Voice | list[AudioInput | Voice] | None,
    ref_transcript: str | list[str | None] | None,
    seeds: int | Sequence[int] | None,
    batch_size: int,
) -> list[Input]:
    """The arguments of a batch, one for each text.

    Raises:
        ConfigError: lists of different lengths, or values that cannot be meant.
    """
    if isinstance(texts, str) or not isinstance(texts, Sequence):
        raise ConfigError(f"texts must be a list of strings, got {type(texts).__name__}")
    if (
        isinstance(batch_size, bool)
        or not isinstance(batch_size, int)
        or (not 1 <= batch_size <= MAX_BATCH)
    ):
        raise ConfigError(
            f"batch_size must be a whole number from 1 to {MAX_BATCH}, got {batch_size!r}"
        )
    refs = _one_each("ref_audio", ref_audio, len(texts))
    transcripts = _one_each("ref_transcript", ref_transcript, len(texts))
    return [
        Input(*given)
        for given in zip(texts, refs, transcripts, _seeds(seeds, len(texts)), strict=True)
    ]


def _one_each(name: str, given: Any, n: int) -> list[Any]:
    if not isinstance(given, list):
        return [given] * n
    if len(given) != n:
        raise ConfigError(f"{name} is a list of {len(given)}, but there are {n} texts")
    return given


def _seeds(seeds: int | Sequence[int] | None, n: int) -> list[int]:
    if seeds is None:
        return [int(torch.randint(SEEDS - 1, ())) for _ in range(n)]
    found: list[Any]
    if isinstance(seeds, Iterable):
        found = list(seeds)
    else:
        first = checked_seed(seeds)
        found = [first + i for i in range(n)]
    if len(found) != n:
        raise ConfigError(f"there are {len(found)} seeds, but {n} texts")
    return [checked_seed(seed) for seed in found]


def profile_settings(
    engine: Engine, profile: str, inputs: list[Input]
) -> tuple[InferenceConfig, Profile]:
    """One profile's settings for all texts, whose clones are deep if every voice allows that."""
    known = all(_is_transcribed(engine, given) for given in inputs)
    lengths = [len(given.text) for given in inputs if isinstance(given.text, str)]
    longest = max(lengths, default=0)
    chosen = resolve_profile(profile, engine.device.type, characters=longest, transcript=known)
    return chosen.config(engine.config).for_reference(known), chosen


def _is_transcribed(engine: Engine, given: Input) -> bool:
    voice = engine.voices.default if given.ref_audio is None else given.ref_audio
    known = isinstance(voice, Voice) and is_transcribed(voice)
    return known or given.ref_transcript is not None


def speak_each(
    engine: Engine, inputs: list[Input], cfg: InferenceConfig | None, batch_size: int
) -> Iterator[BatchItem]:
    """Yield the items of a batch as they are ready; an item that fails leaves the others alone."""
    tasks: dict[int, Task] = {}
    prepare = _Preparation(engine, cfg)
    for index, given in enumerate(inputs):
        try:
            tasks[index] = prepare(given)
        except Mars5Error as error:
            yield BatchItem(index, None, error)
    waiting: list[_Waiting] = []
    for found in _coarse(engine, tasks, batch_size):
        if isinstance(found, BatchItem):
            yield found
            continue
        waiting.append(found)
        if len(waiting) >= batch_size:
            yield from _refined(engine, _taken(waiting, batch_size))
    while waiting:
        yield from _refined(engine, _taken(waiting, batch_size))


class _Preparation:
    """Makes tasks; a reference that serves several texts is encoded once."""

    def __init__(self, engine: Engine, cfg: InferenceConfig | None) -> None:
        self.engine, self.cfg = engine, cfg
        self.voices: dict[tuple[int, str | None], Voice] = {}

    def __call__(self, given: Input) -> Task:
        key = id(given.ref_audio), given.ref_transcript
        task = self.engine.task(
            given.text,
            self.voices.get(key, given.ref_audio),
            None if key in self.voices else given.ref_transcript,
            self.cfg,
            torch.Generator().manual_seed(given.seed),
        )
        self.voices[key] = task.voice
        return task


@dataclass(frozen=True)
class _Waiting:
    """A text whose coarse codes are there."""

    index: int
    task: Task
    coarse: Coarse


def _coarse(
    engine: Engine, tasks: dict[int, Task], batch_size: int
) -> Iterator[_Waiting | BatchItem]:
    """Coarse codes as they are complete; the longest texts first, to leave no row alone at last.

    If the AR runs out of memory, that is the error of each text that is not complete.
    """
    order = sorted(tasks, key=lambda index: -len(tasks[index].text))
    if not order:
        return
    requests = (
        Request(task.prompt.ids, task.ar_speaker[None], task.estimate, task.generator)
        for task in (tasks[index] for index in order)
    )
    ids: dict[int, list[int]] = {index: [] for index in order}
    drawn_ids = generate_many(
        engine.ar,
        requests,
        engine.vocabulary,
        tasks[order[0]].cfg,  # all are the same but for deep_clone, which the AR does not read
        min(batch_size, len(order)),
        engine.spare_steps,
    )
    try:
        for drawn in _guarded(drawn_ids):
            index = order[drawn.index]
            ids[index] += drawn.ids
            if not drawn.done:
                continue
            generated = ids.pop(index)
            if drawn.error is not None:
                yield BatchItem(index, None, drawn.error)
            else:
                yield _Waiting(index, tasks[index], engine.coarse(tasks[index], generated))
    except OutOfMemoryError as error:
        for index in ids:
            yield BatchItem(index, None, error)


def _guarded(drawn_ids: Iterator[Drawn]) -> Iterator[Drawn]:
    """The same; only the drawing is guarded, not what is done with the ids meanwhile."""
    while True:
        with at_work():
            drawn = next(drawn_ids, None)
        if drawn is None:
            return
        yield drawn


def _taken(waiting: list[_Waiting], batch_size: int) -> list[_Waiting]:
    """Take the longest out of the list, and those that are not much shorter."""
    waiting.sort(key=_length)
    least = LEAST_FILLED * _length(waiting[-1])
    first = next(i for i, item in enumerate(waiting) if _length(item) >= least)
    taken = waiting[max(first, len(waiting) - batch_size) :]
    del waiting[-len(taken) :]
    return taken


def _length(item: _Waiting) -> int:
    return len(item.coarse.codes)


def _refined(engine: Engine, items: list[_Waiting]) -> Iterator[BatchItem]:
    """Speech of all items by one run of the NAR; after a failure, by one for each half."""
    asked, able = [], []
    for item in items:
        try:
            with at_work():
                asked.append(engine.refinement(item.task, item.coarse))
            able.append(item)
        except Mars5Error as error:
            yield BatchItem(item.index, None, error)
    if not able:
        return
    generators = [_generator(item) for item in able]
    before = [generator.get_state() for generator in generators]
    try:
        with at_work():
            estimator, known = stack(asked)
            *_, codes = engine.denoise(estimator, known, able[0].task.cfg, generators)
    except Mars5Error as error:
        if len(able) == 1:
            yield BatchItem(able[0].index, None, error)
            return
        for generator, state in zip(generators, before, strict=True):
            generator.set_state(state)
        middle = len(able) // 2
        for half in (able[:middle], able[middle:]):
            yield from _refined(engine, half)
        return
    for item, row, (_, alone) in zip(able, codes, asked, strict=True):
        try:
            speech = engine.speech(item.task, item.coarse, row[: alone.codes.shape[1]])
        except Mars5Error as error:
            yield BatchItem(item.index, None, error)
        else:
            yield BatchItem(item.index, speech)


def _generator(item: _Waiting) -> torch.Generator:
    if item.task.generator is None:  # for the type checker: every task here was made with one
        raise TypeError("no generator")
    return item.task.generator

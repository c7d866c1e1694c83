"""Each stage of one utterance, timed by itself; a long stage in part, in the utterance's middle."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from mars5.ar.decode import Request, generate_many
from mars5.bench import limits, naive
from mars5.bench.clock import Clock, Taken, many, median, several, timed
from mars5.config import CODEBOOK_SIZE, N_CODEBOOKS, SAMPLE_RATE
from mars5.engine import Coarse, Task
from mars5.nar.decode import Known, denoise
from mars5.nar.diffusion import Schedule, cosine_schedule
from mars5.nar.estimate import Estimator
from mars5.quantized import is_quantized
from mars5.tts import Mars5TTS
from mars5.voice import Voice

TEXT = (
    "We met in the old town at noon, had some bread and tea, and took the late train home together."
)
TRANSCRIPT = "The evening train was almost empty, so we sat by the window and talked quietly."
REFERENCE_SECONDS = 6
FIRST_SOUNDS, FIRST_SOUND_SECONDS = 20, 10.0  # as many as tell a 95th percentile, in that time
ROOM = 2000  # ids, for a deep clone by a model that recommends less
NO_END = 100.0  # of an early end's penalty, and of the estimate it needs: the most there is


@dataclass(frozen=True)
class Plan:
    """What is to be measured.

    Attributes:
        seconds: of the utterance.
        profiles: diffusion steps of each, by name.
        deep: whether to continue the reference.
        tokens, steps: of AR and NAR that are timed; the rest of the utterance is extrapolated.
        repeats: of each measurement; their median counts.
        rows: numbers of sequences that the AR shall decode at once.
        settings: `InferenceConfig` values that replace the model's own.
        compare: also run the plain rules.
        has_random_weights: ids mean nothing, so one is taken to be one frame.
    """

    seconds: float = 5.0
    profiles: Mapping[str, int] = field(default_factory=dict)
    deep: bool = False
    tokens: int = 48
    steps: int = 4
    repeats: int = 3
    rows: Sequence[int] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    compare: bool = False
    has_random_weights: bool = False


@dataclass
class Counts:
    """What was worked on; nothing in it is a time.

    Attributes:
        frames: of the new speech; `reference_frames` those of the voice.
        frames_per_token: that an id of the AR stands for.
        tokens: ids of the whole utterance.
        passes: of the NAR in each step: 2 with guidance.
        token_bytes: read for an id; step_flops: operations of a step.
        settle_step: where the walk of the NAR ends; 0 for its last step.
        peak_resident, peak_device: most bytes held by this process and on its GPU; None if that
            is not known here.
    """

    frames: int
    reference_frames: int
    prompt_ids: int
    frames_per_token: float
    tokens: int
    decoder_frames: int
    passes: int
    token_bytes: int
    step_flops: int
    settle_step: int = 0
    peak_resident: int | None = None
    peak_device: int | None = None


@dataclass
class Times:
    """What was measured.

    Attributes:
        load: the system, from its files.
        voice: a reference of six seconds prepared.
        first: the prompt read and the first id drawn.
        token: each further id; exact, strided: each step of the two laws; vocoder: all frames.
        first_sounds: of streams with the fewest steps asked for.
        rows: each id, of all sequences together, with so many at once.
        byte, flop: what the machine needs for one at least.
        naive_token, naive_step: by the plain rules.
    """

    load: Taken
    voice: Taken
    first: Taken
    token: Taken
    exact: Taken
    strided: Taken
    vocoder: Taken
    first_sounds: Sequence[Taken]
    byte: Taken
    flop: Taken
    rows: dict[int, Taken]
    naive_token: Taken | None = None
    naive_step: Taken | None = None


def measure(system: Mars5TTS, load: Taken, plan: Plan, clock: Clock) -> tuple[Counts, Times]:
    """All stages, one after the other."""
    task = _task(system, plan)
    frames = round(plan.seconds * system.codec.frame_rate)
    each = 1.0 if plan.has_random_weights else _frames_per_token(system, task, plan.tokens)
    n_tokens = math.ceil(frames / each)
    estimator, known = _refinement(system, task, frames)
    counts = _counts(system, task, known, frames, each, n_tokens)
    middle = _middle(system, task, n_tokens, plan.tokens)

    repeats = partial(several, repeats=plan.repeats)
    token = partial(_token_taken, system, task, middle, plan.tokens, clock)
    step = partial(_step_taken, task, estimator, known, plan.steps, clock)
    short_schedule = cosine_schedule(plan.steps).to(system.device)
    codes = torch.randint(CODEBOOK_SIZE, (frames, N_CODEBOOKS))
    voice = median(repeats(lambda: timed(clock, lambda: _prepared(system))))
    first = median(repeats(partial(_first_taken, system, task, clock)))
    one = median(repeats(partial(token, 1)))
    rows = {n: median(repeats(partial(token, n))) for n in plan.rows}
    exact = median(repeats(partial(step, short_schedule)))
    strided = median(repeats(partial(step, system.schedule)))
    vocoder = median(repeats(lambda: timed(clock, lambda: system.vocode(codes))))
    sound = partial(_first_sound, system, task, plan, clock)
    sounds = many(sound, plan.repeats, FIRST_SOUNDS, FIRST_SOUND_SECONDS)
    counts.peak_resident, counts.peak_device = _peaks(system.device)  # what follows needs more
    byte = limits.byte_taken(clock)
    precision, is_int8 = system.nar.text_embed.weight.dtype, is_quantized(system.nar)
    flop = limits.flop_taken(clock, precision, is_int8)
    times = Times(load, voice, first, one, exact, strided, vocoder, sounds, byte, flop, rows)
    if plan.compare:
        times.naive_token = naive.token_taken(system, task, middle, clock)
        times.naive_step = naive.step_taken(system, task, known, clock)
    return counts, times


def _prepared(system: Mars5TTS) -> Voice:
    """A voice of a synthetic recording."""
    t = torch.arange(REFERENCE_SECONDS * SAMPLE_RATE) / SAMPLE_RATE
    wave = 0.3 * torch.sin(2 * math.pi * (120 * t + 15 * torch.sin(5 * t))) ** 7
    return system.voice(wave.numpy(), TRANSCRIPT)


def _task(system: Mars5TTS, plan: Plan) -> Task:
    cfg = replace(system.default_config, deep_clone=plan.deep, **plan.settings)
    room = min(max(cfg.max_len, ROOM), system.config.ar.sliding_window)
    cfg = replace(cfg, generate_max_len_override=room)
    voice = system.default_voice
    if voice is None or voice.transcript is None:
        voice = _prepared(system)
    return system.engine.task(TEXT, voice, None, cfg, torch.Generator().manual_seed(1))


def _counts(
    system: Mars5TTS, task: Task, known: Known, frames: int, each: float, n_tokens: int
) -> Counts:
    grid, passes = known.unknown(), 1 if task.cfg.nar_guidance_w == 1 else 2
    length, memory = known.codes.shape[1], 1 + task.prompt.n_text
    return Counts(
        frames=frames,
        reference_frames=len(task.voice.codes),
        prompt_ids=len(task.prompt.ids),
        frames_per_token=each,
        tokens=n_tokens,
        decoder_frames=length,
        passes=passes,
        token_bytes=limits.bytes_for_token(system.ar, len(task.prompt.ids) + n_tokens // 2),
        step_flops=limits.flops_for_step(
            system.nar.dims, length, memory, len(grid.rows), len(grid.levels), passes
        ),
        settle_step=task.cfg.nar_settle_step,
    )


def _frames_per_token(system: Mars5TTS, task: Task, n: int) -> float:
    """Frames of the next `n` ids, as the model draws them, divided by their number."""
    source = torch.Generator().manual_seed(1)
    cfg = replace(task.cfg, generate_max_len_override=len(task.prompt.ids) + n)
    drawn = system.engine.draw(replace(task, cfg=cfg, generator=source))
    ids = [token - system.vocabulary.n_text for token in drawn if token != system.vocabulary.end]
    return len(system.speech_tokenizer.decode([max(i, 0) for i in ids])) / max(len(ids), 1) or 1.0


def _middle(system: Mars5TTS, task: Task, n_tokens: int, timed_tokens: int) -> list[int]:
    """The prompt and so many speech ids that those timed next have the utterance's mean context."""
    before = max(0, n_tokens - timed_tokens) // 2
    return [*task.prompt.ids, *(system.vocabulary.n_text + i % 1024 for i in range(before))]


def _first_taken(system: Mars5TTS, task: Task, clock: Clock) -> Taken:
    cfg = replace(task.cfg, generate_max_len_override=len(task.prompt.ids) + 1)
    ids = system.engine.draw(replace(task, cfg=cfg, generator=torch.Generator().manual_seed(1)))
    return timed(clock, lambda: list(ids))


def _token_taken(
    system: Mars5TTS, task: Task, prompt: list[int], n: int, clock: Clock, rows: int
) -> Taken:
    """Time for each id of all rows together, from the second look at the ids on."""
    limit = len(prompt) + 1 + n
    cfg = replace(task.cfg, generate_max_len_override=limit, eos_penalty_factor=NO_END)
    requests = [
        Request(prompt, task.ar_speaker[None], 100 * n, torch.Generator().manual_seed(row))
        for row in range(rows)
    ]
    drawn = generate_many(
        system.ar, requests, system.vocabulary, cfg, rows, system.engine.spare_steps
    )
    for first in islice(drawn, rows):  # the prompt, and what a GPU draws ahead
        if first.error is not None:
            raise first.error
    start = clock.now()
    count = sum(len(more.ids) for more in drawn)
    return (clock.now() - start) / count


def _refinement(system: Mars5TTS, task: Task, frames: int) -> tuple[Estimator, Known]:
    """The NAR's task for random coarse codes of the new speech."""
    source = torch.Generator().manual_seed(1)
    new = torch.randint(CODEBOOK_SIZE, (frames,), generator=source).tolist()
    before = task.voice.codes[: system.engine.continued_frames(task), 0].tolist()
    return system.engine.refinement(task, Coarse([*before, *new], "stop"))


def _step_taken(
    task: Task, estimator: Estimator, known: Known, steps: int, clock: Clock, schedule: Schedule
) -> Taken:
    """A whole run of few steps, with all that is computed ahead, divided by their number."""
    source = torch.Generator().manual_seed(1)
    run = denoise(estimator, known, schedule, steps, task.cfg.q0_override_steps, source)

    def last() -> Tensor:
        *_, codes = run
        return codes

    return timed(clock, last) / steps


def _first_sound(system: Mars5TTS, task: Task, plan: Plan, clock: Clock) -> Taken:
    """From the call to the first chunk, with a prepared voice."""
    cfg = replace(
        task.cfg,
        timesteps=min(plan.profiles.values()),
        eos_penalty_factor=NO_END,
        eos_estimated_gen_length_factor=NO_END,
    )
    start = clock.now()
    with system.stream(TEXT, task.voice, cfg=cfg, seed=1) as stream:
        next(stream)
        return clock.now() - start


def _peaks(device: torch.device) -> tuple[int | None, int | None]:
    """Most bytes this process ever held, and held on its GPU."""
    resident = None
    with suppress(ImportError):  # not on Windows
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    on_cuda = device.type == "cuda"
    return resident, torch.cuda.max_memory_allocated(device) if on_cuda else None

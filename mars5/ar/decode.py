"""The AR loops: from prompts to ids, one sequence or many at once.

Rows of static memory are filled with sequences and refilled as these end. Where the device runs on
by itself, several ids are drawn ahead of each look at them; what comes after an end is dropped and
its random numbers are given back. `use_kv_cache=False` takes the plain rule of `CodecLM` instead.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mars5.ar.graph import Spare
from mars5.ar.model import CodecLM
from mars5.ar.sampling import Noise, Vocabulary, draw, next_token_probabilities
from mars5.ar.steps import EagerSteps
from mars5.config import InferenceConfig
from mars5.errors import GenerationError


@dataclass(frozen=True)
class Request:
    """One sequence to generate.

    Attributes:
        prompt: S >= 1 joint ids.
        speaker: (1, D) from `CodecLM.speaker_vector`.
        estimate: expected number of tokens, for the penalty on an early end; None turns it off.
        generator: source of randomness on the CPU; None is torch's global one.
    """

    prompt: Sequence[int]
    speaker: Tensor
    estimate: int | None = None
    generator: torch.Generator | None = None


@dataclass(frozen=True)
class Drawn:
    """What came of one request: its next ids, whether they are the last, or why there are none.

    Attributes:
        index: of the request.
        ids: new joint ids; the end token, if it comes, is the last one.
        done: nothing follows.
        error: set if the sequence failed; the others go on.
    """

    index: int
    ids: list[int]
    done: bool
    error: GenerationError | None = None


def generate_ids(
    model: CodecLM,
    prompt: Tensor,
    speaker: Tensor,
    vocabulary: Vocabulary,
    cfg: InferenceConfig,
    estimate: int | None = None,
    generator: torch.Generator | None = None,
    spare: Spare | None = None,
) -> Generator[int, None, None]:
    """Yield joint ids as they are drawn; the end token, if it comes, is the last one.

    Args:
        prompt: (1, S) joint ids.
        speaker, estimate, generator: as in `Request`.
        spare: where a CUDA graph is kept for the next call.

    The loop ends without an end token when prompt and generated ids together reach `cfg.max_len`.

    Raises:
        GenerationError: the logits are not finite.
    """
    request = Request(prompt[0].tolist(), speaker, estimate, generator)
    for drawn in generate_many(model, [request], vocabulary, cfg, 1, spare):
        if drawn.error is not None:
            raise drawn.error
        yield from drawn.ids


@torch.inference_mode()
def generate_many(
    model: CodecLM,
    requests: Iterable[Request],
    vocabulary: Vocabulary,
    cfg: InferenceConfig,
    rows: int,
    spare: Spare | None = None,
) -> Iterator[Drawn]:
    """Yield the ids of many requests as they come, `rows` of them at a time.

    Each request draws from its own generator what it would draw alone. They are begun in order.
    """
    waiting = enumerate(requests)
    if not cfg.use_kv_cache:
        for index, request in waiting:
            yield from _uncached(model, index, request, vocabulary, cfg)
        return
    spare = spare or Spare()
    steps = spare.take(model, vocabulary, cfg, rows)
    try:
        yield from _run(steps, waiting, vocabulary.end, cfg.max_len)
    finally:
        for row in range(rows):
            steps.release(row)
        spare.give(steps)


class _Row:
    """What the loop knows of the sequence in one row."""

    def __init__(self, index: int, request: Request, limit: int, width: int) -> None:
        self.index = index
        self.noise = Noise(width, request.generator)
        self.room = limit - len(request.prompt)

    def take(
        self, drawn: Sequence[int], finite: Sequence[bool], end: int, dtype: torch.dtype
    ) -> Drawn:
        """What of the ids drawn ahead is the sequence's."""
        used = drawn.index(end) + 1 if end in drawn else len(drawn)
        if not finite[used - 1]:
            return Drawn(self.index, [], True, _not_finite(dtype))
        if used < len(drawn):
            self.noise.give_back(used)
        self.room -= used
        return Drawn(self.index, list(drawn[:used]), drawn[used - 1] == end or self.room == 0)


def _run(
    steps: EagerSteps, waiting: Iterator[tuple[int, Request]], end: int, limit: int
) -> Iterator[Drawn]:
    width, dtype = steps.rows.model.dims.n_vocab, steps.rows.memory.dtype
    free, running = list(range(steps.n_rows)), dict[int, _Row]()
    while True:
        while free and (following := next(waiting, None)):
            index, request = following
            row = _Row(index, request, limit, width)
            if row.room <= 0:
                yield Drawn(index, [], True)
                continue
            place = free.pop()
            running[place] = row
            steps.admit(place, request.prompt, request.speaker, request.estimate)
        if not running:
            return
        n = min(steps.ahead, *(row.room for row in running.values()))
        noise = torch.ones(n, steps.n_rows, width)
        for place, row in running.items():
            noise[:, place] = row.noise.draw(n)
        ids, finite = steps.run(noise)
        for place, row in list(running.items()):
            of_row = [at[place] for at in ids], [at[place] for at in finite]
            drawn = row.take(*of_row, end, dtype)
            if drawn.done:
                steps.release(place)
                free.append(place)
                del running[place]
            yield drawn


def _uncached(
    model: CodecLM, index: int, request: Request, vocabulary: Vocabulary, cfg: InferenceConfig
) -> Iterator[Drawn]:
    """The plain rule: the whole sequence again for each id, penalties from the whole history."""
    device = model.embed.weight.device
    prompt, speaker = torch.tensor([request.prompt], device=device), request.speaker.to(device)
    ids, noise = prompt, Noise(model.dims.n_vocab, request.generator)
    while ids.shape[1] < cfg.max_len:
        logits = model.next_logits(ids, speaker).cpu()
        if not logits.isfinite().all():
            yield Drawn(index, [], True, _not_finite(model.embed.weight.dtype))
            return
        generated = ids[:, prompt.shape[1] :].cpu()
        probabilities = next_token_probabilities(
            logits, generated, request.estimate, vocabulary, cfg
        )
        new = draw(probabilities, noise.draw(1))
        ids = torch.cat([ids, new.to(ids.device)], 1)
        token = int(new)
        yield Drawn(index, [token], token == vocabulary.end)
        if token == vocabulary.end:
            return
    yield Drawn(index, [], True)


def _not_finite(dtype: torch.dtype) -> GenerationError:
    return GenerationError(
        f"the AR's logits are not finite in {dtype}: load the model with dtype=torch.bfloat16 or "
        "torch.float32"
    )

"""Step 8: what the NAR makes of the corpus' coarse codes, for the vocoder to hear.

Codes that settle (`mars5.nar.settle`) are a mean of what could have been said: smoother than speech
is. A vocoder that has only heard the codes of recordings makes dull sound of them; one that has
heard both, with the recording to compare, puts back what the mean has lost.
"""

from __future__ import annotations

import random

import torch
from torch import Tensor

from mars5.nar.decode import Known, denoise, stack
from mars5.nar.diffusion import cosine_schedule
from mars5.nar.estimate import Estimator
from mars5.nar.model import ResidualTransformer
from mars5.nar.settle import Settling
from mars5.train.batching import Corpus
from mars5.train.tokens import Example

BATCH = 16


def settle_shard(
    model: ResidualTransformer, books: Tensor, corpus: Corpus, examples: list[Example], seed: int
) -> list[Tensor]:
    """(T, Q) codes for each example: its coarse ones, and those that settle on them.

    Args:
        books: (Q, 1024, C) vectors of the codes.
        corpus: where other utterances of the speakers are, as references.
        seed: of the references and of the walk's first noise.
    """
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    schedule = cosine_schedule(model.dims.diffusion_steps)
    settling = Settling(len(schedule), books)
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].codes))
    made: dict[int, Tensor] = {}
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        asked = [_asked(model, corpus, examples[i], rng) for i in chosen]
        estimator, known = stack(asked)
        *_, codes = denoise(estimator, known, schedule, 1, 0, generator, settling)
        for i, row in zip(chosen, codes, strict=True):
            made[i] = row[: len(examples[i].codes)]
    return [made[i] for i in range(len(examples))]


def _asked(
    model: ResidualTransformer, corpus: Corpus, example: Example, rng: random.Random
) -> tuple[Estimator, Known]:
    """The NAR, told an example's text and another utterance of its speaker; the coarse codes."""
    reference = corpus.reference([example], rng)[None]
    text = torch.tensor([corpus.framed([example])])
    with torch.inference_mode():
        speaker = model.speaker_vector(reference, torch.tensor([reference.shape[1]]))
    lengths = torch.tensor([text.shape[1]])
    estimator = Estimator(model, text, lengths, speaker, guidance=1.0, temperature=1.0)
    return estimator, Known.from_coarse(example.codes[None, :, 0].long())

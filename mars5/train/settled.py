"""Step 8: what the NAR makes of the corpus' coarse codes, for the vocoder to hear.

Codes that settle (`mars5.nar.settle`) are a mean of what could have been said: smoother than speech
is, even in its timbre (`mars5.nar.timbre`). A vocoder that has heard such codes too, with the
recording to compare, puts back some of what the mean has lost.
"""

from __future__ import annotations

import random
from dataclasses import replace

import torch
from torch import Tensor

from mars5.codec import MelCodec
from mars5.config import N_CODEBOOKS
from mars5.nar.decode import Known, denoise, stack
from mars5.nar.diffusion import Schedule, cosine_schedule
from mars5.nar.estimate import Estimator
from mars5.nar.model import ResidualTransformer
from mars5.nar.settle import Settling
from mars5.nar.timbre import Timbre
from mars5.train.batching import Corpus
from mars5.train.tokens import Example

BATCH = 16


def settle_shard(
    model: ResidualTransformer, codec: MelCodec, corpus: Corpus, examples: list[Example], seed: int
) -> list[Tensor]:
    """(T, Q) codes for each example: its coarse ones, and those that settle on them in its timbre.

    Args:
        corpus: where other utterances of the speakers are, as references.
        seed: of the references and of the walk's first noise.
    """
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    schedule = cosine_schedule(model.dims.diffusion_steps)
    settling = Settling(len(schedule), codec.vector_table().unflatten(0, (N_CODEBOOKS, -1)))
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].codes))
    made: dict[int, Tensor] = {}
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        asked = [_asked(model, corpus, examples[i], rng) for i in chosen]
        plain = _settled(asked, schedule, settling, generator)
        for k, i in enumerate(chosen):
            timbre = _timbre(settling.books, plain[k], examples[i].codes.long(), codec.dims.n_mels)
            asked[k] = (replace(asked[k][0], timbre=timbre), asked[k][1])
        found = _settled(asked, schedule, settling, generator)
        made |= dict(zip(chosen, found, strict=True))
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


def _settled(
    asked: list[tuple[Estimator, Known]],
    schedule: Schedule,
    settling: Settling,
    generator: torch.Generator,
) -> list[Tensor]:
    """(T, Q) codes for each, after a single look."""
    *_, codes = denoise(*stack(asked), schedule, 1, 0, generator, settling)
    return [row[: known.codes.shape[1]] for row, (_, known) in zip(codes, asked, strict=True)]


def _timbre(books: Tensor, made: Tensor, real: Tensor, n_mels: int) -> Timbre:
    """What brings the sound of codes (T, Q) to that of others."""
    made_sound, real_sound = (
        sum((book[codes[:, q]] for q, book in enumerate(books)), books.new_zeros(()))
        .unflatten(1, (-1, n_mels))
        .flatten(0, 1)
        for codes in (made, real)
    )
    return Timbre.between(made_sound, real_sound, 1.0)

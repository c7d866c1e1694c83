"""Step 7: train the NAR model to find codebooks 1-7 from the coarse codes, the text and a voice.

A clean utterance is noised to a random step; the model is asked for the clean codes. Its estimate
is read as the belief from all *other* tokens (`mars5.nar.diffusion.strided_step`), so the evidence
of a token's own noisy value is added before the loss. Some rows put a second utterance of
the speaker in front, known in full, as a deep clone does.

Where codes settle at once (`mars5.nar.settle`), the first look is the only one, and what matters is
how near the expected sound is to the real one. So most rows are asked at the last step, and beside
the codes' cross-entropies that distance is a loss of its own.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor
from torch.nn import functional as F

from mars5.config import CODEBOOK_SIZE, N_CODEBOOKS
from mars5.nar.diffusion import Schedule, cosine_schedule, log_evidence
from mars5.nar.model import ResidualTransformer
from mars5.train.batching import Corpus, length_batches
from mars5.train.loop import Run

PAIR_SHARE = 0.1
DELIVERED_SHARE = 0.7  # of the examples that have another delivery too
# Clones are spoken by the own voice and converted (`mars5.conversion`): it is the one to know well.
SHARES = {"own": 0.75, "plain": 0.06, "pseudo": 0.06, "crowd": 0.08, "kokoro": 0.05}
SPEAKER_DROP = 0.1  # rows without a voice: what guidance subtracts
COARSE_NOISE = 0.04  # the AR's codes are not perfect either
# Real people are none of the teachers: what a voice is told by is made vague, so that one that was
# never met is still near to some that were. Both are the most; each row draws its own.
REFERENCE_NOISE = 0.1  # of the reference's codes
VOICE_NOISE = 0.3  # of the speaker vectors' spread over the batch
FIRST_LOOKS = 0.85  # of the rows
SOUND_WEIGHT = 3.0
# Of codebooks 1 to 7 in the loss: what is heard of a word lies in the first ones.
BOOK_WEIGHTS = (2.0, 1.5, 1.0, 0.75, 0.65, 0.6, 0.5)


@dataclass
class Batch:
    """Right-padded rows. `learned` (B, L, Q) marks the codes to find; the others are given."""

    text: Tensor
    text_lengths: Tensor
    reference: Tensor
    reference_lengths: Tensor
    codes: Tensor
    visible: Tensor
    learned: Tensor

    def to(self, device: torch.device) -> Batch:
        return Batch(*(tensor.to(device) for tensor in vars(self).values()))


@dataclass
class Row:
    text: list[int]
    reference: Tensor
    codes: Tensor
    n_given: int


class Batches:
    """Endless batches of about `frames` frames."""

    def __init__(self, corpus: Corpus, frames: int, seed: int) -> None:
        self.corpus, self.frames = corpus, frames
        self.rng = random.Random(seed)

    def __iter__(self) -> Iterator[Batch]:
        groups = length_batches(self._row, lambda row: len(row.codes), self.frames, self.rng)
        return map(_collate, groups)

    def _row(self) -> Row:
        *before, spoken = self.corpus.draw(self.rng, PAIR_SHARE)
        before = [self.corpus.recorded(part, self.rng) for part in before]
        parts = [*before, spoken]
        *given, last = (part.codes for part in parts)
        other = spoken.delivered
        if other is not None and self.rng.random() < DELIVERED_SHARE:
            last = other
        codes = torch.cat([*given, last]).long()
        n_given = len(codes) - len(last)
        reference = self.corpus.reference(parts, self.rng)
        return Row(self.corpus.framed(parts), reference, codes, n_given)


def _collate(rows: list[Row]) -> Batch:
    n = len(rows)
    frames = max(len(row.codes) for row in rows)
    text = torch.zeros(n, max(len(row.text) for row in rows), dtype=torch.long)
    reference = torch.zeros(n, max(len(row.reference) for row in rows), N_CODEBOOKS).long()
    codes = torch.zeros(n, frames, N_CODEBOOKS, dtype=torch.long)
    visible = torch.zeros(n, frames, dtype=torch.bool)
    learned = torch.zeros(n, frames, N_CODEBOOKS, dtype=torch.bool)
    for i, row in enumerate(rows):
        text[i, : len(row.text)] = torch.tensor(row.text)
        reference[i, : len(row.reference)] = row.reference
        codes[i, : len(row.codes)] = row.codes
        visible[i, : len(row.codes)] = True
        learned[i, row.n_given : len(row.codes), 1:] = True
    lengths = (torch.tensor([len(getattr(row, k)) for row in rows]) for k in ("text", "reference"))
    text_lengths, reference_lengths = lengths
    return Batch(text, text_lengths, reference, reference_lengths, codes, visible, learned)


def noised(
    batch: Batch, t: Tensor, schedule: Schedule, n_classes: int, generator: torch.Generator
) -> Tensor:
    """(B, L, Q) codes at steps t (B,): learned ones by the schedule, coarse ones slightly."""
    kept = schedule.log_cumprod_alpha[t].exp()[:, None, None]
    lose = torch.rand(batch.codes.shape, generator=generator) >= kept
    x = torch.where(
        lose & batch.learned,
        torch.randint(n_classes, batch.codes.shape, generator=generator),
        batch.codes,
    )
    wrong = torch.rand(x.shape[:2], generator=generator) < COARSE_NOISE
    other = torch.randint(CODEBOOK_SIZE, x.shape[:2], generator=generator)
    x[..., 0] = torch.where(wrong & batch.learned[..., 1], other, x[..., 0])
    return x


def noised_reference(codes: Tensor, generator: torch.Generator) -> Tensor:
    """(B, R, Q) reference codes, some of them replaced."""
    share = REFERENCE_NOISE * torch.rand(len(codes), 1, 1, generator=generator)
    lose = torch.rand(codes.shape, generator=generator) < share
    return torch.where(lose, torch.randint(CODEBOOK_SIZE, codes.shape, generator=generator), codes)


def vague_voices(model: ResidualTransformer, batch: Batch, generator: torch.Generator) -> Tensor:
    """(B, D) speaker vectors with noise in every direction; some rows get no voice."""
    n = len(batch.reference)
    speaker = model.speaker_vector(batch.reference, batch.reference_lengths)
    strength = VOICE_NOISE * torch.rand(n, 1, generator=generator)
    noise = strength * torch.randn(speaker.shape, generator=generator)
    spread = speaker.detach().std(0, unbiased=False)
    dropped = torch.rand(n, 1, generator=generator) < SPEAKER_DROP
    return torch.where(
        dropped.to(speaker.device),
        model.no_speaker_vector(1).to(speaker.dtype),
        speaker + noise.to(speaker) * spread,
    )


def drawn_steps(n: int, steps: int, generator: torch.Generator) -> Tensor:
    """(n,) int64 steps: many the last, of the others more noisy ones, where there is to learn."""
    t = (torch.rand(n, generator=generator).sqrt() * steps).long()
    t[torch.rand(n, generator=generator) < FIRST_LOOKS] = steps - 1
    return t.clamp(max=steps - 1)


def beliefs(
    model: ResidualTransformer,
    batch: Batch,
    speaker: Tensor,
    x: Tensor,
    t: Tensor,
    schedule: Schedule,
) -> Tensor:
    """(n_learned, K) logits of the clean codes, with speaker vectors (B, D) for the voices."""
    logits = model(batch.text, batch.text_lengths, speaker, x, t, batch.visible)
    evidence = log_evidence(t, schedule, model.dims.n_classes)[:, None, None]
    rows = logits[batch.learned].float()
    own = x[batch.learned][:, None]
    strength = evidence.expand(x.shape)[batch.learned][:, None]
    return rows.scatter_add(1, own, strength)


def surprise(rows: Tensor, batch: Batch) -> Tensor:
    """(7,) cross-entropies of codebooks 1 to 7, in nats, by the beliefs `rows`."""
    every = F.cross_entropy(rows, batch.codes[batch.learned], reduction="none")
    return every.unflatten(0, (-1, N_CODEBOOKS - 1)).mean(0)


def missed_sound(rows: Tensor, batch: Batch, books: Tensor) -> Tensor:
    """Share of the finer books' variance that their expected sum by the beliefs `rows` misses.

    Args:
        books: (Q, 1024, C) vectors of the codes.
    """
    levels = (-1, N_CODEBOOKS - 1)
    believed = rows[:, :CODEBOOK_SIZE].softmax(-1).unflatten(0, levels)
    codes = batch.codes[batch.learned].unflatten(0, levels)
    expected, real = rows.new_zeros(()), rows.new_zeros(())
    for q, book in enumerate(books[1:]):
        expected = expected + believed[:, q] @ book
        real = real + book[codes[:, q]]
    return F.mse_loss(expected, real) / (real - real.mean(0)).square().mean()


def train_nar(
    model: ResidualTransformer,
    run: Run,
    stream: Iterator[Batch],
    held_out: list[Batch],
    books: Tensor,
    device: torch.device,
    seed: int,
) -> None:
    """Train until the run's time is over; a line of figures every minute or so.

    Args:
        books: (Q, 1024, C) vectors of the codes.
    """
    generator = torch.Generator().manual_seed(seed + run.step)
    cpu_schedule = cosine_schedule(model.dims.diffusion_steps)
    schedule = cpu_schedule.to(device)
    weights = torch.tensor(BOOK_WEIGHTS, device=device) / sum(BOOK_WEIGHTS)
    for _ in run.steps():
        batch = next(stream)
        n = len(batch.codes)
        t = drawn_steps(n, len(schedule), generator)
        x = noised(batch, t, cpu_schedule, model.dims.n_classes, generator)
        batch.reference = noised_reference(batch.reference, generator)
        moved = batch.to(device)
        with torch.autocast(device.type, torch.bfloat16):
            speaker = vague_voices(model, moved, generator)
            rows = beliefs(model, moved, speaker, x.to(device), t.to(device), schedule)
            figures = {
                "loss": surprise(rows, moved) @ weights,
                "missed": missed_sound(rows, moved, books),
            }
        run.update(figures["loss"] + SOUND_WEIGHT * figures["missed"])
        run.seen += int(batch.learned[..., 1].sum())
        if run.tally(**{name: figure.item() for name, figure in figures.items()}):
            run.note(**evaluate(model, held_out, books, device))


@torch.no_grad()
def evaluate(
    model: ResidualTransformer, held_out: list[Batch], books: Tensor, device: torch.device
) -> dict[str, float]:
    """What the first look finds of held-out speech: nats per code, the share of sound missed."""
    schedule = cosine_schedule(model.dims.diffusion_steps).to(device)
    generator = torch.Generator().manual_seed(0)
    model.eval()
    found: list[Tensor] = []
    missed: list[float] = []
    for batch in held_out:
        t = torch.full((len(batch.codes),), len(schedule) - 1)
        x = noised(batch, t, schedule.to("cpu"), model.dims.n_classes, generator).to(device)
        moved = batch.to(device)
        speaker = model.speaker_vector(moved.reference, moved.reference_lengths)
        rows = beliefs(model, moved, speaker, x, t.to(device), schedule)
        found.append(surprise(rows, moved).cpu())
        missed.append(missed_sound(rows, moved, books).item())
    model.train()
    per_book = torch.stack(found).mean(0)
    figures = {"held_out": per_book.mean().item(), "unheard": fmean(missed)}
    return figures | {f"book{q}": per_book[q - 1].item() for q in (1, 2, 7)}

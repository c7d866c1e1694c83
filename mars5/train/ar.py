"""Step 6: train the AR model to continue text with L0 codes, in the library's own prompt layout.

What makes it learn on little compute: a low frame rate, short sentences, noise on the code history
(so that the text must be read), and for the first part of the run a guide: two heads of one layer
are rewarded for looking at the characters that are being said, which the teacher's phone times
tell. Two-sentence examples teach the deep clone, whose prompt holds the reference's own codes.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from mars5.ar.model import Block, CodecLM, SelfAttention
from mars5.config import N_CODEBOOKS, PAD_CODE
from mars5.layers import rotary_table
from mars5.tokenizers import SpeechTokenizer
from mars5.train.batching import Corpus, length_batches
from mars5.train.loop import Run
from mars5.train.tokens import Example

IGNORED = -100
PAIR_SHARE = 0.25
# Half of what it says is in the voice whose delivery clones keep.
SHARES = {"own": 0.5, "plain": 0.2, "pseudo": 0.12, "crowd": 0.12, "kokoro": 0.06}
GUIDED_LAYER, GUIDED_HEADS, GUIDE_WIDTH = 2, 2, 1.5
GUIDE_UNTIL = 0.5  # share of the run after which the guide is gone


@dataclass
class Batch:
    """Right-padded rows of a training step; the speaker vector is not counted in S.

    Attributes:
        ids: (B, S) joint ids. targets: (B, S), -100 where nothing is learned.
        reference: (B, R, Q) codes, padded with 1024.
        place: (B, S) text index said next, -1 where there is none.
        first_code: the joint id of code 0.
    """

    ids: Tensor
    targets: Tensor
    reference: Tensor
    place: Tensor
    first_code: int

    def to(self, device: torch.device) -> Batch:
        ids, targets, reference, place = (
            tensor.to(device) for tensor in (self.ids, self.targets, self.reference, self.place)
        )
        return Batch(ids, targets, reference, place, self.first_code)


@dataclass
class Row:
    """One training sequence: framed text, speech ids and the end token."""

    ids: list[int]
    n_text: int
    place: list[int]
    reference: Tensor


class Batches:
    """Endless batches of about `tokens` ids, of utterances of similar length."""

    def __init__(self, corpus: Corpus, speech: SpeechTokenizer, tokens: int, seed: int) -> None:
        self.corpus, self.speech, self.tokens = corpus, speech, tokens
        self.rng = random.Random(seed)

    def __iter__(self) -> Iterator[Batch]:
        groups = length_batches(self._row, lambda row: len(row.ids), self.tokens, self.rng)
        first_code = len(self.corpus.text)
        return (_collate(rows, first_code) for rows in groups)

    def _row(self) -> Row:
        parts = self.corpus.draw(self.rng, PAIR_SHARE)
        text = self.corpus.framed(parts)
        shift = len(self.corpus.text)
        codes = [c for part in parts for c in self.speech.encode(part.codes[:, 0].tolist())]
        ids = [*text, *(c + shift for c in codes), self.speech.end_id + shift]
        reference = self.corpus.reference(parts, self.rng)
        return Row(ids, len(text), self._places(parts, text), reference)

    def _places(self, parts: list[Example], text: list[int]) -> list[int]:
        """Index of the text id said at each speech id; the end token belongs to the text's end.

        Frames and speech ids coincide, because the speech tokenizer has no merges.
        """
        characters, offset = [], 0
        for part in parts:
            characters.append(offset + part.progress.float() * len(part.text))
            offset += len(part.text) + 1
        spans = torch.tensor([len(self.corpus.text.decode([t])) for t in text[1:-1]]).cumsum(0)
        place = torch.searchsorted(spans, torch.cat(characters), right=True) + 1
        return [*place.tolist(), len(text) - 1]


def _collate(rows: list[Row], first_code: int) -> Batch:
    longest = max(len(row.ids) for row in rows) - 1
    frames = max(len(row.reference) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    targets = torch.full((len(rows), longest), IGNORED)
    place = torch.full((len(rows), longest), -1)
    reference = torch.full((len(rows), frames, N_CODEBOOKS), PAD_CODE)
    for i, row in enumerate(rows):
        size = len(row.ids) - 1
        ids[i, :size] = torch.tensor(row.ids[:-1])
        targets[i, row.n_text - 1 : size] = torch.tensor(row.ids[row.n_text :])
        place[i, row.n_text - 1 : size] = torch.tensor(row.place)
        reference[i, : len(row.reference)] = row.reference
    return Batch(ids, targets, reference, place, first_code)


def add_noise(batch: Batch, share: float, generator: torch.Generator) -> Tensor:
    """(B, S) ids with `share` of the speech ids replaced by random codes."""
    ids, first = batch.ids, batch.first_code
    hit = (torch.rand(ids.shape, generator=generator) < share) & (ids >= first)
    noise = torch.randint(first, first + PAD_CODE, ids.shape, generator=generator)
    return torch.where(hit, noise, ids)


class Guide:
    """Watches one attention layer and scores where its first heads look."""

    def __init__(self, model: CodecLM) -> None:
        block = model.ar.layers[GUIDED_LAYER]
        if not isinstance(block, Block):  # for the type checker: a ModuleList forgets
            raise TypeError("not a block")
        self.attention: SelfAttention = block.attention
        self.input: Tensor | None = None
        self.head_dim = model.dims.head_dim
        self.handle: RemovableHandle = self.attention.register_forward_pre_hook(self._keep)

    def _keep(self, _module: SelfAttention, arguments: tuple[Tensor, ...]) -> None:
        self.input = arguments[0]

    def loss(self, batch: Batch) -> Tensor:
        """Mean over speech positions of -log(attention mass near the characters being said)."""
        if self.input is None:
            raise RuntimeError("the guide's layer has not run")
        positions = torch.arange(self.input.shape[1], device=self.input.device)
        rotary = rotary_table(positions, self.head_dim)
        q, k, _ = self.attention.queries_keys_values(self.input, rotary)
        q, k = q[:, :GUIDED_HEADS].float(), k[:, :GUIDED_HEADS].float()
        scores = q @ k.transpose(2, 3) / self.head_dim**0.5
        scores = scores.masked_fill(positions[:, None] < positions[None, :], -torch.inf)
        # Keys are shifted by one by the speaker vector; queries of dropped positions are cut.
        looks = scores.softmax(-1)[:, :, 1:, 1:]
        text = torch.arange(looks.shape[-1], device=looks.device)
        near = torch.exp(-(((text - batch.place[..., None]) / GUIDE_WIDTH) ** 2) / 2)
        mass = (looks * near[:, None]).sum(-1)
        spoken = (batch.place >= 0)[:, None].expand_as(mass)
        return -(mass[spoken] + 1e-6).log().mean()


def losses(model: CodecLM, batch: Batch, ids: Tensor) -> Tensor:
    """(rows' tokens,) cross-entropy in nats of every speech id."""
    logits = model(ids, model.speaker_vector(batch.reference))
    wanted = batch.targets != IGNORED
    return F.cross_entropy(logits[wanted].float(), batch.targets[wanted], reduction="none")


@torch.no_grad()
def evaluate(model: CodecLM, batches: list[Batch]) -> tuple[float, float]:
    """Nats per frame on held-out speech, and how many more with another row's text.

    The second figure tells whether the text is followed, which the loss alone hides.
    """
    model.eval()
    right, swapped = [], []
    for batch in batches:
        right.append(losses(model, batch, batch.ids))
        # Rolling by one row gives each row the text of another row of about the same length.
        other = torch.where(batch.place >= 0, batch.ids, batch.ids.roll(1, 0))
        swapped.append(losses(model, batch, other))
    model.train()
    loss = torch.cat(right).mean().item()
    return loss, torch.cat(swapped).mean().item() - loss


def train_ar(
    model: CodecLM,
    run: Run,
    stream: Iterator[Batch],
    held_out: list[Batch],
    device: torch.device,
    seed: int,
) -> None:
    """Train until the run's time is over; a line of figures every minute or so."""
    held_out = [batch.to(device) for batch in held_out]
    generator = torch.Generator().manual_seed(seed + run.step)
    guide = Guide(model)
    for _ in run.steps():
        batch = next(stream)
        noise = 0.3 * torch.rand((), generator=generator).item()
        ids = add_noise(batch, noise, generator)
        moved = batch.to(device)
        weight = max(0.0, 1.0 - run.progress / GUIDE_UNTIL)
        with torch.autocast(device.type, torch.bfloat16):
            loss = losses(model, moved, ids.to(device)).mean()
            total = loss + 0.3 * weight * guide.loss(moved) if weight else loss
        run.update(total)
        run.seen += int((batch.targets != IGNORED).sum())
        if run.tally(loss=loss.item(), guided=total.item() - loss.item()):
            held, gap = evaluate(model, held_out)
            run.note(held_out=held, text_gap=gap)

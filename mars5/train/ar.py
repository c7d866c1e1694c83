"""Step 4: train the AR model to continue text with L0 codes, in the library's own prompt layout.

What makes it learn on little compute: a low frame rate, short sentences, noise on the code history
(so that the text must be read), and for the first part of the run a guide: two heads of one layer
are rewarded for looking at the characters that are being said, which the teacher's phone times
tell. Two-sentence examples teach the deep clone, whose prompt holds the reference's own codes.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.hooks import RemovableHandle

from mars5.ar.model import CodecLM, SelfAttention
from mars5.config import PAD_CODE
from mars5.layers import rotary_table
from mars5.tokenizers import SpeechTokenizer, TextTokenizer
from mars5.train.loop import Run
from mars5.train.tokens import Example

IGNORED = -100
PAIR_SHARE = 0.25
REFERENCE_FRAMES = 110
GUIDED_LAYER, GUIDED_HEADS, GUIDE_WIDTH = 2, 2, 1.5
GUIDE_UNTIL = 0.5  # share of the run after which the guide is gone
POOL = 16  # batches sorted by length together


@dataclass
class Batch:
    """Right-padded rows of a training step; the speaker vector is not counted in S.

    Attributes:
        ids: (B, S) joint ids. targets: (B, S), -100 where nothing is learned.
        reference: (B, R, Q) codes, padded with 1024.
        place: (B, S) text index said next, -1 where there is none.
    """

    ids: Tensor
    targets: Tensor
    reference: Tensor
    place: Tensor


class Batches:
    """Endless batches of about `tokens` ids, of utterances of similar length."""

    def __init__(
        self, examples: list[Example], text: TextTokenizer, speech: SpeechTokenizer,
        tokens: int, seed: int,
    ) -> None:
        self.examples, self.text, self.speech = examples, text, speech
        self.tokens = tokens
        self.rng = random.Random(seed)
        self.by_speaker: dict[str, list[int]] = defaultdict(list)
        for index, example in enumerate(examples):
            self.by_speaker[example.speaker].append(index)
        self.encoded = [text.encode(e.text) for e in examples]

    def __iter__(self) -> Iterator[Batch]:
        while True:
            rows = [self.row() for _ in range(POOL * max(self.tokens // 128, 1))]
            rows.sort(key=lambda row: len(row[0]))
            batches, batch = [], []
            for row in rows:
                if batch and (len(batch) + 1) * len(row[0]) > self.tokens:
                    batches.append(batch)
                    batch = []
                batch.append(row)
            self.rng.shuffle(batches)
            yield from map(_collate, batches)

    def row(self) -> tuple[list[int], int, list[int], Tensor]:
        """Ids, length of the text part, place of each speech id, reference of one training row."""
        index = self.rng.randrange(len(self.examples))
        parts = [index]
        mates = self.by_speaker[self.examples[index].speaker]
        if self.rng.random() < PAIR_SHARE:
            parts.insert(0, self.rng.choice(mates))
        text, codes, place = self._joined(parts)
        shift = len(self.text)
        ids = text + [c + shift for c in codes] + [self.speech.end_id + shift]
        return ids, len(text), place, self._reference(parts, mates)

    def _joined(self, parts: list[int]) -> tuple[list[int], list[int], list[int]]:
        words = " ".join(self.examples[i].text for i in parts)
        tokens = self.text.encode(words)
        codes: list[int] = []
        characters: list[Tensor] = []
        offset = 0
        for i in parts:
            example = self.examples[i]
            codes += self.speech.encode(example.codes[:, 0].tolist())
            characters.append(offset + example.progress.float() * len(example.text))
            offset += len(example.text) + 1
        # Only single codes are used here (no merges), so frames and speech ids coincide.
        spans = torch.tensor([len(self.text.decode([t])) for t in tokens]).cumsum(0)
        place = torch.searchsorted(spans, torch.cat(characters), right=True).clamp(max=len(tokens))
        last = len(tokens) + 1  # the end of the text, looked at when the speech ends
        return (
            [self.text.start_id, *tokens, self.text.end_id],
            codes,
            [*(place + 1).tolist(), last],
        )

    def _reference(self, parts: list[int], mates: list[int]) -> Tensor:
        """Codes of the same speaker; in half of the pairs the first part, as in a deep clone."""
        if len(parts) > 1 and self.rng.random() < 0.5:
            return self.examples[parts[0]].codes.long()
        codes = self.examples[self.rng.choice(mates)].codes.long()
        start = self.rng.randrange(max(len(codes) - REFERENCE_FRAMES, 0) + 1)
        return codes[start : start + REFERENCE_FRAMES]


def _collate(rows: list[tuple[list[int], int, list[int], Tensor]]) -> Batch:
    longest = max(len(row[0]) for row in rows) - 1
    frames = max(len(row[3]) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    targets = torch.full((len(rows), longest), IGNORED)
    place = torch.full((len(rows), longest), -1)
    reference = torch.full((len(rows), frames, rows[0][3].shape[1]), PAD_CODE)
    for i, (row, n_text, places, codes) in enumerate(rows):
        size = len(row) - 1
        ids[i, :size] = torch.tensor(row[:-1])
        targets[i, n_text - 1 : size] = torch.tensor(row[n_text:])
        place[i, n_text - 1 : size] = torch.tensor(places)
        reference[i, : len(codes)] = codes
    return Batch(ids, targets, reference, place)


def add_noise(batch: Batch, n_text: int, share: float, generator: torch.Generator) -> Tensor:
    """(B, S) ids with `share` of the speech ids replaced by random codes."""
    ids = batch.ids
    hit = (torch.rand(ids.shape, generator=generator) < share) & (ids >= n_text)
    noise = torch.randint(n_text, n_text + PAD_CODE, ids.shape, generator=generator)
    return torch.where(hit, noise, ids)


class Guide:
    """Watches one attention layer and scores where its first heads look."""

    def __init__(self, model: CodecLM) -> None:
        self.attention = model.ar.layers[GUIDED_LAYER].attention
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
    model: CodecLM, run: Run, batches: Batches, held_out: list[Batch],
    device: torch.device, seed: int,
) -> None:
    """Train until the run's time is over; a line of figures every minute or so."""
    n_text = len(batches.text)
    generator = torch.Generator().manual_seed(seed + run.step)
    guide = Guide(model)
    noted = run.seconds
    sums: defaultdict[str, float] = defaultdict(float)
    stream = iter(batches)
    for _ in run.steps():
        batch = next(stream)
        noise = 0.3 * torch.rand((), generator=generator).item()
        ids = add_noise(batch, n_text, noise, generator)
        moved = Batch(*(t.to(device) for t in vars(batch).values()))
        weight = max(0.0, 1.0 - run.progress / GUIDE_UNTIL)
        with torch.autocast(device.type, torch.bfloat16):
            loss = losses(model, moved, ids.to(device)).mean()
            total = loss + 0.3 * weight * guide.loss(moved) if weight else loss
        run.update(total)
        run.seen += int((batch.targets != IGNORED).sum())
        sums["steps"] += 1
        sums["loss"] += loss.item()
        sums["guided"] += total.item() - loss.item()
        if run.seconds - noted > 60:
            noted = run.seconds
            held, gap = evaluate(model, held_out)
            steps = sums.pop("steps")
            run.note(**{k: v / steps for k, v in sums.items()}, held_out=held, text_gap=gap)
            sums.clear()

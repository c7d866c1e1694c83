"""What the trainings draw, hide and score, on a handful of examples."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import torch

from mars5.ar.model import CodecLM
from mars5.config import ARDims, NARDims
from mars5.nar.diffusion import cosine_schedule
from mars5.nar.model import ResidualTransformer
from mars5.tokenizers import TextTokenizer
from mars5.train import ar, nar
from mars5.train.batching import ROOM_SHARE, Corpus
from mars5.train.bpe import train_speech, train_text
from mars5.train.judges import Judges
from mars5.train.rooms import in_a_room
from mars5.train.tokens import Example


def _toy_corpus(text: TextTokenizer) -> Corpus:
    return Corpus({"plain": _examples()}, text, {"plain": 1.0})


def _examples(text: str = "ab cd") -> list[Example]:
    generator = torch.Generator().manual_seed(5)
    return [
        Example(text, "x", *torch.randint(1024, (2, n, 8), generator=generator).short(),
                torch.linspace(0, 1, n).half())
        for n in (10, 12, 14)
    ]  # fmt: skip


def test_ar_rows_hold_text_then_speech_then_the_end() -> None:
    text, speech = train_text(["ab cd"], 0), train_speech([], 0)
    batches = ar.Batches(_toy_corpus(text), speech, 200, seed=1)
    batch = next(iter(batches))
    shift, end = len(text), len(text) + speech.end_id
    for ids, targets, place in zip(batch.ids, batch.targets, batch.place, strict=True):
        learned = targets[targets >= 0]
        assert learned[-1] == end
        assert (learned[:-1] >= shift).all()
        start = int((targets >= 0).nonzero()[0])
        assert ids[start] == text.end_id
        assert torch.equal(ids[start + 1 : start + len(learned)], learned[:-1])
        looked = place[place >= 0]
        assert len(looked) == len(learned)
        assert looked[-1] == start  # the end token looks at the end of the text


def test_noise_replaces_speech_only() -> None:
    text, speech = train_text(["ab cd"], 0), train_speech([], 0)
    batch = next(iter(ar.Batches(_toy_corpus(text), speech, 400, seed=1)))
    noisy = ar.add_noise(batch, 1.0, torch.Generator().manual_seed(0))
    is_text = batch.ids < len(text)
    assert torch.equal(noisy[is_text], batch.ids[is_text])
    assert (noisy[~is_text] >= len(text)).all()
    assert not torch.equal(noisy[~is_text], batch.ids[~is_text])


def test_guide_rewards_looking_at_the_right_text() -> None:
    torch.manual_seed(0)
    text, speech = train_text(["ab cd"], 0), train_speech([], 0)
    model = CodecLM(ARDims(len(text) + len(speech), 32, 2, 3, 48, 1, 64))
    batch = next(iter(ar.Batches(_toy_corpus(text), speech, 400, seed=1)))
    guide = ar.Guide(model)
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    values = []
    for _ in range(30):
        model(batch.ids, model.speaker_vector(batch.reference))
        loss = guide.loss(batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        values.append(loss.item())
    assert values[-1] < 0.5 * values[0]


def test_nar_noise_leaves_what_is_known() -> None:
    text = train_text(["ab cd"], 0)
    batch = next(iter(nar.Batches(_toy_corpus(text), 400, seed=2)))
    schedule = cosine_schedule(200)
    t = torch.full((len(batch.codes),), 199)
    x = nar.noised(batch, t, schedule, 1025, torch.Generator().manual_seed(0))
    given = ~batch.learned
    given[..., 0] = False  # the coarse codes of the new speech are slightly noised
    assert torch.equal(x[given], batch.codes[given])
    assert (x[batch.learned] != batch.codes[batch.learned]).float().mean() > 0.95
    clean = nar.noised(batch, torch.zeros_like(t), schedule, 1025, torch.Generator())
    assert (clean[batch.learned] == batch.codes[batch.learned]).float().mean() > 0.95


def test_most_rows_are_asked_at_the_first_look() -> None:
    t = nar.drawn_steps(4000, 200, torch.Generator().manual_seed(0))
    assert t.min() >= 0
    first, late = (t == 199), (t >= 100)
    assert abs(first.float().mean() - nar.FIRST_LOOKS) < 0.03
    assert abs(late[~first].float().mean() - 0.75) < 0.05  # of uniform numbers' roots


def test_missed_sound_is_the_share_of_variance_not_expected() -> None:
    text = train_text(["ab cd"], 0)
    batch = next(iter(nar.Batches(_toy_corpus(text), 400, seed=2)))
    books = torch.randn(8, 1024, 6, generator=torch.Generator().manual_seed(0))
    codes = batch.codes[batch.learned]
    sure = torch.zeros(len(codes), 1025).scatter_(1, codes[:, None], 99.0)
    assert nar.missed_sound(sure, batch, books) < 1e-6
    ignorant = torch.zeros(len(codes), 1025, requires_grad=True)
    missed = nar.missed_sound(ignorant, batch, books)
    assert abs(missed - 1) < 0.15  # the mean of all codes is about that of those spoken
    missed.backward()
    better = ignorant.detach() - 1e3 * ignorant.grad
    assert nar.missed_sound(better, batch, books) < missed
    coarse = books.clone()
    coarse[0] += 5.0  # is given, and no matter
    assert nar.missed_sound(better, batch, coarse) == nar.missed_sound(better, batch, books)


def test_noised_references_keep_most_codes() -> None:
    codes = torch.full((64, 50, 8), 1024)  # of no book: whatever differs was replaced
    noisy = nar.noised_reference(codes, torch.Generator().manual_seed(0))
    replaced = (noisy != codes).float().mean((1, 2))
    assert replaced.max() < nar.REFERENCE_NOISE + 0.05
    assert abs(replaced.mean() - nar.REFERENCE_NOISE / 2) < 0.02
    assert noisy[noisy != codes].max() < 1024


def test_vague_voices_lie_around_the_voices() -> None:
    torch.manual_seed(0)
    text = train_text(["ab cd"], 0)
    model = ResidualTransformer(NARDims(len(text), 1025, 32, 2, 1, 1, 1, 48, 16))
    batch = next(iter(nar.Batches(_toy_corpus(text), 400, seed=2)))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        clean = model.speaker_vector(batch.reference, batch.reference_lengths)
        drawn = torch.stack([nar.vague_voices(model, batch, generator) for _ in range(400)])
        nobody = model.no_speaker_vector(1)
    left_out = (drawn == nobody).all(-1)
    assert abs(left_out.float().mean() - nar.SPEAKER_DROP) < 0.03
    off = torch.where(left_out[..., None], 0, drawn - clean)
    spread = clean.std(0, unbiased=False)
    assert (off.mean((0, 1)).abs() < 0.1 * spread).all()
    strength = (off / spread).square().mean().sqrt() / (1 - nar.SPEAKER_DROP) ** 0.5
    assert abs(strength - nar.VOICE_NOISE / 3**0.5) < 0.03


def test_judges_learn_what_is_real() -> None:
    torch.manual_seed(0)
    judges = Judges()
    real = torch.sin(torch.arange(8192) * torch.rand(4, 1))
    made = 0.3 * torch.randn(4, 8192)
    optimiser = torch.optim.Adam(judges.parameters(), 3e-3)
    losses = []
    for _ in range(12):
        loss = judges.loss(made, real)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    unreal, unlike = judges.verdict(made, real)
    none, nothing = judges.verdict(real, real)
    assert unreal > none
    assert unlike > nothing == 0


def test_a_verdict_teaches_the_vocoder_alone() -> None:
    torch.manual_seed(0)
    judges = Judges()
    said = torch.randn(1, 4096, requires_grad=True)
    sum(judges.verdict(said, torch.randn(1, 4096))).backward()
    assert said.grad is not None
    assert said.grad.abs().sum() > 0
    assert all(p.grad is None and p.requires_grad for p in judges.parameters())
    judges.loss(said, torch.randn(1, 4096)).backward()
    assert all(p.grad is not None for p in judges.parameters())


def test_a_room_adds_a_tail_and_noise(speechlike: np.ndarray) -> None:
    click = np.zeros(24_000, dtype=np.float32)
    click[2_000] = 1.0
    for seed in range(8):
        heard = in_a_room(click, np.random.default_rng(seed))
        assert heard.shape == click.shape
        assert abs(int(np.abs(heard).argmax()) - 2_000) < 10  # without delay, narrow or not
        late = np.square(heard[2_100:6_000]).mean()
        assert late > np.square(heard[20_000:]).mean() > 0
    one, same = (in_a_room(speechlike, np.random.default_rng(1)) for _ in range(2))
    assert np.array_equal(one, same)
    assert 0.5 < np.square(one).mean() / np.square(speechlike).mean() < 2


def test_references_are_often_in_rooms() -> None:
    examples = [replace(e, roomy=e.codes + 1) for e in _examples()]
    corpus = Corpus({"plain": examples}, train_text(["ab cd"], 0), {"plain": 1.0})
    rng = random.Random(0)
    drawn = [corpus.reference([examples[0]], rng) for _ in range(300)]
    clean = {tuple(e.codes[0].tolist()) for e in examples}
    roomy = sum(tuple(codes[0].tolist()) not in clean for codes in drawn)
    assert abs(roomy / 300 - ROOM_SHARE) < 0.1
    given = nar.Batches(corpus, 400, seed=2)
    rows = [given._row() for _ in range(200)]
    starts = [tuple(row.codes[0].tolist()) in clean for row in rows if row.n_given]
    assert 0.3 < sum(starts) / len(starts) < 0.7  # what is given of a deep clone, too
    assert all(tuple(row.codes[row.n_given].tolist()) in clean for row in rows)

"""Parallel codes: other voices upon the coarse codes of the checkpoint's own."""

from __future__ import annotations

from itertools import combinations_with_replacement, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mars5.codec import MelCodec, MelCodecDims
from mars5.train import delivery, nar
from mars5.train.batching import Corpus
from mars5.train.bpe import train_text
from mars5.train.tokens import Example, read_examples


@pytest.fixture(scope="module")
def codec() -> MelCodec:
    codec = MelCodec(MelCodecDims(stack=2, rank=4, n_mels=12, n_fft=512))
    generator = torch.Generator().manual_seed(3)
    codec.projection.copy_(torch.randn(codec.projection.shape, generator=generator) / 5)
    codec.codebooks.copy_(torch.randn(codec.codebooks.shape, generator=generator))
    return codec


def _noise(samples: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-9000, 9000, samples).astype(np.int16)


def test_alignment_is_the_best_of_all_paths() -> None:
    generator = torch.Generator().manual_seed(1)
    wanted, other = (torch.randn(n, 3, generator=generator) for n in (4, 5))
    found = delivery.aligned(wanted, other)
    one, two = wanted - wanted.mean(0), other - other.mean(0)
    costs = torch.cdist(one, two).square()

    def cost(path: tuple[int, ...]) -> float:
        return sum(costs[i, j].item() for i, j in enumerate(path))

    paths = [p for p in combinations_with_replacement(range(5), 4) if p[-1] == 4 and p[0] < 4]
    paths = [p for p in paths if all(b - a < 4 for a, b in pairwise(p))]
    assert tuple(found.tolist()) == min(paths, key=cost)


def test_alignment_follows_a_change_of_pace() -> None:
    other = torch.randn(30, 8, generator=torch.Generator().manual_seed(2))
    path = torch.tensor([0, 0, 1, 2, 5, 6, 6, 6, 9, 10, 12, 15, 18, 20, 21, 24, 26, 28, 29, 29])
    assert torch.equal(delivery.aligned(other[path], other), path)


def test_a_voice_too_short_to_follow_ends_where_it_can() -> None:
    found = delivery.aligned(torch.zeros(2, 3), torch.zeros(40, 3))
    assert len(found) == 2
    assert found.max() < 2 * delivery.STEPS


def test_delivered_codes_stand_upon_the_own_voice(codec: MelCodec) -> None:
    wanted, own = _noise(9000, 1), _noise(8000, 2)
    codes = delivery.delivered(codec, wanted, own)
    coarse = codec.encode(torch.from_numpy(own).float()[None] / 32768)[0, :, 0]
    assert len(codes) == len(codec.encode(torch.from_numpy(wanted).float()[None])[0])
    assert set(codes[:, 0].tolist()) <= set(coarse.tolist())
    features = codec.features(torch.from_numpy(wanted).float()[None] / 32768)[0]
    rest = features - codec.codebooks[0][codes[:, 0]]
    assert torch.equal(codes[:, 1], torch.cdist(rest, codec.codebooks[1]).argmin(1))


def test_the_own_voice_upon_itself_is_what_it_is(codec: MelCodec) -> None:
    own = _noise(9000, 4)
    encoded = codec.encode(torch.from_numpy(own).float()[None] / 32768)[0]
    assert torch.equal(delivery.delivered(codec, own, own), encoded)


def test_the_nar_learns_both_ways_of_saying_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(5)
    shard = tmp_path / "tokens.safetensors"
    true, other = (torch.randint(1024, (22, 8), generator=generator).short() for _ in range(2))
    entries = '[{"text": "ab", "speaker": "x", "frames": 10}, {"text": "cd", "speaker": "x", '
    facts = {"utterances": entries + '"frames": 12}]'}
    save_file({"codes": true, "progress": torch.zeros(22).half()}, shard, facts)
    (tmp_path / "delivered").mkdir()
    save_file({"codes": other}, tmp_path / "delivered" / shard.name)
    examples = read_examples([shard], tmp_path / "delivered")
    assert torch.equal(examples[1].codes, true[10:])
    assert examples[1].delivered is not None
    assert torch.equal(examples[1].delivered, other[10:])
    assert all(example.delivered is None for example in read_examples([shard]))
    for share, expected in ((0.0, "codes"), (1.0, "delivered")):
        monkeypatch.setattr(nar, "DELIVERED_SHARE", share)
        _check_rows(examples, expected)


def _check_rows(examples: list[Example], expected: str) -> None:
    """What is to be found is the expected one; what is given of a pair is always the true one."""
    corpus = Corpus({"plain": examples}, train_text(["ab cd"], 0), {"plain": 1.0})
    batch = next(iter(nar.Batches(corpus, 400, seed=1)))
    for codes, learned, visible in zip(batch.codes, batch.learned, batch.visible, strict=True):
        last = codes[learned[:, 1]].tolist()
        assert last in [getattr(example, expected).tolist() for example in examples]
        given = codes[visible & ~learned[:, 1]].tolist()
        assert not given or given in [example.codes.tolist() for example in examples]

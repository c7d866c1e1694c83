"""Parallel codes: other voices upon the coarse codes of the checkpoint's own."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mars5.codec import MelCodec, MelCodecDims
from mars5.train import delivery, nar
from mars5.train.batching import Corpus
from mars5.train.bpe import train_text
from mars5.train.teachers import Phones
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


def _spoken(samples: int, seed: int, *phones: tuple[str, float]) -> tuple[np.ndarray, Phones]:
    return _noise(samples, seed), list(phones)


def test_phones_are_matched_across_alphabets_and_what_only_one_has_is_passed_over() -> None:
    kokoro = [("pau", 0.1), ("s", 0.3), ("u", 0.5), ("l", 0.6), ("pau", 0.7)]
    flite = [("pau", 0.2), ("s", 0.3), ("y", 0.35), ("uw", 0.4), ("l", 0.9), ("pau", 1.0)]
    there, here = delivery.matching_times(kokoro, flite)
    assert there == [0.0, 0.1, 0.3, 0.5, 0.6, 0.7]
    assert here == [0.0, 0.2, 0.3, 0.4, 0.9, 1.0]


def test_matching_times_rise_even_where_phones_last_no_time() -> None:
    one = [("pau", 0.0), ("a", 0.2), ("b", 0.2), ("c", 0.5)]
    two = [("pau", 0.1), ("a", 0.1), ("b", 0.3), ("c", 0.4)]
    for times in delivery.matching_times(one, two):
        assert all(b > a for a, b in pairwise(times))


def test_nothing_in_common_is_played_from_the_start() -> None:
    assert delivery.matching_times([("a", 1.0)], [("b", 2.0)]) == ([0.0], [0.0])


def test_delivered_codes_stand_upon_the_own_voice_and_last_as_long(codec: MelCodec) -> None:
    wanted = _spoken(9000, 1, ("a", 0.2), ("b", 0.375))
    own = _spoken(8000, 2, ("a", 0.1), ("b", 0.333))
    features, coarse = delivery.delivered(codec, wanted, own)
    codes = codec.quantise(features, coarse)[0]
    assert torch.equal(codes[:, 0], codec.encode(_wave(own))[0, :, 0])
    rest = features[0] - codec.codebooks[0][codes[:, 0]]
    assert torch.equal(codes[:, 1], torch.cdist(rest, codec.codebooks[1]).argmin(1))


def test_phones_are_moved_to_where_the_own_voice_says_them(codec: MelCodec) -> None:
    """Twice as slow in the first half, and as fast in the second."""
    rate = codec.frame_rate * codec.dims.stack
    pcm = _noise(12_000, 3)
    slow = ([("a", 0.2), ("b", 0.5)], [("a", 0.4), ("b", 0.7)])
    features, _ = delivery.delivered(codec, (pcm, slow[0]), (_noise(16_800, 4), slow[1]))
    mel = codec.log_mel(codec.levelled(_wave((pcm, []))))
    whole = codec.project(mel)[0]
    shift = round(0.2 * rate / codec.dims.stack)  # frames by which the second half comes later
    assert torch.allclose(features[0, 2 * shift + 1 : 17], whole[shift + 1 : 17 - shift], atol=1e-4)


def test_the_own_voice_upon_itself_is_what_it_is(codec: MelCodec) -> None:
    own = _spoken(9600, 4, ("a", 0.2), ("b", 0.4))
    codes = codec.quantise(*delivery.delivered(codec, own, own))
    assert torch.equal(codes, codec.encode(_wave(own)))


def _wave(spoken: tuple[np.ndarray, Phones]) -> torch.Tensor:
    return torch.from_numpy(spoken[0]).float()[None] / 32768


def test_the_nar_learns_both_ways_of_saying_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(5)
    shard = tmp_path / "tokens.safetensors"
    true, roomy, other = (
        torch.randint(1024, (n, 8), generator=generator).short() for n in (22, 22, 25)
    )
    entries = '[{"text": "ab", "speaker": "x", "frames": 10}, {"text": "cd", "speaker": "x", '
    facts = {"utterances": entries + '"frames": 12}]'}
    save_file({"codes": true, "roomy": roomy, "progress": torch.zeros(22).half()}, shard, facts)
    (tmp_path / "delivered").mkdir()
    lengths = {"frames": "[14, 11]"}
    save_file({"codes": other}, tmp_path / "delivered" / shard.name, lengths)
    examples = read_examples([shard], tmp_path / "delivered")
    assert torch.equal(examples[1].codes, true[10:])
    assert torch.equal(examples[1].roomy, roomy[10:])
    assert examples[1].delivered is not None
    assert torch.equal(examples[1].delivered, other[14:])
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

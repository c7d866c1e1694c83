"""The AR model's cache and its loop: cached equals uncached, the ring, when and how it stops."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mars5 import InferenceConfig
from mars5.ar.decode import generate_ids
from mars5.ar.model import CodecLM, KVCache
from mars5.ar.sampling import Vocabulary
from mars5.config import ARDims

DIMS = ARDims(40, 32, 2, 3, 48, 1, 64)
VOCABULARY = Vocabulary(10, 39)
PLAIN = InferenceConfig(top_k=0, top_p=1.0, freq_penalty=0, presence_penalty=0, temperature=1.0)
PROMPT = torch.tensor([[1, 2, 3, 4, 5]])


def build(sliding_window: int = 3000) -> CodecLM:
    """Random, the same weights every time; loud enough that attention matters."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = CodecLM(replace(DIMS, sliding_window=sliding_window)).requires_grad_(False)
        for parameter in model.ar.layers.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
    return model.eval()


MODEL = build()
SPEAKER = torch.randn(1, DIMS.dim, generator=torch.Generator().manual_seed(1))
IDS = torch.randint(0, 40, (1, 70), generator=torch.Generator().manual_seed(2))


def stepped(model: CodecLM, n_prefill: int, n: int, slots: int) -> Tensor:
    """Logits (n - n_prefill + 1, V) after each id from the last of the prompt on, by a cache."""
    cache = KVCache(model.dims, slots)
    for memory in (cache.keys, cache.values):
        memory.fill_(torch.nan)  # slots never written must never be read
    rows = [model.next_logits(IDS[:, :n_prefill], SPEAKER, cache)]
    rows += [model.next_logits(IDS[:, i : i + 1], None, cache) for i in range(n_prefill, n)]
    assert cache.length == n + 1
    return torch.cat(rows)


# ---------------------------------------------------------------- the cache


@pytest.mark.parametrize("n_prefill", [1, 2, 7, 32, 69])
@pytest.mark.parametrize("slots", [71, 200])
def test_cached_equals_uncached(n_prefill: int, slots: int) -> None:
    found = stepped(MODEL, n_prefill, 70, slots)
    wanted = MODEL(IDS, SPEAKER)[0, n_prefill - 1 :]
    torch.testing.assert_close(found, wanted, rtol=0, atol=2e-5)
    # One length at a time as well: what the uncached loop computes.
    for n in range(n_prefill, 71, 9):
        alone = MODEL.next_logits(IDS[:, :n], SPEAKER)
        torch.testing.assert_close(
            found[n - n_prefill : n - n_prefill + 1], alone, rtol=0, atol=2e-5
        )


@pytest.mark.parametrize("window", [4, 8, 33])
def test_beyond_the_window_a_cached_query_sees_one_position_less(window: int) -> None:
    """W positions with itself; an uncached one of a model with the window W sees W + 1."""
    n_prefill = window - 2
    found = stepped(build(window), n_prefill, 70, slots=500)
    same = build(window - 1)(IDS, SPEAKER)[0, n_prefill - 1 :]
    torch.testing.assert_close(found, same, rtol=0, atol=2e-5)
    wider = build(window)(IDS, SPEAKER)[0, n_prefill - 1 :]
    torch.testing.assert_close(found[:2], wider[:2], rtol=0, atol=2e-5)  # still within the window
    # The speaker vector is the first to fall out of sight, and from there on all rows differ.
    assert ((found - wider).abs().amax(1)[2:] > 1e-3).all()


@pytest.mark.parametrize("chunks", [[1] * 23, [5, 1, 1, 1, 1, 1, 1], [8], [19], [3, 9, 2], [20, 1]])
def test_ring(chunks: list[int]) -> None:
    """Position p lives in slot p mod slots, the newest wins, and nothing else is touched."""
    dims = replace(DIMS, sliding_window=8)
    cache = KVCache(dims, 100)
    assert cache.slots == 8
    assert KVCache(dims, 5).slots == 5
    for count in chunks:
        positions = torch.arange(cache.length, cache.length + count).float()
        written = positions[None, None, :, None].expand(1, dims.n_heads, -1, dims.head_dim)
        assert cache.filled(count) == min(cache.length + count, 8)
        cache.write(1, written, -written)
        cache.length += count
    wanted = [
        max((p for p in range(cache.length) if p % 8 == slot), default=0) for slot in range(8)
    ]
    assert cache.keys[1, 0, 0, :, 0].tolist() == wanted
    assert torch.equal(cache.values[1], -cache.keys[1])
    assert not cache.keys[[0, 2]].any()


def test_logits_of_half_precision_are_float32() -> None:
    half = build().to(torch.bfloat16)
    assert half.next_logits(PROMPT, SPEAKER).dtype == torch.float32


def test_padding_of_a_reference_does_not_matter() -> None:
    codes = torch.randint(0, 1024, (2, 9, 8), generator=torch.Generator().manual_seed(3))
    codes[1, 6, 0] = 1024  # ends the second reference, whatever follows
    both = MODEL.speaker_vector(codes)
    for found, alone in zip(both, (codes[:1], codes[1:, :6]), strict=True):
        torch.testing.assert_close(found, MODEL.speaker_vector(alone)[0], rtol=0, atol=1e-5)


# ---------------------------------------------------------------- the loop


def generate(cfg: InferenceConfig, seed: int = 1, model: CodecLM = MODEL) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return list(generate_ids(model, PROMPT, SPEAKER, VOCABULARY, cfg, None, generator))


@pytest.mark.parametrize("limit", [6, 7, 30])
def test_stops_at_the_limit(limit: int) -> None:
    cfg = replace(PLAIN, generate_max_len_override=limit)
    found = [generate(cfg, seed) for seed in range(6)]
    for ids in found:
        assert ids[-1] == VOCABULARY.end or len(ids) == limit - PROMPT.shape[1]
        assert VOCABULARY.end not in ids[:-1]
        assert all(VOCABULARY.first_allowed <= i <= VOCABULARY.end for i in ids)
    assert any(len(ids) == limit - 5 for ids in found)


def test_stops_at_the_end_token() -> None:
    cfg = replace(PLAIN, generate_max_len_override=500)
    lengths = {len(generate(cfg, seed)) for seed in range(4)}
    assert len(lengths) > 1
    assert all(generate(cfg, seed)[-1] == VOCABULARY.end for seed in range(4))


@pytest.mark.parametrize("limit", [2, 4, 5])
def test_a_prompt_at_the_limit_gives_nothing(limit: int) -> None:
    assert generate(replace(PLAIN, generate_max_len_override=limit)) == []


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_the_cache_does_not_change_what_is_drawn(temperature: float) -> None:
    cfg = replace(PLAIN, temperature=temperature, generate_max_len_override=90)
    for seed in range(4):
        plain = generate(replace(cfg, use_kv_cache=False), seed)
        assert generate(cfg, seed) == plain


def test_greedy_is_deterministic_and_takes_the_likeliest() -> None:
    cfg = replace(PLAIN, temperature=0.0, top_k=7, top_p=0.3, generate_max_len_override=40)
    found = generate(cfg, seed=1)
    assert found == generate(cfg, seed=2)
    ids = PROMPT
    for token in found:
        logits = MODEL.next_logits(ids, SPEAKER)
        logits[:, : VOCABULARY.first_allowed] = -torch.inf
        assert token == int(logits.argmax())
        ids = torch.cat([ids, torch.tensor([[token]])], 1)
    assert len(set(found)) > 1


def test_steps_are_made_as_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    fed: list[int] = []
    original = CodecLM.next_logits

    def counted(
        self: CodecLM, ids: Tensor, speaker: Tensor | None, cache: KVCache | None
    ) -> Tensor:
        fed.append(ids.shape[1])
        return original(self, ids, speaker, cache)

    monkeypatch.setattr(CodecLM, "next_logits", counted)
    cfg = replace(PLAIN, generate_max_len_override=60)
    steps = generate_ids(MODEL, PROMPT, SPEAKER, VOCABULARY, cfg)
    assert fed == []
    for _ in range(3):
        next(steps)
    assert fed == [5, 1, 1]
    steps.close()
    assert list(steps) == []
    uncached = generate_ids(MODEL, PROMPT, SPEAKER, VOCABULARY, replace(cfg, use_kv_cache=False))
    for _ in range(3):
        next(uncached)
    assert fed == [5, 1, 1, 5, 6, 7]


def test_closing_early_leaves_nothing_behind() -> None:
    cfg = replace(PLAIN, generate_max_len_override=60)
    wanted = generate(cfg)
    generator = torch.Generator().manual_seed(1)
    steps = generate_ids(MODEL, PROMPT, SPEAKER, VOCABULARY, cfg, None, generator)
    assert [next(steps), next(steps)] == wanted[:2]
    assert not torch.is_inference_mode_enabled(), "between the steps the mode is the caller's"
    steps.close()
    assert not torch.is_inference_mode_enabled()
    assert generate(cfg) == wanted


def test_prompt_and_speaker_are_not_changed() -> None:
    prompt, speaker = PROMPT.clone(), SPEAKER.clone()
    generate(replace(PLAIN, generate_max_len_override=30))
    assert torch.equal(prompt, PROMPT)
    assert torch.equal(speaker, SPEAKER)

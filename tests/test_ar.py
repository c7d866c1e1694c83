"""The AR model's cache and its loop: cached equals uncached, the ring, when and how it stops."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mars5 import InferenceConfig, Mars5TTS
from mars5.ar.decode import Request, generate_ids, generate_many
from mars5.ar.model import CodecLM, KVCache
from mars5.ar.sampler import Sampler
from mars5.ar.sampling import Noise, Vocabulary, draw, next_token_probabilities
from mars5.ar.steps import Rows, fused, lay_side_by_side
from mars5.config import ARDims
from mars5.errors import ConfigError
from mars5.layers import Attention, Gate
from mars5.quantized import Int8Linear, is_quantized, quantize_linears

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
    fed: list[object] = []
    step, prefill, plain = Rows.step, Rows.prefill, CodecLM.next_logits
    monkeypatch.setattr(Rows, "step", lambda *a: (fed.append("step"), step(*a))[1])
    monkeypatch.setattr(Rows, "prefill", lambda *a: (fed.append(a[2].shape[1]), prefill(*a))[1])
    monkeypatch.setattr(
        CodecLM, "next_logits", lambda *a: (fed.append(a[1].shape[1]), plain(*a))[1]
    )
    cfg = replace(PLAIN, generate_max_len_override=60)
    steps = generate_ids(MODEL, PROMPT, SPEAKER, VOCABULARY, cfg)
    assert fed == []
    for _ in range(3):
        next(steps)
    assert fed == [4, "step", "step", "step"]  # the prompt's last id goes with the first step
    steps.close()
    assert list(steps) == []
    uncached = generate_ids(MODEL, PROMPT, SPEAKER, VOCABULARY, replace(cfg, use_kv_cache=False))
    for _ in range(3):
        next(uncached)
    assert fed[4:] == [5, 6, 7]


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


# ---------------------------------------------------------------- static rows


@pytest.mark.parametrize("window", [6, 9, 3000])
def test_rows_equal_the_model_with_a_cache(window: int) -> None:
    """Two rows of different lengths, begun at different times, through the ring and beyond."""
    model = build(window)
    rows = Rows(model, 2, limit=40)
    rows.memory.fill_(torch.nan)
    rows.memory[:, :, :, :, 0] = 0  # a row not in use looks at its first slot
    starts, n_prefill = (0, 5), (3, 2)
    found: list[list[Tensor]] = [[], []]
    for step in range(30):
        for row in (0, 1):
            if step == starts[row]:
                rows.prefill(row, IDS[:, : n_prefill[row]], SPEAKER)
                rows.memory[:, :, row].nan_to_num_(0)
        at = [n_prefill[row] + step - starts[row] for row in (0, 1)]
        fed = torch.stack([IDS[0, max(i, 0)] for i in at])
        logits = rows.step(fed, min(max(at) + 2, rows.slots))
        for row in (0, 1):
            if step >= starts[row]:
                found[row].append(logits[row])
                rows.lengths[row] += 1
    for row in (0, 1):
        wanted = stepped(model, n_prefill[row], n_prefill[row] + len(found[row]), slots=40)[1:]
        torch.testing.assert_close(torch.stack(found[row]), wanted, rtol=0, atol=2e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])  # by columns, by rows
def test_laying_weights_side_by_side_changes_nothing_but_their_place(dtype: torch.dtype) -> None:
    model, plain = build().to(dtype), build().to(dtype)
    attention = model.ar.layers[0].attention
    linears = [attention.wq, attention.wk, attention.wv]
    x = torch.randn(2, DIMS.dim, dtype=dtype)
    before = fused(linears)(x)
    lay_side_by_side(model)
    assert len({linear.weight.untyped_storage().data_ptr() for linear in linears}) == 1
    assert attention.wq.weight.is_contiguous() == (dtype != torch.float32)
    torch.testing.assert_close(fused(linears)(x), before)
    for (name, one), (other_name, other) in zip(
        model.state_dict().items(), plain.state_dict().items(), strict=True
    ):
        assert name == other_name
        assert torch.equal(one, other)


@pytest.mark.parametrize("window", [0, 1, 4, 50])
@pytest.mark.parametrize("estimate", [None, 0, 6, 100])
def test_the_sampler_equals_the_rule_over_the_history(window: int, estimate: int | None) -> None:
    cfg = InferenceConfig(rep_penalty_window=window, top_k=12, top_p=0.8, freq_penalty=0.7)
    sampler = Sampler(VOCABULARY, 40, cfg, 2, 30, torch.device("cpu"))
    generator = torch.Generator().manual_seed(9)
    for row in (0, 1):
        sampler.reset(row, estimate)
    history = torch.zeros((2, 0), dtype=torch.long)
    for _ in range(20):
        logits = torch.randn((2, 40), generator=generator) * 2
        noise = torch.empty(2, 40).exponential_(generator=generator)
        wanted = next_token_probabilities(logits, history, estimate, VOCABULARY, cfg)
        assert torch.equal(sampler.probabilities(logits), wanted)
        ids = sampler.draw(logits, noise)
        assert torch.equal(ids, draw(wanted, noise)[:, 0])
        history = torch.cat([history, ids[:, None]], 1)


def test_noise_is_what_multinomial_draws_and_can_be_given_back() -> None:
    probabilities = torch.rand(6, 1796, generator=torch.Generator().manual_seed(5)).softmax(-1)
    one, other = (torch.Generator().manual_seed(3) for _ in range(2))
    noise = Noise(1796, one)
    found = draw(probabilities, noise.draw(6))[:, 0]
    wanted = [torch.multinomial(p[None], 1, generator=other).item() for p in probabilities]
    assert found.tolist() == wanted
    noise.draw(6)
    noise.give_back(2)
    for _ in range(2):
        torch.empty(1796).exponential_(generator=other)
    assert torch.equal(one.get_state(), other.get_state())


@pytest.mark.parametrize("ahead", [1, 3, 8])
@pytest.mark.parametrize("rows", [1, 2, 3])
def test_many_sequences_draw_what_each_draws_alone(
    rows: int, ahead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also their generators end in the same state, however many ids were drawn ahead."""
    cfg = replace(PLAIN, generate_max_len_override=40, freq_penalty=0.3)
    alone, states = [], []
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        prompt = PROMPT[:, : 1 + seed]
        alone.append(
            list(generate_ids(MODEL, prompt, SPEAKER, VOCABULARY, cfg, 5 * seed, generator))
        )
        states.append(generator.get_state())
    assert len({len(ids) for ids in alone}) > 2
    monkeypatch.setattr("mars5.ar.steps.EagerSteps.ahead", ahead)
    generators = [torch.Generator().manual_seed(seed) for seed in range(5)]
    requests = [
        Request(PROMPT[0, : 1 + i].tolist(), SPEAKER, 5 * i, g) for i, g in enumerate(generators)
    ]
    found: list[list[int]] = [[] for _ in requests]
    for drawn in generate_many(MODEL, requests, VOCABULARY, cfg, rows):
        found[drawn.index] += drawn.ids
    assert found == alone
    for generator, state in zip(generators, states, strict=True):
        assert torch.equal(generator.get_state(), state)


# ---------------------------------------------------------------- int8


def test_int8_is_near() -> None:
    rounded = build()
    quantize_linears(rounded.ar)
    assert isinstance(rounded.ar.layers[0].attention.wq, Int8Linear)
    wanted, found = MODEL(IDS, SPEAKER), rounded(IDS, SPEAKER)
    error = (found - wanted).norm() / wanted.norm()
    assert 1e-4 < error < 0.12  # the tiny model is loud: of nano's logits it is 0.04
    assert generate(replace(PLAIN, generate_max_len_override=30), model=rounded)


def test_an_int8_layer_with_a_bias_and_a_row_of_zeros() -> None:
    linear = torch.nn.Linear(16, 4)
    linear.weight.data[2] = 0
    x = torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(1))
    rounded = Int8Linear(linear.weight, linear.bias)
    torch.testing.assert_close(rounded(x), linear(x).detach(), rtol=0, atol=0.05)
    torch.testing.assert_close(rounded(x[:1]), rounded(x)[:1])
    one = x[:1, :1]  # by itself rounded between its own ends
    torch.testing.assert_close(rounded(one), linear(one).detach(), rtol=0, atol=0.05)


def test_quantize_switch(tiny_folder: Path, speechlike: np.ndarray) -> None:
    system = Mars5TTS.from_pretrained(tiny_folder, device="cpu", quantize="int8")
    assert isinstance(system.ar.ar.output, Int8Linear)
    assert isinstance(system.nar.residual_decoder[0][1], Int8Linear)
    for model in (system.ar, system.nar):
        assert not is_quantized(model.spk_encoder)  # a voice is the same
    for stack in (system.nar.tfm.encoder, system.nar.tfm.decoder):
        kinds = {type(part) for part in stack.modules()}
        assert not kinds & {torch.nn.Linear, Attention, Gate}
    assert system.generate("ab", speechlike, seed=1).audio.isfinite().all()


@pytest.mark.parametrize(
    "options",
    [{"quantize": "int4"}, {"dtype": torch.float16}, {"dtype": torch.bfloat16}],
)
def test_quantize_is_refused_where_it_cannot_be(tiny_folder: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="quantize"):
        Mars5TTS.from_pretrained(tiny_folder, device="cpu", **{"quantize": "int8", **options})

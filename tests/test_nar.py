"""The NAR model and its two denoising loops: batches, padding, known codes, steps, last class."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import tiny_config, write_tiny_model
from torch import Tensor

from mars5.config import PAD_CODE, NARDims, PromptConvention
from mars5.nar import estimate
from mars5.nar.decode import (
    Known,
    denoise,
    denoise_exact,
    denoise_strided,
    stack,
    strided_grid,
)
from mars5.nar.diffusion import cosine_schedule
from mars5.nar.estimate import Ahead, Estimator
from mars5.nar.graph import GraphedDecoder
from mars5.nar.model import FLOAT32_PARTS, Grid, ResidualTransformer
from mars5.quantized import quantize_linears

DIMS = NARDims(20, dim=32, n_heads=2, n_enc_layers=1, n_dec_layers=2, n_spk_layers=1, ff_dim=48,
               t_emb_dim=16)  # fmt: skip
SCHEDULE = cosine_schedule(12)

Law = Callable[..., Iterator[Tensor]]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def build() -> ResidualTransformer:
    """Random, the same weights every time."""
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return ResidualTransformer(DIMS).requires_grad_(False).eval()


MODEL = build()
TEXT = torch.randint(0, 20, (2, 6), generator=seeded(1))
TEXT_LENGTHS = torch.tensor([6, 4])
SPEAKER = torch.randn(2, 32, generator=seeded(2))
CODES = torch.randint(0, 1025, (2, 9, 8), generator=seeded(3))
LENGTHS = [9, 5]  # of the two items of the batch
VISIBLE = torch.arange(9) < torch.tensor(LENGTHS)[:, None]
COARSE = torch.randint(0, 1024, (2, 9), generator=seeded(4))
REFERENCE = torch.randint(0, 1024, (2, 3, 8), generator=seeded(5))


def estimator(item: int | None = None, **changes: Any) -> Estimator:
    """Of the whole batch, or of one item alone and without padding."""
    if item is None:
        given = (TEXT, TEXT_LENGTHS, SPEAKER, 3.0, 0.7, VISIBLE)
    else:
        n = int(TEXT_LENGTHS[item])
        rows = slice(item, item + 1)
        given = (TEXT[rows, :n], TEXT_LENGTHS[rows], SPEAKER[rows], 3.0, 0.7, None)
    return replace(Estimator(MODEL, *given), **changes)


def last(steps: Iterator[Tensor]) -> Tensor:
    *_, codes = steps
    return codes


def count_calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The (rows, step) of every pass through the decoder."""
    calls: list[tuple[int, int]] = []
    original, decode = Estimator.__call__, ResidualTransformer.decode
    steps: list[int] = []

    def called(self: Estimator, x: Tensor, t: int) -> Tensor:
        steps.append(t)
        return original(self, x, t)

    def decoded(self: ResidualTransformer, x: Tensor, *args: Any) -> Tensor:
        calls.append((len(x), steps[-1]))
        return decode(self, x, *args)

    monkeypatch.setattr(Estimator, "__call__", called)
    monkeypatch.setattr(ResidualTransformer, "decode", decoded)
    return calls


# ---------------------------------------------------------------- the network


def test_batched_equals_single() -> None:
    both = estimator()(CODES, 5)
    assert both.shape == (2, 9, 8, 1025)
    for item, length in enumerate(LENGTHS):
        alone = estimator(item)(CODES[item : item + 1, :length], 5)
        torch.testing.assert_close(both[item, :length], alone[0], rtol=0, atol=1e-4)


def test_padding_does_not_matter() -> None:
    wanted = estimator()(CODES, 5)
    codes, text = CODES.clone(), TEXT.clone()
    codes[1, 5:] = 7
    text[1, 4:] = 3
    found = estimator(text=text)(codes, 5)
    assert torch.equal(found[VISIBLE], wanted[VISIBLE])
    codes[1, 4] = (codes[1, 4] + 1) % 1025  # a frame that is there does matter
    assert not torch.equal(estimator()(codes, 5)[1, :4], wanted[1, :4])


def test_padding_of_a_reference_does_not_matter() -> None:
    lengths = torch.tensor([9, 5])
    wanted = MODEL.speaker_vector(CODES, lengths)
    codes = CODES.clone()
    codes[1, 5:] = PAD_CODE
    assert torch.equal(MODEL.speaker_vector(codes, lengths), wanted)
    alone = MODEL.speaker_vector(CODES[1:, :5], lengths[1:])
    torch.testing.assert_close(wanted[1:], alone, rtol=0, atol=1e-5)


def test_guidance() -> None:
    """w * conditional + (1 - w) * unconditional, then the temperature, normalised."""
    given = TEXT, TEXT_LENGTHS
    t = torch.tensor([5, 5])
    with_speaker = MODEL(*given, SPEAKER, CODES, t, VISIBLE)
    without = MODEL(*given, MODEL.no_speaker_vector(2), CODES, t, VISIBLE)
    assert not torch.allclose(with_speaker, without)
    wanted = ((2.5 * with_speaker - 1.5 * without) / 0.5).log_softmax(-1)
    found = estimator(guidance=2.5, temperature=0.5)(CODES, 5)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)
    torch.testing.assert_close(found.exp().sum(-1), torch.ones(2, 9, 8))
    plain = estimator(guidance=1.0, temperature=1.0)(CODES, 5)
    torch.testing.assert_close(plain, with_speaker.log_softmax(-1), rtol=0, atol=1e-4)


def test_both_passes_of_guidance_are_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = count_calls(monkeypatch)
    estimator()(CODES, 5)
    estimator(guidance=1.0)(CODES, 5)
    assert calls == [(4, 5), (2, 5)]


# ---------------------------------------------------------------- both laws


@pytest.fixture(params=["exact", "strided"])
def law(request: pytest.FixtureRequest) -> Law:
    def exact(*args: Any, **options: Any) -> Iterator[Tensor]:
        return denoise_exact(*args, **{"q0_override_steps": 3, **options})

    def strided(*args: Any, **options: Any) -> Iterator[Tensor]:
        return denoise_strided(*args, 4, **{"q0_override_steps": 3, **options})

    return {"exact": exact, "strided": strided}[request.param]


def test_known_codes_come_out_as_given(law: Law) -> None:
    for known in (Known.from_coarse(COARSE), Known.from_coarse(COARSE, REFERENCE)):
        codes = last(law(replace(estimator(), visible=None), known, SCHEDULE, generator=seeded(1)))
        n_reference = codes.shape[1] - 9
        assert torch.equal(codes[:, n_reference:, 0], COARSE)
        assert torch.equal(codes[:, :n_reference], REFERENCE[:, :n_reference])
        # The rest is drawn, not copied from the level that is known.
        assert (codes[:, n_reference:, 1:] != COARSE[..., None]).float().mean() > 0.9


class _FondOfPadding(ResidualTransformer):
    """Nearly sure that everything is class 1024."""

    def decode(self, *args: Any) -> Tensor:
        logits = super().decode(*args)
        logits[..., PAD_CODE] += 20
        return logits


def fond_of_padding() -> Estimator:
    model = _FondOfPadding(DIMS).requires_grad_(False).eval()
    model.load_state_dict(MODEL.state_dict())
    return estimator(model=model, guidance=1.0)


def test_padding_never_comes_out(law: Law) -> None:
    steps = list(law(fond_of_padding(), Known.from_coarse(COARSE), SCHEDULE, generator=seeded(1)))
    assert (steps[-2][..., 1:] == PAD_CODE).float().mean() > 0.5, "there is nothing to keep out"
    assert steps[-1].max() < PAD_CODE
    assert steps[-1].min() >= 0


def test_padding_comes_out_only_if_it_is_allowed() -> None:
    options = {"q0_override_steps": 3, "generator": seeded(1), "allow_padding": True}
    known = Known.from_coarse(COARSE)
    codes = last(denoise_exact(fond_of_padding(), known, SCHEDULE, **options))
    assert (codes[..., 1:] == PAD_CODE).float().mean() > 0.9


def test_a_generator_repeats_and_nothing_is_changed(law: Law) -> None:
    known = Known.from_coarse(COARSE, REFERENCE)
    frames = estimator(visible=None)
    kept = known.codes.clone(), known.mask.clone(), torch.get_rng_state()
    one = list(law(frames, known, SCHEDULE, generator=seeded(1)))
    other = list(law(frames, known, SCHEDULE, generator=seeded(1)))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert not torch.equal(one[-1], last(law(frames, known, SCHEDULE, generator=seeded(2))))
    assert torch.equal(known.codes, kept[0])
    assert torch.equal(known.mask, kept[1])
    assert torch.equal(torch.get_rng_state(), kept[2])
    torch.manual_seed(1)
    assert torch.equal(one[-1], last(law(frames, known, SCHEDULE)))


def test_steps_are_made_as_they_are_asked_for(law: Law, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = count_calls(monkeypatch)
    steps = law(estimator(), Known.from_coarse(COARSE), SCHEDULE, generator=seeded(1))
    assert not calls
    next(steps)
    next(steps)
    assert len(calls) == 2
    assert not torch.is_inference_mode_enabled()
    steps.close()
    assert len(calls) == 2


def test_coarse_codes_are_shown_without_noise_above_the_override(
    law: Law, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: dict[int, Tensor] = {}
    original = Estimator.__call__
    monkeypatch.setattr(
        Estimator, "__call__", lambda self, x, t: (shown.update({t: x}), original(self, x, t))[1]
    )
    known = Known.from_coarse(COARSE)
    last(law(estimator(), known, SCHEDULE, q0_override_steps=5, generator=seeded(1)))
    above = [t for t in shown if t >= 5]  # what they read was drawn at a step above 5
    assert above
    assert all(torch.equal(shown[t][..., 0], COARSE) for t in above)
    shown.clear()
    last(law(estimator(), known, SCHEDULE, q0_override_steps=12, generator=seeded(1)))
    first, *later = sorted(shown, reverse=True)
    assert torch.equal(shown[first][..., 0], COARSE)
    assert all(not torch.equal(shown[t][..., 0], COARSE) for t in later if t > 5)


@pytest.mark.parametrize("with_reference", [False, True])
def test_a_batch_is_denoised_like_its_items(law: Law, with_reference: bool) -> None:
    """Rows of other text, reference and length, each with its own generator."""
    items = []
    for item, length in enumerate(LENGTHS):
        reference = REFERENCE[item : item + 1, : 3 - item] if with_reference else None
        items.append(
            (estimator(item), Known.from_coarse(COARSE[item : item + 1, :length], reference))
        )
    both = list(law(*stack(items), SCHEDULE, generator=[seeded(1), seeded(2)]))
    for row, (one, known) in enumerate(items):
        alone = list(law(one, known, SCHEDULE, generator=seeded(1 + row)))
        length = known.codes.shape[1]
        assert len(both) == len(alone)
        assert all(torch.equal(a[row, :length], b[0]) for a, b in zip(both, alone, strict=True))
        assert (both[-1][row, length:] == 0).all()


def test_any_code_may_be_known(law: Law) -> None:
    """A prefix spoken before, a gap to fill, single codes: what is known comes out as it was."""
    mask = torch.rand(2, 9, 8, generator=seeded(6)) < 0.4
    mask[:, :2] = mask[:, 7:] = True
    mask[0, 4] = False
    codes = CODES.clamp(max=1023)
    known = Known(codes, mask)
    found = last(law(replace(estimator(), visible=None), known, SCHEDULE, generator=seeded(1)))
    assert torch.equal(found[mask], codes[mask])
    assert (found[~mask] != codes[~mask]).float().mean() > 0.9
    nothing = Known(codes, torch.ones_like(mask))
    found = last(law(replace(estimator(), visible=None), nothing, SCHEDULE, generator=seeded(1)))
    assert torch.equal(found, codes)


# ---------------------------------------------------------------- what is computed ahead


def plain_estimate(one: Estimator, x: Tensor, t: int) -> Tensor:
    """Two separate passes, everything from the start: the slow oracle."""
    given = one.text, one.text_lengths
    at = torch.full((len(x),), t)
    logits = one.model(*given, one.speaker, x, at, one.visible)
    if one.guidance != 1:
        without = one.model(*given, one.model.no_speaker_vector(len(x)), x, at, one.visible)
        logits = one.guidance * logits + (1 - one.guidance) * without
    return (logits / one.temperature).log_softmax(-1)


GRID = Grid(torch.tensor([0, 0, 1]), torch.tensor([2, 8, 0]), [1, 2, 6])


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("at_once", [1, 40, 10_000])
def test_ahead_equals_the_plain_estimate(
    guidance: float, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimate, "AHEAD_ROWS", at_once)
    one = estimator(guidance=guidance)
    whole, part = one.ahead([11, 7, 2, 0]), one.ahead([11, 7, 2, 0], GRID)
    for t in (11, 7, 2, 7, 0):  # once back up
        wanted = plain_estimate(one, CODES, t)
        torch.testing.assert_close(one(CODES, t), wanted, rtol=0, atol=2e-5)
        torch.testing.assert_close(whole(CODES, t), wanted, rtol=0, atol=2e-5)
        torch.testing.assert_close(part(CODES, t), GRID.take(wanted), rtol=0, atol=2e-5)


def test_conditions_are_computed_some_steps_at_a_time() -> None:
    asked: list[list[int]] = []

    def compute(steps: Any) -> Any:
        asked.append(list(steps))
        return list(steps)

    ahead = Ahead(compute, [9, 7, 5, 3], 3)
    assert [ahead(t) for t in (9, 7, 5, 3)] == [9, 7, 5, 3]
    assert asked == [[9, 7, 5], [3]]


def test_a_grid_takes_and_puts() -> None:
    taken = GRID.take(CODES)
    assert torch.equal(taken[1], CODES[0, 8, [1, 2, 6]])
    changed = GRID.put(CODES, taken + 1)
    assert torch.equal(GRID.take(changed), taken + 1)
    assert int((changed != CODES).sum()) == taken.numel()


def test_logits_are_made_for_unknown_codes_only(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []
    decode = ResidualTransformer.decode

    def decoded(self: ResidualTransformer, *args: Any) -> Tensor:
        logits = decode(self, *args)
        shapes.append(tuple(logits.shape))
        return logits

    monkeypatch.setattr(ResidualTransformer, "decode", decoded)
    known = Known.from_coarse(COARSE, REFERENCE)
    last(denoise(replace(estimator(), visible=None), known, SCHEDULE, 2, 3, seeded(1)))
    assert shapes == [(2 * 18, 7, 1025)] * 2  # 9 frames of 12, 7 codebooks of 8


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_near(dtype: torch.dtype) -> None:
    model = build()
    for name, parameter in model.named_parameters():
        if not any(part in name for part in FLOAT32_PARTS):
            parameter.data = parameter.to(dtype)
    with torch.no_grad():
        near = estimator(model=model, guidance=1.0)(CODES, 5)
    wanted = estimator(guidance=1.0)(CODES, 5)
    assert near.dtype == torch.float32
    assert not torch.equal(near, wanted)
    torch.testing.assert_close(near, wanted, rtol=0, atol=0.05)


def test_frames_left_out_are_frames_not_seen() -> None:
    """At their own positions, those that stay get what they get beside masked ones."""
    one, shown = estimator(0, guidance=1.0), torch.tensor([0, 1, 5, 6, 7, 8])
    seen = torch.zeros(1, 9, dtype=torch.bool)
    seen[:, shown] = True
    wanted = replace(one, visible=seen)(CODES[:1], 5)[:, shown]
    for decode in (None, GraphedDecoder(MODEL, lambda run, _: run)):
        few = replace(one, positions=shown, decode=decode)
        torch.testing.assert_close(few(CODES[:1, shown], 5), wanted, rtol=0, atol=1e-5)
        known = Known.from_coarse(COARSE[:1, shown])
        found, plain = (
            last(denoise(replace(few, decode=each), known, SCHEDULE, 4, 3, seeded(1)))
            for each in (decode, None)
        )
        assert torch.equal(found, plain)
    assert not torch.allclose(one(CODES[:1, shown], 5), wanted, atol=1e-3)


# ---------------------------------------------------------------- int8


def rounded_model() -> ResidualTransformer:
    model = build()
    quantize_linears(model.tfm)
    quantize_linears(model.residual_decoder)
    return model


def test_int8_is_near() -> None:
    near, wanted = (estimator(model=model)(CODES, 5) for model in (rounded_model(), MODEL))
    difference = (near - wanted).abs()[VISIBLE]
    assert 1e-4 < difference.max() < 0.15  # without guidance a fifth of it
    found, exact = (
        last(denoise(estimator(model=model), Known.from_coarse(COARSE), SCHEDULE, 12, 3, seeded(1)))
        for model in (rounded_model(), MODEL)
    )
    assert (found == exact)[VISIBLE].float().mean() > 0.9


def test_loud_rows_of_an_int8_batch_do_not_drown_others() -> None:
    """What stands beside a row, however large, is no matter to its rounding."""
    layer = rounded_model().tfm.decoder.layers[0].linear2
    x = torch.randn(8, 48, generator=seeded(6))
    loud = torch.cat([x, 1000 * x])
    torch.testing.assert_close(layer(loud)[:8], layer(x), rtol=0, atol=1e-5)


# ---------------------------------------------------------------- graphs, their bookkeeping


def test_graphs_change_nothing(law: Law) -> None:
    """Without the capture: padded to a bucket, tensors used again, sizes kept apart."""
    captured = 0

    def eager(run: Any, _: torch.device) -> Any:
        nonlocal captured
        captured += 1
        return run

    decoder = GraphedDecoder(MODEL, eager)
    both = [estimator(0, text=TEXT[:1, :n], text_lengths=torch.tensor([n])) for n in (6, 3)]
    for one, length in ((both[0], 9), (both[1], 5), (both[0], 4)):
        known = Known.from_coarse(COARSE[:1, :length])
        wanted = last(law(one, known, SCHEDULE, generator=seeded(1)))
        found = last(law(replace(one, decode=decoder), known, SCHEDULE, generator=seeded(1)))
        assert torch.equal(found, wanted)
    assert captured == 1
    batch = [(one, Known.from_coarse(COARSE[:1, :7])) for one in both]
    generators = [[seeded(1), seeded(2)] for _ in range(2)]
    joint, known = stack(batch)
    wanted = last(law(joint, known, SCHEDULE, generator=generators[0]))
    found = last(law(replace(joint, decode=decoder), known, SCHEDULE, generator=generators[1]))
    assert torch.equal(found, wanted)
    assert captured == 2
    assert copy.deepcopy(decoder).model is not MODEL


def test_long_speech_needs_no_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mars5.nar.graph.MAX_FRAMES", 8)
    decoder = GraphedDecoder(MODEL, lambda *_: pytest.fail("captured"))
    one = estimator(0, decode=decoder)
    last(denoise(one, Known.from_coarse(COARSE[:1]), SCHEDULE, 2, 3, seeded(1)))


# ---------------------------------------------------------------- steps


@pytest.mark.parametrize("visited", [1, 2, 5, 11, 12])
def test_visited_steps_are_honoured(visited: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = count_calls(monkeypatch)
    steps = denoise(estimator(), Known.from_coarse(COARSE), SCHEDULE, visited, 3, seeded(1))
    assert len(list(steps)) == visited
    grid = strided_grid(12, visited)[:-1] if visited < 12 else list(range(11, -1, -1))
    assert calls == [(4, t) for t in grid]


def test_all_steps_are_the_exact_law() -> None:
    given = estimator(), Known.from_coarse(COARSE), SCHEDULE
    options: dict[str, Any] = {"q0_override_steps": 3}
    found = last(denoise(*given, 12, 3, seeded(1)))
    assert torch.equal(found, last(denoise_exact(*given, **options, generator=seeded(1))))
    strided = last(denoise_strided(*given, 12, **options, generator=seeded(1)))
    assert not torch.equal(found, strided)
    fewer = last(denoise(*given, 11, 3, seeded(1)))
    assert torch.equal(fewer, last(denoise_strided(*given, 11, **options, generator=seeded(1))))


def test_timesteps_of_the_settings(
    tiny: Any, speechlike: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mars5 import InferenceConfig

    voice = tiny.voice(speechlike)
    calls = count_calls(monkeypatch)
    for timesteps in (1, 7, 200):
        calls.clear()
        cfg = InferenceConfig(timesteps=timesteps, deep_clone=False, generate_max_len_override=20)
        tiny.generate("hello", voice, cfg=cfg, seed=1)
        assert len(calls) == timesteps


def test_the_reference_may_be_shown_once(
    tmp_path: Path, speechlike: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R + N frames instead of 2R + N, for a checkpoint that was made to see it twice."""
    from mars5 import InferenceConfig, Mars5TTS

    config = replace(tiny_config(), prompt=PromptConvention(drop_first=False))
    system = Mars5TTS.from_pretrained(write_tiny_model(tmp_path, config), device="cpu")
    voice = system.voice(speechlike, "hello")
    lengths: list[int] = []
    decode = ResidualTransformer.decode
    monkeypatch.setattr(
        ResidualTransformer,
        "decode",
        lambda self, x, *args: (lengths.append(x.shape[1]), decode(self, x, *args))[1],
    )
    cfg = InferenceConfig(timesteps=1, generate_max_len_override=120)
    speeches = [
        system.generate("he", voice, cfg=replace(cfg, show_reference_once=once), seed=1)
        for once in (False, True)
    ]
    n_reference, n_new = len(voice.codes), len(speeches[0].codes)
    assert lengths == [2 * n_reference + n_new, n_reference + n_new]
    assert torch.equal(speeches[0].codes[:, 0], speeches[1].codes[:, 0])

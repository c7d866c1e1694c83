"""The denoising loops: from noise and known codes to all codebooks.

Two laws share one estimate of the clean codes: the exact one visits every step of the schedule,
the strided one visits as many as it is told to. Both are generators of the codes at each step, so
that a caller can show progress or stop.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from mars5.config import N_CODEBOOKS, PAD_CODE
from mars5.errors import GenerationError
from mars5.nar.diffusion import (
    Schedule,
    log_onehot,
    posterior,
    q_pred,
    q_pred_one_step,
    q_pred_one_step_scaled,
    sample,
    strided_step,
)
from mars5.nar.draws import Draws, Source
from mars5.nar.estimate import Estimator, stack_estimators
from mars5.nar.model import Grid
from mars5.nar.settle import Settling, clean_posterior, settled


@dataclass(frozen=True)
class Known:
    """Codes that are given, at the positions where `mask` is true (inpainting).

    Any code of any frame may be given: L0 of new speech, all of a reference in front of it, all of
    what was spoken before, all around a gap.

    Attributes:
        codes: (B, L, Q) int64; arbitrary where unknown.
        mask: (B, L, Q) bool.
    """

    codes: Tensor
    mask: Tensor

    @classmethod
    def from_coarse(cls, l0: Tensor, reference: Tensor | None = None) -> Known:
        """L0 codes (B, L) of the utterance, after all codes of the reference (B, R, Q) if given."""
        codes = l0[..., None].expand(-1, -1, N_CODEBOOKS)
        mask = torch.zeros_like(codes, dtype=torch.bool)
        mask[..., 0] = True
        if reference is not None:
            codes = torch.cat([reference, codes], 1)
            mask = torch.cat([torch.ones_like(reference, dtype=torch.bool), mask], 1)
        return cls(codes, mask)

    def unknown(self) -> Grid:
        """The frames in which something is unknown, and the codebooks of which something is."""
        rows, frames = (~self.mask).any(-1).nonzero(as_tuple=True)
        levels = (~self.mask).flatten(0, 1).any(0).nonzero()[:, 0].tolist()
        return Grid(rows, frames, levels or [0])


def stack(items: Sequence[tuple[Estimator, Known]]) -> tuple[Estimator, Known]:
    """One batch of several, of any lengths of text, reference and speech.

    Rows are padded at the end; the padding counts as known, and comes out as code 0. With a
    generator for each row, `denoise` gives each row what it gets alone, up to rounding. Model,
    guidance and temperature are those of the first and must be the same in all.
    """
    lengths = [known.codes.shape[1] for _, known in items]
    codes, mask = [], []
    for (_, known), length in zip(items, lengths, strict=True):
        missing = (0, 0, 0, max(lengths) - length)
        codes.append(F.pad(known.codes, missing))
        mask.append(F.pad(known.mask, missing, value=True))
    estimator = stack_estimators([one for one, _ in items], lengths)
    return estimator, Known(torch.cat(codes), torch.cat(mask))


@dataclass(frozen=True)
class Resampling:
    """RePaint jumps: at each multiple of `length`, go back up that many steps `times` - 1 times.

    Attributes:
        progressive: noise that rises along the positions.
        dtype: of the plain variant's kernel and random numbers.
    """

    length: int = 1
    times: int = 1
    progressive: bool = False
    dtype: torch.dtype = torch.float32


def visiting_order(steps: int, jump_len: int = 1, jump_n_sample: int = 1) -> list[int]:
    """The time steps in the order of the walk, from `steps` - 1 to the clean end -1."""
    jumps = dict.fromkeys(range(0, steps - jump_len, jump_len), jump_n_sample - 1)
    t, order = steps, []
    while t >= 1:
        t -= 1
        order.append(t)
        if jumps.get(t, 0) > 0:
            jumps[t] -= 1
            for _ in range(jump_len):
                t += 1
                order.append(t)
    return [*order, -1]


def strided_grid(schedule_steps: int, visited: int) -> list[int]:
    """`visited` steps spread evenly over the schedule, first the noisiest, then the end -1."""
    spread = [round(schedule_steps - 1 - i * schedule_steps / visited) for i in range(visited)]
    return [*spread, -1]


def steps_made(schedule_steps: int, visited: int, settle_step: int = 0) -> list[int]:
    """The steps at which the network is asked: those visited, up to the one that settles all."""
    visits = strided_grid(schedule_steps, visited)[:-1]
    drawn = sum(t >= settle_step for t in visits)
    return visits[: drawn + 1]


def initial_codes(known: Known, n_classes: int, draws: Draws) -> Tensor:
    """Known codes where given, uniform noise elsewhere; drawn for frames not known in full."""
    fresh = ~known.mask.all(-1)
    books = known.codes.shape[2]
    shapes = [(count, books) for count in fresh.sum(1).tolist()]
    noise = known.codes.clone()
    noise[fresh] = draws.integers(n_classes, shapes)
    return torch.where(known.mask, known.codes, noise)


def denoise(
    estimator: Estimator,
    known: Known,
    schedule: Schedule,
    visited: int,
    q0_override_steps: int,
    generator: Source = None,
    settling: Settling | None = None,
) -> Iterator[Tensor]:
    """Yield the codes (B, L, Q) after each of `visited` steps, the last ones clean.

    The exact law if every step of the schedule is visited, the strided one otherwise.

    Args:
        q0_override_steps: above this step, known L0 codes are shown without noise.
        generator: source of randomness on the CPU, for all rows or one for each; None is torch's
            global one.
        settling: how to end the walk by expectation; None draws all codes.
    """
    if visited == len(schedule):
        return denoise_exact(
            estimator,
            known,
            schedule,
            q0_override_steps=q0_override_steps,
            generator=generator,
            settling=settling,
        )
    return denoise_strided(
        estimator,
        known,
        schedule,
        visited,
        q0_override_steps=q0_override_steps,
        generator=generator,
        settling=settling,
    )


@torch.inference_mode()
def denoise_exact(
    estimator: Estimator,
    known: Known,
    schedule: Schedule,
    *,
    q0_override_steps: int,
    generator: Source = None,
    settling: Settling | None = None,
    resampling: Resampling | None = None,
    allow_padding: bool = False,
) -> Iterator[Tensor]:
    """The exact law over all steps of the schedule; yields (B, L, Q) after each step.

    Args:
        q0_override_steps: above this step, known L0 codes are shown without noise.
        resampling: RePaint jumps; None for none.
        allow_padding: let class 1024 out of the last step, as the published sampler does.
    """
    jumps = resampling or Resampling()
    n_classes, grid = estimator.model.dims.n_classes, known.unknown()
    draws = Draws(generator, _lengths(estimator, known), known.codes.device)
    x = initial_codes(known, n_classes, draws)
    draws = draws.on_device()  # millions a step: the CPU would take longer than the network
    places = known.mask.nonzero(as_tuple=True)
    log_known = log_onehot(known.codes[places], n_classes)
    order = visiting_order(len(schedule), jumps.length, jumps.times)
    asked = steps_made(len(schedule), len(schedule), _settle_step(settling))
    estimator = estimator.ahead(asked, grid)
    progress = 0.0
    for t, following in pairwise(order):
        if following > t:
            x = _renoise(x, t, schedule, jumps, progress, n_classes, draws)
            continue
        progress = (0.0 if progress > jumps.times else progress) + 1 / jumps.length
        if settling is not None and t < settling.step:
            yield _settled(estimator, x, t, known, grid, schedule, settling)
            return
        log_x0 = estimator(x, t)
        if t == 0:
            _check_finite(log_x0, estimator)
            if not allow_padding:
                log_x0[..., PAD_CODE] = -torch.inf
        log_p = posterior(log_x0, log_onehot(grid.take(x), n_classes), t, schedule)
        drawn = sample(log_p, grid.take(draws.uniforms(x.shape[2], n_classes)))
        given = known.codes
        if t > 0:
            noised = q_pred(log_known, t, schedule)
            uniform = draws.uniforms(x.shape[2], n_classes)
            given = given.index_put(places, sample(noised, uniform[places]))
        x = _merged(x, known, grid, drawn, given, t > q0_override_steps)
        yield x


@torch.inference_mode()
def denoise_strided(
    estimator: Estimator,
    known: Known,
    schedule: Schedule,
    visited: int,
    *,
    q0_override_steps: int,
    generator: Source = None,
    settling: Settling | None = None,
) -> Iterator[Tensor]:
    """The strided law over `visited` steps; yields (B, L, Q) after each. Never ends on padding."""
    n_classes, grid = estimator.model.dims.n_classes, known.unknown()
    draws = Draws(generator, _lengths(estimator, known), known.codes.device)
    x = initial_codes(known, n_classes, draws)
    asked = steps_made(len(schedule), visited, _settle_step(settling))
    estimator = estimator.ahead(asked, grid)
    for t, s in pairwise(strided_grid(len(schedule), visited)):
        if settling is not None and t < settling.step:
            yield _settled(estimator, x, t, known, grid, schedule, settling)
            return
        log_r = estimator(x, t)
        if s < 0:
            _check_finite(log_r, estimator)
            log_r[..., PAD_CODE] = -torch.inf
        uniform = draws.uniforms(x.shape[2], 3)
        drawn = strided_step(log_r, grid.take(x), t, s, schedule, grid.take(uniform))
        if s < 0:
            drawn = drawn.clamp(max=PAD_CODE - 1)  # rounding may reach for the last class
        given = known.codes
        if s >= 0:
            noise = (uniform[..., 0] * n_classes).long().clamp(max=n_classes - 1)
            keep = uniform[..., 1] < schedule.log_cumprod_alpha[s].exp()
            given = torch.where(keep, known.codes, noise)
        x = _merged(x, known, grid, drawn, given, t > q0_override_steps)
        yield x


def _settle_step(settling: Settling | None) -> int:
    return 0 if settling is None else settling.step


def _settled(
    estimator: Estimator,
    x: Tensor,
    t: int,
    known: Known,
    grid: Grid,
    schedule: Schedule,
    settling: Settling,
) -> Tensor:
    """The clean codes by what is expected at step t; beliefs count as they are, not sharpened."""
    log_r = replace(estimator, temperature=1.0)(x, t)
    _check_finite(log_r, estimator)
    belief = clean_posterior(log_r, grid.take(x), t, schedule)
    return settled(belief, known.codes, known.mask, grid, settling.books)


def _lengths(estimator: Estimator, known: Known) -> list[int]:
    rows, length = known.codes.shape[:2]
    if estimator.visible is None or rows == 1:
        return [length] * rows
    return estimator.visible.sum(1).tolist()


def _check_finite(estimate: Tensor, estimator: Estimator) -> None:
    """Once, at the last step: what is not finite stays so, and a look costs a wait for the GPU."""
    if not estimate.isfinite().all():
        raise GenerationError(
            f"the NAR's logits are not finite in {estimator.model.text_embed.weight.dtype}: load "
            "the model with dtype=torch.bfloat16 or torch.float32"
        )


def _merged(
    x: Tensor, known: Known, grid: Grid, drawn: Tensor, given: Tensor, show_coarse: bool
) -> Tensor:
    """The next codes: what was drawn for the grid, save what is given; L0 as it is if shown."""
    merged = torch.where(known.mask, given, grid.put(x, drawn))
    if show_coarse:
        merged[..., 0] = torch.where(known.mask[..., 0], known.codes[..., 0], merged[..., 0])
    return merged


def _renoise(
    x: Tensor,
    t: int,
    schedule: Schedule,
    jumps: Resampling,
    progress: float,
    n_classes: int,
    draws: Draws,
) -> Tensor:
    """One step of a jump back up, from t to t + 1."""
    dtype = torch.float32 if jumps.progressive else jumps.dtype
    log_x = log_onehot(x, n_classes, dtype)
    if jumps.progressive:
        # In the published code the ramp falls on the codebooks when there are 8 positions.
        axis = 2 if x.shape[1] == x.shape[2] else 1
        noised = q_pred_one_step_scaled(log_x, t, schedule, progress, jumps.length, axis)
    else:
        noised = q_pred_one_step(log_x, t, schedule)
    return sample(noised, draws.uniforms(*log_x.shape[2:], dtype=dtype))

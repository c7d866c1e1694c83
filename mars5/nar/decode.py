"""The denoising loops: from noise and known codes to all codebooks (spec 2, section 4).

Two laws share one estimate of the clean codes: the exact one visits every step of the schedule,
the strided one visits as many as it is told to. Both are generators of the codes at each step, so
that a caller can show progress or stop.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

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
    uniforms,
)
from mars5.nar.model import ResidualTransformer


@dataclass(frozen=True)
class Known:
    """Codes that are given, at the positions where `mask` is true (inpainting).

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


@dataclass(frozen=True)
class Estimator:
    """The network's estimate of the clean codes, guided; the same arguments for every step.

    Attributes:
        text, text_lengths: (B, N) joint ids and (B,).
        speaker: (B, D) speaker vectors.
        guidance: w in w * cond + (1 - w) * uncond; 1 skips the unconditional pass.
        temperature: divisor of the logits.
        visible: (B, L) bool, false for padding; None if there is none.
    """

    model: ResidualTransformer
    text: Tensor
    text_lengths: Tensor
    speaker: Tensor
    guidance: float
    temperature: float
    visible: Tensor | None = None

    def __call__(self, x: Tensor, t: int) -> Tensor:
        """(B, L, Q) codes at step t -> (B, L, Q, K) float32 log-probabilities of clean codes."""
        batch = len(x)
        speakers, copies = self.speaker, 1
        if self.guidance != 1:  # both passes in one batch
            absent = self.model.no_speaker_vector(batch)
            speakers, copies = torch.cat([self.speaker, absent]), 2
        visible = self.visible
        logits = self.model(
            self.text.repeat(copies, 1),
            self.text_lengths.repeat(copies),
            speakers,
            x.repeat(copies, 1, 1),
            torch.full((batch * copies,), t, device=x.device),
            None if visible is None else visible.repeat(copies, 1),
        ).float()
        if self.guidance != 1:
            conditional, unconditional = logits.chunk(2)
            logits = self.guidance * conditional + (1 - self.guidance) * unconditional
        return (logits / self.temperature).log_softmax(-1)


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


def initial_codes(known: Known, n_classes: int, generator: torch.Generator | None) -> Tensor:
    """Known codes where given, uniform noise elsewhere; noise is drawn for the unknown frames only.

    Frames known in all codebooks must come first, as a reference does.
    """
    n_given = int(known.mask.all(-1).all(0).sum())
    batch, length, books = known.codes.shape
    source = generator.device if generator is not None else torch.device("cpu")
    shape = (batch, length - n_given, books)
    noise = torch.randint(0, n_classes, shape, generator=generator, device=source)
    x = torch.cat([known.codes[:, :n_given], noise.to(known.codes.device)], 1)
    x[..., 0] = torch.where(known.mask[..., 0], known.codes[..., 0], x[..., 0])
    return x


def denoise(
    estimator: Estimator,
    known: Known,
    schedule: Schedule,
    visited: int,
    q0_override_steps: int,
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    """Yield the codes (B, L, Q) after each of `visited` steps, the last ones clean.

    The exact law if every step of the schedule is visited, the strided one otherwise.

    Args:
        q0_override_steps: above this step, known L0 codes are shown without noise.
        generator: source of randomness on the CPU; None is torch's global one.
    """
    if visited == len(schedule):
        return denoise_exact(
            estimator, known, schedule, q0_override_steps=q0_override_steps, generator=generator
        )
    return denoise_strided(
        estimator,
        known,
        schedule,
        visited,
        q0_override_steps=q0_override_steps,
        generator=generator,
    )


@torch.inference_mode()
def denoise_exact(
    estimator: Estimator,
    known: Known,
    schedule: Schedule,
    *,
    q0_override_steps: int,
    generator: torch.Generator | None = None,
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
    n_classes = estimator.model.dims.n_classes
    x = initial_codes(known, n_classes, generator)
    log_known = log_onehot(known.codes, n_classes)
    shape, device = log_known.shape, x.device
    order = visiting_order(len(schedule), jumps.length, jumps.times)
    progress = 0.0
    for t, following in pairwise(order):
        if following > t:
            x = _renoise(x, t, schedule, jumps, progress, n_classes, generator)
            continue
        progress = (0.0 if progress > jumps.times else progress) + 1 / jumps.length
        log_x0 = estimator(x, t)
        if t == 0:
            _check_finite(log_x0, estimator)
            if not allow_padding:
                log_x0[..., PAD_CODE] = -torch.inf
        log_p = posterior(log_x0, log_onehot(x, n_classes), t, schedule)
        drawn = sample(log_p, uniforms(shape, generator, device))
        given = known.codes
        if t > 0:
            noised = q_pred(log_known, t, schedule)
            given = sample(noised, uniforms(shape, generator, device))
        x = torch.where(known.mask, given, drawn)
        if t > q0_override_steps:
            x = _show_coarse(x, known)
        yield x


@torch.inference_mode()
def denoise_strided(
    estimator: Estimator,
    known: Known,
    schedule: Schedule,
    visited: int,
    *,
    q0_override_steps: int,
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    """The strided law over `visited` steps; yields (B, L, Q) after each. Never ends on padding."""
    n_classes = estimator.model.dims.n_classes
    x = initial_codes(known, n_classes, generator)
    order = strided_grid(len(schedule), visited)
    for t, s in pairwise(order):
        log_r = estimator(x, t)
        if s < 0:
            _check_finite(log_r, estimator)
            log_r[..., PAD_CODE] = -torch.inf
        uniform = uniforms((*x.shape, 3), generator, x.device)
        drawn = strided_step(log_r, x, t, s, schedule, uniform)
        if s < 0:
            drawn = drawn.clamp(max=PAD_CODE - 1)  # rounding may reach for the last class
        given = known.codes
        if s >= 0:
            noise = (uniform[..., 0] * n_classes).long().clamp(max=n_classes - 1)
            keep = uniform[..., 1] < schedule.log_cumprod_alpha[s].exp()
            given = torch.where(keep, known.codes, noise)
        x = torch.where(known.mask, given, drawn)
        if t > q0_override_steps:
            x = _show_coarse(x, known)
        yield x


def _check_finite(estimate: Tensor, estimator: Estimator) -> None:
    """Once, at the last step: what is not finite stays so, and a look costs a wait for the GPU."""
    if not estimate.isfinite().all():
        raise GenerationError(
            f"the NAR's logits are not finite in {estimator.model.text_embed.weight.dtype}: load "
            "the model with dtype=torch.bfloat16 or torch.float32"
        )


def _show_coarse(x: Tensor, known: Known) -> Tensor:
    shown = x.clone()
    shown[..., 0] = torch.where(known.mask[..., 0], known.codes[..., 0], x[..., 0])
    return shown


def _renoise(
    x: Tensor,
    t: int,
    schedule: Schedule,
    jumps: Resampling,
    progress: float,
    n_classes: int,
    generator: torch.Generator | None,
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
    return sample(noised, uniforms(tuple(log_x.shape), generator, x.device, dtype))

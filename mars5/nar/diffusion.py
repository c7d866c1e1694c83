"""Multinomial diffusion over code classes: schedule, kernels, posterior, draws. Pure functions.

Hoogeboom et al. 2021, "Argmax Flows and Multinomial Diffusion". Distributions are log-probabilities
with the class axis last; t is an int, a step of the schedule.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mars5.device import uploaded

TINY = 1e-30
ONEHOT_FLOOR = 1e-7
UNIFORM_FLOOR = 1e-7


@dataclass(frozen=True)
class Schedule:
    """Tables of the cosine schedule with T steps, float32 of shape (T,).

    `log_alpha[t]` is log a(t), `log_cumprod_alpha[t]` log A(t) = log a(0)...a(t), and the other
    two are the logs of 1 - a and 1 - A.
    """

    log_alpha: Tensor
    log_1_min_alpha: Tensor
    log_cumprod_alpha: Tensor
    log_1_min_cumprod_alpha: Tensor

    def __len__(self) -> int:
        return len(self.log_alpha)

    def to(self, device: torch.device | str) -> Schedule:
        return Schedule(*(table.to(device) for table in vars(self).values()))


def cosine_schedule(steps: int, s: float = 0.008) -> Schedule:
    """The schedule of `steps` steps.

    a(t) itself is a float32 number, as recorded; its logs and their sums are taken in float64.
    """
    share = torch.arange(steps + 1, dtype=torch.float32) / steps
    kept = torch.cos((share + s) / (1 + s) * math.pi / 2) ** 2
    kept = kept / kept[0]
    log_alpha = (kept[1:] / kept[:-1]).clamp(0.001, 1.0).sqrt().double().log()
    log_cumprod = log_alpha.cumsum(0)
    tables = (log_alpha, _log_1_min(log_alpha), log_cumprod, _log_1_min(log_cumprod))
    return Schedule(*(table.float() for table in tables))


def _log_1_min(log_x: Tensor) -> Tensor:
    return (1 - log_x.exp()).clamp(min=TINY).log()


def log_onehot(x: Tensor, n_classes: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """(...) int64 -> (..., K) log of the one-hot vector, floored at 1e-7."""
    floor = float(torch.tensor(ONEHOT_FLOOR, dtype=dtype).log())  # as the precision rounds it
    onehot = torch.full((*x.shape, n_classes), floor, dtype=dtype, device=x.device)
    return onehot.scatter_(-1, x[..., None], 0.0)


def _mix(log_x: Tensor, log_keep: Tensor, log_lose: Tensor) -> Tensor:
    """log(keep * x + lose / K).

    Not by `logaddexp`, which takes five times as long on a CPU: the second term never vanishes.
    """
    wide = torch.promote_types(log_x.dtype, torch.float32)
    kept = (log_x + log_keep).to(wide).exp_()
    other = (log_lose - math.log(log_x.shape[-1])).to(wide).exp()
    return kept.add_(other).log_().to(log_x.dtype)


def q_pred(log_x0: Tensor, t: int, schedule: Schedule) -> Tensor:
    """log q(x_t | x_0)."""
    return _mix(log_x0, schedule.log_cumprod_alpha[t], schedule.log_1_min_cumprod_alpha[t])


def q_pred_one_step(log_x: Tensor, t: int, schedule: Schedule) -> Tensor:
    """log q(x_t | x_{t-1}); symmetric, hence also the likelihood of x_{t-1} given x_t."""
    tables = schedule.log_alpha[t], schedule.log_1_min_alpha[t]
    return _mix(log_x, tables[0].to(log_x.dtype), tables[1].to(log_x.dtype))


def q_pred_one_step_scaled(
    log_x: Tensor, t: int, schedule: Schedule, c: float, jump_len: int, axis: int = 1
) -> Tensor:
    """The one-step kernel with noise that rises along the positions of `axis`.

    Args:
        c: progress of the resampling, 0 at its start.
        jump_len: length of the resampling jumps.
    """
    length = log_x.shape[axis]
    position = torch.arange(length, device=log_x.device)
    log_ramp = (1 / (1 + torch.exp(-(position - length * c / jump_len + 20) / 8))).log()
    log_ramp = log_ramp.view([-1 if a == axis else 1 for a in range(log_x.ndim)])
    keep = (schedule.log_alpha[t] - log_ramp).clamp(max=0)
    return _mix(log_x, keep, schedule.log_1_min_alpha[t] + log_ramp)


def posterior(log_x0: Tensor, log_xt: Tensor, t: int, schedule: Schedule) -> Tensor:
    """log p(x_{t-1} | x_t) for an estimate log_x0 of the clean codes; normalised."""
    earlier = log_x0 if t == 0 else q_pred(log_x0, t - 1, schedule)
    joint = earlier + q_pred_one_step(log_xt, t, schedule)
    return joint - joint.logsumexp(-1, keepdim=True)


def sample(log_p: Tensor, uniform: Tensor) -> Tensor:
    """(..., K) -> (...): one draw a position by the Gumbel trick; uniforms of the same shape."""
    waited = uniform.clamp(min=UNIFORM_FLOOR).log_().neg_().clamp_(min=UNIFORM_FLOOR)
    return (log_p - waited.log_()).argmax(-1)


def uniforms(
    shape: tuple[int, ...],
    generator: torch.Generator | None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Uniforms in [0, 1), drawn where the generator lives (None: torch's global CPU one)."""
    source = generator.device if generator is not None else torch.device("cpu")
    drawn = torch.rand(shape, generator=generator, device=source, dtype=dtype)
    return uploaded(drawn, torch.device(device))


def log_evidence(t: Tensor | int, schedule: Schedule, n_classes: int) -> Tensor:
    """How much likelier, in nats, a code is seen at t if it is the clean one than if another is."""
    kept = schedule.log_cumprod_alpha[t].exp()
    return torch.log1p(n_classes * kept / (1 - kept).clamp(min=1e-6))


def strided_step(
    log_r: Tensor, xt: Tensor, t: int, s: int, schedule: Schedule, uniform: Tensor
) -> Tensor:
    """Draw x_s from x_t, s < t, by the exact posterior of a jump over t - s steps.

    With the network's estimate read as r(k) = p(x0 = k | all other tokens), the jump is exact for
    each position; only the independence of positions is an approximation.

    Args:
        log_r: (..., K) log-probabilities of the clean codes.
        xt: (...) codes at t.
        s: the earlier step; -1 is the clean end.
        uniform: (..., 3) uniforms.
    """
    n_classes = log_r.shape[-1]
    total = schedule.log_cumprod_alpha[t].exp()
    earlier = schedule.log_cumprod_alpha[s].exp() if s >= 0 else torch.ones_like(total)
    own = log_r.gather(-1, xt[..., None])[..., 0].exp()
    redraw = (1 - total / earlier) / (1 - total + n_classes * total * own)
    clean = _inverse_cdf(log_r, uniform[..., 0])
    noise = (uniform[..., 0] * n_classes).long().clamp(max=n_classes - 1)
    fresh = torch.where(uniform[..., 1] < earlier, clean, noise)
    return torch.where(uniform[..., 2] < redraw, fresh, xt)


def _inverse_cdf(log_p: Tensor, uniform: Tensor) -> Tensor:
    """(..., K) and (...) -> (...): the class in which the cumulative mass passes the uniform."""
    cumulative = log_p.exp().cumsum(-1)
    total = cumulative[..., -1:]
    # Never the total itself, beyond which there is no class.
    wanted = (uniform[..., None] * total).minimum(total.nextafter(torch.zeros_like(total)))
    return torch.searchsorted(cumulative, wanted, right=True)[..., 0]

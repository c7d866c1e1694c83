"""The strided rule against the whole posterior, and both against a problem solved exactly."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from mars5.nar.decode import strided_grid
from mars5.nar.diffusion import (
    Schedule,
    cosine_schedule,
    log_onehot,
    posterior,
    q_pred,
    q_pred_one_step,
    sample,
    strided_step,
    uniforms,
)

SCHEDULE = cosine_schedule(200)
JUMPS = [(199, 186), (199, 0), (150, 149), (99, 86), (60, 3), (12, 5), (1, 0), (199, -1), (12, -1)]
K = 7
BELIEF = torch.tensor([0.3, 0.001, 0.05, 0.25, 0.009, 0.15, 0.24], dtype=torch.float64)


def kept(t: int) -> Tensor:
    """A(t), float64; A(-1) = 1."""
    return SCHEDULE.log_cumprod_alpha[t].double().exp() if t >= 0 else torch.ones(()).double()


def kernel(keep: Tensor) -> Tensor:
    """(K, K): keep a class, or draw it anew."""
    return keep * torch.eye(K).double() + (1 - keep) / K


def whole_posterior(belief: Tensor, c: int, t: int, s: int) -> Tensor:
    """(K,): q(x_s | x_t = c) by enumeration of x0 and x_s; `belief` is of all tokens but this."""
    joint = belief[:, None] * kernel(kept(s)) * kernel(kept(t) / kept(s))[None, :, c]
    return joint.sum(0) / joint.sum()


# ---------------------------------------------------------------- the strided rule


def _threshold(fires: Callable[[float], bool]) -> float:
    """The u in [0, 1] below which something happens."""
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if fires(middle) else (low, middle)
    return low


def implied_probabilities(belief: Tensor, c: int, t: int, s: int) -> Tensor:
    """(K,): what `strided_step` draws, measured on its uniforms instead of drawn."""
    log_r = belief.log().float()

    def step(*uniform: Tensor | float) -> Tensor:
        uniform = torch.broadcast_tensors(*(torch.as_tensor(u).float() for u in uniform))
        given = torch.stack(uniform, -1)
        shape = given.shape[:-1]
        xt = torch.full(shape, c)
        return strided_step(log_r.expand(*shape, K), xt, t, s, SCHEDULE, given)

    fine = (torch.arange(2**18) + 0.5) / 2**18
    clean = step(fine, 0.0, 0.0).bincount(minlength=K) / 2**18
    noise = step(fine, 1 - 1e-7, 0.0).bincount(minlength=K) / 2**18
    other = 0.1 if int(step(0.1, 0.0, 0.0)) != c else 0.9  # a fresh code that is not c
    redraw = _threshold(lambda u: int(step(other, 0.0, u)) != c)
    apart = fine[step(fine, 0.0, 0.0) != step(fine, 1 - 1e-7, 0.0)]
    if s < 0 or not len(apart):
        from_belief = 1.0
    else:
        at = float(apart[0])
        wanted = int(step(at, 0.0, 0.0))
        from_belief = _threshold(lambda u: int(step(at, u, 0.0)) == wanted)
    fresh = from_belief * clean + (1 - from_belief) * noise
    return redraw * fresh + (1 - redraw) * torch.eye(K)[c]


@pytest.mark.parametrize(("t", "s"), JUMPS)
def test_the_strided_rule_is_the_whole_posterior(t: int, s: int) -> None:
    for c in (0, 1, 6):
        found = implied_probabilities(BELIEF, c, t, s)
        wanted = whole_posterior(BELIEF, c, t, s)
        torch.testing.assert_close(found.double(), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("t", "s"), JUMPS)
def test_the_strided_rule_is_the_whole_posterior_of_all_classes(t: int, s: int) -> None:
    """1025 classes: the three draws of the rule, put together, against enumeration."""
    n = 1025
    logits = 2 * torch.randn(n, generator=torch.Generator().manual_seed(t))
    belief, c = logits.double().softmax(-1), 7
    log_r = logits.log_softmax(-1)

    def step(first: Tensor, second: float, third: float) -> Tensor:
        given = torch.stack([first.float(), *(torch.full_like(first, u).float()
                                              for u in (second, third))], -1)  # fmt: skip
        xt = torch.full(first.shape, c)
        return strided_step(log_r.expand(*first.shape, n), xt, t, s, SCHEDULE, given)

    # The first uniform chooses from the belief: just inside both ends of each class's share.
    ends = belief.cumsum(0)
    for inside in (ends - belief + 1e-6, ends - 1e-6):
        apart = belief > 1e-5
        assert torch.equal(step(inside, 0.0, 0.0)[apart], torch.arange(n)[apart])
    at = (ends[100:101] - belief[100] / 2).clamp(0, 1)
    redraw = _threshold(lambda u: int(step(at, 0.0, u)) != c)
    from_belief = 1.0 if s < 0 else _threshold(lambda u: int(step(at, u, 0.0)) == 100)
    fresh = from_belief * belief + (1 - from_belief) / n
    found = redraw * fresh + (1 - redraw) * torch.eye(n)[c]

    def whole(keep: Tensor) -> Tensor:
        return keep * torch.eye(n).double() + (1 - keep) / n

    joint = belief[:, None] * whole(kept(s)) * whole(kept(t) / kept(s))[None, :, c]
    wanted = joint.sum(0) / joint.sum()
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("t", "s"), JUMPS)
def test_draws_of_the_strided_rule(t: int, s: int) -> None:
    n, c = 200_000, 3
    uniform = torch.rand(n, 3, generator=torch.Generator().manual_seed(t + 1000 * s))
    drawn = strided_step(
        BELIEF.log().float().expand(n, K), torch.full((n,), c), t, s, SCHEDULE, uniform
    )
    expected = n * whole_posterior(BELIEF, c, t, s)
    counted = drawn.bincount(minlength=K).double()
    chi_squared = ((counted - expected).square() / expected.clamp(min=1e-9)).sum()
    assert chi_squared < 30, (counted, expected)  # 6 degrees of freedom: once in 25 000


@pytest.mark.parametrize("t", [0, 1, 50, 199])
def test_one_step_of_the_exact_law_is_the_whole_posterior(t: int) -> None:
    for c in (0, 1, 6):
        log_xt = torch.eye(K)[c].log()  # without the floor of `log_onehot`, which is felt at t = 0
        found = posterior(BELIEF.log().float(), log_xt, t, SCHEDULE).exp()
        wanted = whole_posterior(BELIEF, c, t, t - 1)
        torch.testing.assert_close(found.double(), wanted, rtol=0, atol=1e-5)


def test_a_class_without_belief_is_left_at_the_clean_end() -> None:
    log_r = torch.tensor([0.5, 0.5, 0.0]).log()
    uniform = torch.rand(1000, 3, generator=torch.Generator().manual_seed(1))
    uniform[0] = 1 - 2**-24  # the largest that can be drawn
    xt = torch.full((1000,), 2)
    for t in (0, 12, 199):
        drawn = strided_step(log_r.expand(1000, 3), xt, t, -1, SCHEDULE, uniform)
        assert set(drawn.tolist()) == {0, 1}


# ---------------------------------------------------------------- kernels, draws, grids


def test_steps_compose_to_the_kernel_of_the_whole_way() -> None:
    schedule = cosine_schedule(30)
    log_x = log_x0 = log_onehot(torch.tensor([0, 4]), K)
    for t in range(30):
        log_x = q_pred_one_step(log_x, t, schedule)
        torch.testing.assert_close(log_x.exp(), q_pred(log_x0, t, schedule).exp())
    torch.testing.assert_close(log_x.exp().sum(-1), torch.ones(2))


def test_sample_draws_with_the_given_probabilities() -> None:
    n = 100_000
    uniform = uniforms((n, K), torch.Generator().manual_seed(6))
    drawn = sample(BELIEF.log().float().expand(n, K), uniform)
    expected = n * BELIEF
    chi_squared = ((drawn.bincount(minlength=K) - expected).square() / expected).sum()
    assert chi_squared < 30


def test_published_grid_of_16_steps() -> None:
    assert strided_grid(200, 16) == [
        199, 186, 174, 162, 149, 136, 124, 112, 99, 86, 74, 62, 49, 36, 24, 12, -1,
    ]  # fmt: skip


@pytest.mark.parametrize("steps", [1, 2, 7, 30, 200])
def test_every_grid_falls_from_the_noisiest_step_to_the_end(steps: int) -> None:
    for visited in range(1, steps + 1):
        grid = strided_grid(steps, visited)
        assert len(grid) == visited + 1
        assert grid[0] == steps - 1
        assert grid[-1] == -1
        assert all(later < earlier for earlier, later in pairwise(grid))
    assert strided_grid(steps, steps) == list(range(steps - 1, -2, -1))


# ---------------------------------------------------------------- a problem solved exactly

CLASSES, POSITIONS = 5, 6
FIRST = torch.tensor([0.4, 0.3, 0.1, 0.1, 0.1], dtype=torch.float64)
NEXT = 0.75 * torch.eye(CLASSES).double().roll(1, 1) + 0.05  # mostly one class further


def likelihoods(x: Tensor, keep: float) -> Tensor:
    """(..., POSITIONS) noisy codes -> (..., POSITIONS, CLASSES): q(x_t | x_0)."""
    return keep * torch.nn.functional.one_hot(x, CLASSES).double() + (1 - keep) / CLASSES


def leave_one_out(x: Tensor, keep: float) -> Tensor:
    """(N, POSITIONS, CLASSES): p(x_0 of a position | the noisy codes of all others)."""
    seen = likelihoods(x, keep)
    before, after = [FIRST.expand(len(x), -1)], [torch.ones(len(x), CLASSES).double()]
    for i in range(POSITIONS - 1):
        before.append((before[-1] * seen[:, i]) @ NEXT)
        after.append((after[-1] * seen[:, POSITIONS - 1 - i]) @ NEXT.T)
    belief = torch.stack(
        [one * other for one, other in zip(before, reversed(after), strict=True)], 1
    )
    return belief / belief.sum(-1, keepdim=True)


def all_sequences() -> tuple[Tensor, Tensor]:
    """All 5^6 clean sequences and their probabilities."""
    every = torch.cartesian_prod(*[torch.arange(CLASSES)] * POSITIONS)
    p = FIRST[every[:, 0]]
    for one, other in pairwise(every.T):
        p = p * NEXT[one, other]
    return every, p


def test_beliefs_of_the_chain_are_exact() -> None:
    """Messages along the chain equal enumeration of all sequences."""
    every, p = all_sequences()
    assert float(p.sum()) == pytest.approx(1)
    x = torch.randint(0, CLASSES, (3, POSITIONS), generator=torch.Generator().manual_seed(1))
    for keep in (0.0, 0.3, 0.95):
        found = leave_one_out(x, keep)
        for row, noisy in enumerate(x):
            given = likelihoods(noisy, keep)[torch.arange(POSITIONS), every]  # (5^6, POSITIONS)
            for i in range(POSITIONS):
                others = torch.arange(POSITIONS) != i
                joint = p * given[:, others].prod(1)
                wanted = torch.zeros(CLASSES).double().index_add_(0, every[:, i], joint)
                torch.testing.assert_close(found[row, i], wanted / wanted.sum())


def drawn_by(visited: int, schedule: Schedule, n: int = 20_000) -> Tensor:
    """(n, POSITIONS) clean sequences by so many strided steps."""
    generator = torch.Generator().manual_seed(visited)
    x = torch.randint(0, CLASSES, (n, POSITIONS), generator=generator)
    for t, s in pairwise(strided_grid(len(schedule), visited)):
        belief = leave_one_out(x, float(schedule.log_cumprod_alpha[t].exp()))
        uniform = uniforms((*x.shape, 3), generator)
        x = strided_step(belief.log().float(), x, t, s, schedule, uniform)
    return x


def distance(x: Tensor) -> float:
    """Total variation between neighbours' frequencies in x and in the chain, mean over places."""
    total, p = 0.0, FIRST
    for i in range(POSITIONS - 1):
        wanted = p[:, None] * NEXT
        pairs = (x[:, i] * CLASSES + x[:, i + 1]).bincount(minlength=CLASSES**2)
        total += float((pairs / len(x) - wanted.flatten()).abs().sum() / 2)
        p = p @ NEXT
    return total / (POSITIONS - 1)


def surprise(x: Tensor) -> float:
    """Nats a sequence under the chain: its entropy if x is drawn from it."""
    pairs = pairwise(x.T)
    return -float((FIRST[x[:, 0]].log() + sum(NEXT[a, b].log() for a, b in pairs)).mean())


def test_strided_samples_approach_the_true_distribution() -> None:
    _, p = all_sequences()
    entropy = -float((p * p.log()).sum())
    samples = {visited: drawn_by(visited, SCHEDULE) for visited in (1, 4, 16, 64)}
    found = {visited: distance(x) for visited, x in samples.items()}
    excess = {visited: surprise(x) - entropy for visited, x in samples.items()}
    # One step draws every position for itself; more steps let them agree.
    assert found[1] > 0.5
    assert found[1] > 2 * found[4] > 4 * found[16] > 4 * found[64], found
    assert found[64] < 0.02, found
    assert excess[1] > 2 * excess[4] > 4 * excess[16] > 4 * abs(excess[64]), excess
    assert abs(excess[64]) < 0.1, (excess, entropy)

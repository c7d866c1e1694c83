"""Walks that end by expectation: by what the codes are chosen, and that nothing else changes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from mars5.config import N_CODEBOOKS, NARDims
from mars5.nar.decode import Known, denoise, stack, steps_made
from mars5.nar.diffusion import cosine_schedule
from mars5.nar.estimate import Estimator
from mars5.nar.model import Conditions, ResidualTransformer
from mars5.nar.settle import Settling, clean_posterior, settled

SCHEDULE = cosine_schedule(200)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def build() -> ResidualTransformer:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        model = ResidualTransformer(NARDims(20, 1025, 32, 2, 1, 1, 1, 48, 16))
        return model.requires_grad_(False).eval()


MODEL = build()
COARSE = torch.randint(0, 1024, (2, 9), generator=seeded(4))
KNOWN = Known.from_coarse(COARSE[:1], torch.randint(0, 1024, (1, 3, 8), generator=seeded(5)))


def estimator() -> Estimator:
    text = torch.arange(6)[None]
    return Estimator(MODEL, text, torch.tensor([6]), torch.ones(1, 32), 3.0, 0.7)


BOOKS = torch.randn(N_CODEBOOKS, 1024, 6, generator=torch.Generator().manual_seed(7))


def test_the_posterior_counts_what_is_seen() -> None:
    """Bayes' rule over the noise of step t, by enumeration."""
    generator = seeded(3)
    log_r = torch.randn(5, 1025, generator=generator).log_softmax(-1)
    xt = torch.randint(1025, (5,), generator=generator)
    for t in (0, 60, 150, 199):
        kept = SCHEDULE.log_cumprod_alpha[t].exp()
        seen = kept * torch.eye(1025) + (1 - kept) / 1025  # (from, to)
        joint = (log_r.exp() * seen[:, xt].T)[:, :1024]
        found = clean_posterior(log_r, xt, t, SCHEDULE)
        assert_close(found, joint / joint.sum(1, keepdim=True), rtol=1e-3, atol=1e-6)


def test_settled_codes_have_the_least_expected_squared_error() -> None:
    belief = torch.rand(1, 1, 1024, generator=seeded(1)).pow(20)
    belief /= belief.sum()
    distances = torch.cdist(BOOKS[3], BOOKS[3]).square()
    best = (distances * belief[0]).sum(1).argmin()
    mask = torch.ones(1, 1, N_CODEBOOKS, dtype=torch.bool)
    mask[0, 0, 3] = False
    grid = Known(torch.zeros(1, 1, N_CODEBOOKS, dtype=torch.int64), mask).unknown()
    codes = settled(belief, torch.zeros(1, 1, N_CODEBOOKS).long(), mask, grid, BOOKS)
    assert codes[0, 0, 3] == best
    assert (codes[0, 0, [0, 1, 2, 4, 5, 6, 7]] == 0).all()


def test_later_books_correct_the_earlier() -> None:
    """Sure of codes whose first is not the nearest to their sum, what settles is as near to it."""
    codes = torch.randint(1024, (1, 9, N_CODEBOOKS), generator=seeded(2))
    known = Known.from_coarse(codes[..., 0])
    belief = F.one_hot(codes[0, :, 1:], 1024).float()
    found = settled(belief, known.codes, known.mask, known.unknown(), BOOKS)
    assert torch.equal(found[..., 0], codes[..., 0])

    def rest(which: Tensor) -> Tensor:
        return sum((BOOKS[q][which[0, :, q]] for q in range(1, N_CODEBOOKS)), torch.zeros(9, 6))

    off = (rest(found) - rest(codes)).square().sum(1)
    assert (off < 0.05 * rest(codes).square().sum(1).mean()).all()


@pytest.mark.parametrize("visited", [12, len(SCHEDULE)])
def test_a_walk_that_settles_is_the_walk_until_there(visited: int) -> None:
    drawn = list(denoise(estimator(), KNOWN, SCHEDULE, visited, 0, seeded(1)))
    asked = steps_made(len(SCHEDULE), visited, 120)
    assert asked[-1] < 120 <= asked[-2]
    settling = Settling(120, BOOKS)
    found = list(denoise(estimator(), KNOWN, SCHEDULE, visited, 0, seeded(1), settling))
    assert len(found) == len(asked) < len(drawn)
    assert all(torch.equal(a, b) for a, b in zip(found[:-1], drawn, strict=False))
    assert torch.equal(found[-1][KNOWN.mask], KNOWN.codes[KNOWN.mask])
    assert found[-1].max() < 1024
    at_once = list(
        denoise(estimator(), KNOWN, SCHEDULE, visited, 0, seeded(1), Settling(200, BOOKS))
    )
    assert len(at_once) == 1


def test_settling_in_a_batch_is_settling_alone() -> None:
    items = [(estimator(), KNOWN), (estimator(), Known.from_coarse(COARSE[:1, :5]))]
    settling = Settling(120, BOOKS)
    seeds = [seeded(i) for i in range(2)]
    *_, together = denoise(*stack(items), SCHEDULE, 6, 0, seeds, settling)
    for i, (item, row) in enumerate(zip(items, together, strict=True)):
        *_, alone = denoise(*item, SCHEDULE, 6, 0, seeded(i), settling)
        assert torch.equal(row[: alone.shape[1]], alone[0])


@pytest.mark.parametrize("visited", [12, len(SCHEDULE)])
def test_nothing_is_computed_for_steps_that_are_not_made(
    visited: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared: list[int] = []
    conditions = Estimator.conditions

    def counted(self: Estimator, steps: Sequence[int]) -> list[Conditions]:
        prepared.extend(steps)
        return conditions(self, steps)

    monkeypatch.setattr(Estimator, "conditions", counted)
    list(denoise(estimator(), KNOWN, SCHEDULE, visited, 0, seeded(1), Settling(150, BOOKS)))
    assert prepared == steps_made(len(SCHEDULE), visited, 150)

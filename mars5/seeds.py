"""Random numbers of a call; each piece of a text has its own, whatever the others drew."""

from __future__ import annotations

import secrets
from numbers import Integral

import numpy as np
import torch

from mars5.config import SEEDS
from mars5.errors import ConfigError

_PIECE, _REFINEMENT = 1, 2


def fresh_seed() -> int:
    """A seed for who gave none, short enough to be typed again."""
    return secrets.randbelow(2**32)


class Seeds:
    """Generators on the CPU for the pieces of one text.

    The first piece draws from the caller's seed or generator, as a text of one piece does. All
    others follow from that generator's state at the start and from their place, so that a piece is
    the same whether those before it were made in this call, in another one, or at the same time.

    Args:
        seed: of the first piece.
        generator: its generator, if there is no seed; None is torch's global one. It is drawn from
            by the first piece alone.
    """

    def __init__(self, seed: int | None = None, generator: torch.Generator | None = None) -> None:
        self._seed = None if seed is None else checked_seed(seed)
        if self._seed is not None:
            generator = torch.Generator().manual_seed(self._seed)
        self._generator = generator
        copy = torch.Generator()
        state = torch.get_rng_state() if self._generator is None else self._generator.get_state()
        copy.set_state(state)
        self._root = int(torch.randint(SEEDS - 1, (), generator=copy))

    def of_piece(self, piece: int, attempt: int = 0) -> torch.Generator | None:
        """What a piece draws from: its coarse codes and then, unless streamed, all others."""
        if piece == attempt == 0:
            return self._generator
        return torch.Generator().manual_seed(self._derived(_PIECE, piece, attempt))

    def of_refinement(self, piece: int) -> torch.Generator:
        """What a streamed piece draws all codes but the coarse ones from, to leave those alone."""
        return torch.Generator().manual_seed(self._derived(_REFINEMENT, piece))

    def number(self, piece: int) -> int:
        """The seed of a piece; that of the first is drawn if none was given."""
        if piece:
            return self._derived(_PIECE, piece, 0)
        if self._seed is None:
            return int(torch.randint(SEEDS - 1, (), generator=self._generator))
        return self._seed

    def _derived(self, *label: int) -> int:
        state = np.random.SeedSequence([self._root, *label]).generate_state(1, np.uint64)
        return int(state[0] >> 1)


def checked_source(seed: int | None, generator: torch.Generator | None) -> torch.Generator | None:
    """What a call draws from: the generator of its seed, or its own; None is torch's global one.

    Raises:
        ConfigError: both are given, or something that is neither.
    """
    if generator is not None and not (
        isinstance(generator, torch.Generator) and generator.device.type == "cpu"
    ):
        raise ConfigError(f"generator must be a torch.Generator on the CPU, got {generator!r}")
    if seed is None:
        return generator
    if generator is not None:
        raise ConfigError("give a seed or a generator, not both")
    return torch.Generator().manual_seed(checked_seed(seed))


def checked_seed(seed: object) -> int:
    """The seed, if it is one; numbers of NumPy are, too.

    Raises:
        ConfigError: it is none.
    """
    if not isinstance(seed, Integral) or isinstance(seed, bool) or not 0 <= int(seed) < SEEDS:
        raise ConfigError(f"a seed must be a whole number from 0 to 2**63 - 1, got {seed!r:.80}")
    return int(seed)

"""Progress bars on standard error."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def shown(items: Iterable[Item], progress: bool, name: str, total: int | None) -> Iterator[Item]:
    """The same items, under a bar if one is wanted.

    Args:
        name: written before the bar.
        total: how many there are; None if that is not known.
    """
    if not progress:
        yield from items
        return
    from tqdm import tqdm

    yield from tqdm(items, name, total, leave=False)

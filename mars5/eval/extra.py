"""What evaluation needs beyond the core, imported late, and what to say when it is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from mars5.errors import MissingExtraError

INSTALL = "pip install 'mars5[eval]'"


@contextmanager
def extra(purpose: str) -> Iterator[None]:
    """Around imports of the extra `[eval]`: what is missing is named with the install line.

    Raises:
        MissingExtraError: one of the imports failed.
    """
    try:
        yield
    except ImportError as error:
        raise MissingExtraError(f"{purpose} cannot run ({error}): run `{INSTALL}`") from error

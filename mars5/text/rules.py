"""Rewriting rules: a pattern, and what is said instead of each match."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

# Patterns must be linear in the text: repeats are bounded, or cannot overlap with what follows.
Rule: TypeAlias = tuple[re.Pattern[str], Callable[[re.Match[str]], str]]


def apply(rules: Sequence[Rule], text: str) -> str:
    """`text` after one pass of each rule, in order."""
    for pattern, spoken in rules:
        text = pattern.sub(spoken, text)
    return text

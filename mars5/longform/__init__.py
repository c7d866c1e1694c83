"""Texts of any length: piece by piece, with the pauses between, in flat memory."""

from __future__ import annotations

from mars5.longform.narration import Passage, join, narrate, speeches

__all__ = ["Passage", "join", "narrate", "speeches"]

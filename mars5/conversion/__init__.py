"""Voice conversion: the speech of a checkpoint's own voice with another one's pitch and timbre."""

from __future__ import annotations

from mars5.conversion.converter import Conversion, Converter, OwnVoice

__all__ = ["Conversion", "Converter", "OwnVoice"]

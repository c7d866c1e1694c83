"""MARS5: text-to-speech that clones a voice from 2-12 seconds of reference audio."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["InferenceConfig", "Mars5Error", "Mars5TTS", "Speech", "Voice", "__version__"]

if TYPE_CHECKING:
    from mars5.config import InferenceConfig
    from mars5.errors import Mars5Error
    from mars5.speech import Speech
    from mars5.tts import Mars5TTS
    from mars5.voice import Voice
else:
    _HOMES = {
        "InferenceConfig": "mars5.config",
        "Mars5Error": "mars5.errors",
        "Mars5TTS": "mars5.tts",
        "Speech": "mars5.speech",
        "Voice": "mars5.voice",
    }

    def __getattr__(name: str) -> Any:
        """Import a public name at its first use: torch takes seconds, `mars5 --help` needs none."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value

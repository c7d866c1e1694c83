"""The timbres that were found for voices, each once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from mars5.config import InferenceConfig
from mars5.nar.timbre import Timbre
from mars5.voice import Voice

# What a timbre depends on beside the voice.
_SETTINGS = (
    "timesteps", "x_0_temp", "q0_override_steps", "nar_settle_step", "nar_timbre",
    "nar_guidance_w", "deep_clone", "show_reference_once",
)  # fmt: skip


class Timbres:
    """What was found for voices, as long as they live; copies and pickles begin with nothing."""

    def __init__(self) -> None:
        self._found: WeakKeyDictionary[Voice, dict[tuple[Any, ...], Timbre | None]] = (
            WeakKeyDictionary()
        )

    def of(
        self, voice: Voice, cfg: InferenceConfig, find: Callable[[], Timbre | None]
    ) -> Timbre | None:
        """That of a voice with these settings; `find` is called if it is not known yet."""
        found = self._found.setdefault(voice, {})
        key = tuple(getattr(cfg, name) for name in _SETTINGS)
        if key not in found:
            found[key] = find()
        return found[key]

    def __reduce__(self) -> tuple[type[Timbres], tuple[()]]:
        return Timbres, ()

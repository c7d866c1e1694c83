"""How a text shall be spoken, beside the settings: a profile, and a style by audio or by words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from mars5.audio import AudioInput
from mars5.errors import ConfigError
from mars5.profiles import AUTO, named_profile
from mars5.styles import VOICE_SUFFIXES, Style, StyleBank, StyleChoice
from mars5.voice import Voice

if TYPE_CHECKING:
    from mars5.tts import Mars5TTS

StyleInput: TypeAlias = AudioInput | Voice | Style | StyleChoice


@dataclass(frozen=True, eq=False)
class Direction:
    """What a caller wishes; the names are those of `Mars5TTS.generate`, where they are explained.

    Attributes:
        live: the audio is heard while it is made, which "auto" takes into account.

    Raises:
        ConfigError: a profile that is not known, a style given twice, a strength without a style.
    """

    profile: str | None = None
    style: StyleInput | None = None
    style_strength: float = 1.0
    instructions: str | None = None
    live: bool = False

    def __post_init__(self) -> None:
        if self.profile not in (None, AUTO):
            named_profile(str(self.profile))
        if self.style is not None and self.instructions is not None:
            raise ConfigError("give a style or instructions that choose one, not both")
        if not self.wants_style and self.style_strength != 1:
            raise ConfigError(
                f"style_strength is {self.style_strength!r}, but there is no style: give style or "
                "instructions"
            )

    @property
    def wants_style(self) -> bool:
        return self.style is not None or self.instructions is not None


def choose_style(bank: StyleBank | None, direction: Direction) -> StyleChoice | None:
    """The style that the instructions choose, or the choice that was given; None for neither.

    Args:
        bank: None for the shipped one.

    Raises:
        StyleError: the bank has nothing like it.
    """
    if direction.instructions is not None:
        bank = StyleBank.shipped() if bank is None else bank
        return bank.choose(direction.instructions)
    return direction.style if isinstance(direction.style, StyleChoice) else None


def styled(system: Mars5TTS, voice: Voice, style: StyleInput, strength: float) -> Voice:
    """The voice with a style, whose clips this system prepares.

    Raises:
        AudioInputError, VoiceError: the clip cannot be used.
        ConfigError: the strength is not a number from 0 to 1.
    """
    clip = style.style if isinstance(style, StyleChoice) else style
    if not isinstance(clip, Style):
        return voice.with_style(system._voice_for(clip, None, None), strength)
    plain = None if clip.plain is None else _clip_voice(system, clip.plain)
    return voice.with_style(_clip_voice(system, clip), strength, plain=plain)


def _clip_voice(system: Mars5TTS, style: Style) -> Voice:
    if style.path.suffix in VOICE_SUFFIXES:
        return system._voice_for(Voice.load(style.path), style.text, None)
    return system.voice(style.path, style.text, provenance={"licence": style.licence})

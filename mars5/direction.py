"""How a text shall be spoken, beside the settings: a profile, and a style by audio or by words."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

from mars5.audio import AudioInput
from mars5.config import InferenceConfig, check_settings
from mars5.engine import Engine, is_transcribed
from mars5.errors import ConfigError
from mars5.profiles import AUTO, Profile, named_profile, resolve_profile
from mars5.styles import VOICE_SUFFIXES, Style, StyleBank, StyleChoice
from mars5.voice import Voice
from mars5.voice_maker import VoiceMaker

StyleInput: TypeAlias = AudioInput | Voice | Style | StyleChoice


@dataclass(frozen=True, eq=False)
class Direction:
    """What a caller wishes; the names are those of `Mars5TTS.generate`, where they are explained.

    Attributes:
        speed: of the speech; None leaves that of the settings.
        live: the audio is heard while it is made, which "auto" takes into account.
        default_profile: of calls that give neither profile nor settings.
        bank: what instructions choose from; None for the shipped one.

    Raises:
        ConfigError: a profile that is not known, a style given twice, a strength without a style.
    """

    profile: str | None = None
    style: StyleInput | None = None
    style_strength: float = 1.0
    instructions: str | None = None
    speed: float | None = None
    live: bool = False
    default_profile: str | None = None
    bank: StyleBank | None = None

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


@dataclass(frozen=True, eq=False)
class Directed:
    """What a call's wishes come to.

    Attributes:
        profile: whose settings `cfg` are, if it is a profile's.
    """

    voice: Voice
    cfg: InferenceConfig
    profile: Profile | None


def directed(
    engine: Engine,
    text: str,
    ref_audio: AudioInput | Voice | None,
    ref_transcript: str | None,
    cfg: InferenceConfig | None,
    direction: Direction,
) -> Directed:
    """Voice and settings of a call; arguments and errors are those of `Mars5TTS.generate`."""
    voice = directed_voice(engine.voices, ref_audio, ref_transcript, cfg, direction)
    name, profile = direction.profile or direction.default_profile, None
    if cfg is None and name is not None:
        profile = resolve_profile(
            name, engine.device.type, characters=len(text),
            transcript=voice.transcript is not None,
            live=direction.live, directed=voice.style is not None,
        )  # fmt: skip
        cfg = profile.config(engine.config).for_reference(is_transcribed(voice))
    cfg = engine.settings_for(voice, cfg)
    if direction.speed is not None:
        cfg = replace(cfg, speed=direction.speed)
    return Directed(voice, cfg, profile)


def directed_voice(
    voices: VoiceMaker,
    ref_audio: AudioInput | Voice | None,
    ref_transcript: str | None,
    cfg: InferenceConfig | None,
    direction: Direction,
) -> Voice:
    """The voice with its style; arguments and errors as above."""
    check_settings(cfg)
    if cfg is not None and direction.profile is not None:
        raise ConfigError("give a profile or settings (cfg), not both")
    choice = choose_style(direction)
    voice = voices.of(ref_audio, ref_transcript, cfg)
    style = direction.style if choice is None else choice
    if style is None:
        return voice
    voice = styled(voices, voice, style, direction.style_strength)
    return voice if choice is None else replace(voice, style_choice=choice)


def choose_style(direction: Direction) -> StyleChoice | None:
    """The style that the instructions choose, or the choice that was given; None for neither.

    Raises:
        StyleError: the bank has nothing like it.
    """
    if direction.instructions is not None:
        bank = StyleBank.shipped() if direction.bank is None else direction.bank
        return bank.choose(direction.instructions)
    return direction.style if isinstance(direction.style, StyleChoice) else None


def styled(voices: VoiceMaker, voice: Voice, style: StyleInput, strength: float) -> Voice:
    """The voice with a style, whose clips are prepared.

    Raises:
        AudioInputError, VoiceError: the clip cannot be used.
        ConfigError: the strength is not a number from 0 to 1.
    """
    clip = style.style if isinstance(style, StyleChoice) else style
    if not isinstance(clip, Style):
        return voice.with_style(voices.of(clip), strength)
    plain = None if clip.plain is None else _clip_voice(voices, clip.plain)
    return voice.with_style(_clip_voice(voices, clip), strength, plain=plain)


def _clip_voice(voices: VoiceMaker, style: Style) -> Voice:
    if style.path.suffix in VOICE_SUFFIXES:
        return voices.of(Voice.load(style.path), style.text)
    return voices.make(style.path, style.text, provenance={"licence": style.licence})

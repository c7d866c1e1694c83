"""Profiles: named presets of settings and checkpoint for the four uses of the system."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from types import MappingProxyType
from typing import Any

from mars5.config import STEP_PROFILES, InferenceConfig, ModelConfig
from mars5.errors import ConfigError
from mars5.hub import NANO

PUBLISHED = "CAMB-AI/MARS5-TTS"
AUTO = "auto"
SHORT_TEXT = 200  # characters: about 12 s of speech, the most that one utterance should have


@dataclass(frozen=True)
class Profile:
    """What one use of the system needs.

    Attributes:
        name: flash, pro, instruct or nano.
        model: the checkpoint, where none is named.
        settings: `InferenceConfig` values that replace those the checkpoint recommends.
        purpose: what it is for, in words.
        reason: why it was chosen, in words.
    """

    name: str
    model: str
    settings: Mapping[str, Any]
    purpose: str
    reason: str = "asked for by name"

    def config(self, model: ModelConfig) -> InferenceConfig:
        """The checkpoint's recommended settings, with those of this profile."""
        settings = {**model.defaults, **self.settings}
        if "timesteps" in self.settings:  # a checkpoint may have fewer than the published 200
            settings["timesteps"] = min(settings["timesteps"], model.nar.diffusion_steps)
        return InferenceConfig(**settings)


def _preset(name: str, model: str, purpose: str, **settings: Any) -> Profile:
    return Profile(name, model, MappingProxyType(settings), purpose)


_ALL = (
    _preset(
        "flash", PUBLISHED, "voice agents: the first sound soon",
        timesteps=STEP_PROFILES["draft"], deep_clone=False,
    ),
    _preset(
        "pro", PUBLISHED, "audiobooks and dubs: the closest clone",
        timesteps=STEP_PROFILES["exact"],
    ),
    _preset(
        "instruct", PUBLISHED, "identity and delivery set apart, by audio or by words",
        timesteps=STEP_PROFILES["balanced"],
    ),
    _preset("nano", NANO, "on the device, without a GPU or a network"),
)  # fmt: skip
PROFILES: Mapping[str, Profile] = MappingProxyType({profile.name: profile for profile in _ALL})
NAMES = (*PROFILES, AUTO)


def named_profile(name: str) -> Profile:
    """The profile of that name, which is not "auto".

    Raises:
        ConfigError: there is none.
    """
    if name not in PROFILES:
        raise ConfigError(f"there is no profile {name!r}; known: {', '.join(NAMES)}")
    return PROFILES[name]


def choose_profile(
    device: str,
    *,
    characters: int = 0,
    transcript: bool = False,
    live: bool = False,
    directed: bool = False,
) -> Profile:
    """The profile for a request, with the reason; the first rule that fits decides.

    Args:
        device: type of the device: "cpu", "cuda", "mps".
        characters: length of the text; 0 if not known yet.
        transcript: what the reference says is known.
        live: the audio is heard while it is made (streaming).
        directed: a style or instructions are given.
    """
    if device == "cpu":
        name = "nano"
        reason = "there is no GPU, and a CPU does not speak with the published size in real time"
    elif directed:
        name, reason = "instruct", "a style or instructions are given"
    elif live:
        name, reason = "flash", "the audio is heard while it is made"
    elif transcript:
        name, reason = "pro", "nobody waits, and the reference's transcript allows a deep clone"
    elif characters > SHORT_TEXT:
        name = "pro"
        reason = f"nobody waits, and the text is long: over {SHORT_TEXT} characters"
    else:
        name = "flash"
        reason = "the text is short, and without the reference's transcript there is no deep clone"
    return replace(PROFILES[name], reason=f"chosen: {reason}")


def resolve_profile(name: str, device: str, **facts: Any) -> Profile:
    """The profile of a name; "auto" is decided by `choose_profile`, whose arguments follow.

    Raises:
        ConfigError: no profile has that name.
    """
    return choose_profile(device, **facts) if name == AUTO else named_profile(name)


def preset_table() -> str:
    """What each profile sets, in Markdown."""
    rows = [
        (
            f"`{profile.name}`",
            profile.purpose,
            f"`{profile.model}`",
            ", ".join(f"`{key}={value}`" for key, value in profile.settings.items()) or "nothing",
        )
        for profile in _ALL
    ]
    return _table(("profile", "for", "checkpoint, if none is named", "sets"), rows)


def decision_table() -> str:
    """What "auto" chooses, in Markdown: every case of `choose_profile`, alike ones joined."""
    return _table(
        ("device", "style given", "streaming", "transcript", "characters", "profile"),
        [(*_words(case), f"`{_choice(case)}`") for case in _joined_cases()],
    )


_Case = tuple[tuple[Any, ...], ...]  # the values of each fact for which the choice is the same
_FACTS = (("cpu", "cuda or mps"), (True, False), (True, False), (True, False), (True, False))


def _choice(case: _Case) -> str:
    device, directed, live, transcript, long = (values[0] for values in case)
    return choose_profile(
        device.split()[0],
        characters=SHORT_TEXT + 1 if long else SHORT_TEXT,
        transcript=transcript,
        live=live,
        directed=directed,
    ).name


def _joined_cases() -> Iterator[_Case]:
    """Cases in which a fact that cannot change the choice has all its values."""

    def split(case: _Case) -> Iterator[_Case]:
        every = {_choice(tuple((value,) for value in values)) for values in product(*case)}
        if len(every) == 1:
            yield case
            return
        place = next(i for i, values in enumerate(case) if len(values) > 1)
        for value in case[place]:
            yield from split((*case[:place], (value,), *case[place + 1 :]))

    return split(_FACTS)


def _words(case: _Case) -> tuple[str, ...]:
    size = {True: f"over {SHORT_TEXT}", False: f"up to {SHORT_TEXT}"}
    names = ({}, *[{True: "yes", False: "no"}] * 3, size)
    return tuple(
        "any" if len(values) > 1 else str(shown.get(values[0], values[0]))
        for values, shown in zip(case, names, strict=True)
    )


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

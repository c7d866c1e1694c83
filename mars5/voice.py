"""A voice: a reference prepared once, as a value that is saved, loaded and passed around."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from numbers import Real
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mars5.errors import ConfigError, VoiceError
from mars5.voice_file import SPEAKERS, Contents, read, write

if TYPE_CHECKING:
    from mars5.styles import StyleChoice

_LEAST_LENGTH = 0.1  # of a mixture, as a share of its parts'; under it little but rounding is left
MAX_PARTS = 16  # of a blend
PROMPT_STRENGTH = 0.5  # from here on a style's codes are continued instead of the voice's


@dataclass(frozen=True, eq=False)
class Voice:
    """A reference, prepared: its audio is not needed again.

    A blend of voices (`Voice.blend`) has no reference: no codes and no transcript, so it is good
    for shallow clones by the checkpoint that it was made with.

    Attributes:
        codes: (R, Q) int64 codec codes of the reference; (0, Q) in a blend.
        transcript: what the reference says; None allows shallow clones only.
        codec: name of the codec that made the codes.
        checkpoint: fingerprint of the models that computed the speaker vectors.
        ar_speaker, nar_speaker: (D,) float32 speaker vectors of the two models.
        provenance: free facts for people: source, licence, consent.
        frame_rate: frames of codes per second, for people; None if not known.
        style: the voice that shows the delivery (`with_style`); None if this one does.
        style_plain: what the style was compared with; None for the whole of it.
        style_strength: how much of the style there is, above 0 to 1; 0 without a style.
        style_choice: how instructions chose the style, if they did.
    """

    codes: Tensor
    transcript: str | None
    codec: str
    checkpoint: str
    ar_speaker: Tensor
    nar_speaker: Tensor
    provenance: dict[str, str] = field(default_factory=dict)
    frame_rate: float | None = None
    style: Voice | None = None
    style_strength: float = 0.0
    style_plain: Voice | None = None
    style_choice: StyleChoice | None = None

    @property
    def delivery(self) -> Voice:
        """The voice whose codes and transcript the AR continues in a deep clone.

        Codes cannot be mixed, so it is the style from `PROMPT_STRENGTH` on; but this voice if
        there is a `style_plain`, since the style's codes hold the whole of its speaker.
        """
        whole = self.style_plain is None and self.style_strength >= PROMPT_STRENGTH
        return self.style if whole and self.style is not None else self

    def with_style(
        self, style: Voice, strength: float = 1.0, *, plain: Voice | None = None
    ) -> Voice:
        """This voice with the delivery of another one.

        The AR is given another speaker vector, and continues the codes of `delivery`; all that the
        NAR is given stays this voice's. At strength 0 this is the voice as it was.

        With v, s and p the AR's speaker vectors of voice, style and plain, it is given
        (1 - strength) * v + strength * s, so at 1 it sees nothing of this voice; or with `plain`
        v + strength * (s - p), what sets the style apart from its own speaker. Both are brought to
        the length that their parts have, weighted likewise.

        Args:
            style: a voice without a style, of the same checkpoint and codec.
            strength: 0 to 1.
            plain: the style's speaker, reading without any.

        Raises:
            VoiceError: one of the two has a style already, they are of different checkpoints or
                codecs, or so opposite that the mixture leaves nothing.
            ConfigError: the strength is not a number from 0 to 1.
        """
        number = isinstance(strength, Real) and not isinstance(strength, bool)
        if not number or not 0 <= strength <= 1:  # also refuses NaN
            raise ConfigError(f"style_strength must be a number from 0 to 1, got {strength!r}")
        voices, shares = [self, style], [1 - strength, strength]
        if plain is not None:
            voices, shares = [self, style, plain], [1, strength, -strength]
        if any(voice.style is not None for voice in voices):
            raise VoiceError("a voice with a style cannot take or be one: give voices without")
        _check_alike(voices)
        if strength == 0:
            return self
        mixed = style.ar_speaker
        if plain is not None or strength < 1:
            mixed = _mixed("ar_speaker", [voice.ar_speaker for voice in voices], shares)
        return replace(
            self, ar_speaker=mixed, style=style, style_strength=float(strength), style_plain=plain
        )

    @property
    def is_blend(self) -> bool:
        """Whether this is a blend of voices, without a recording of its own."""
        return not len(self.codes)

    @classmethod
    def blend(cls, parts: Sequence[tuple[Voice, float]]) -> Voice:
        """A voice between voices: their speaker vectors, mixed.

        The vectors of one model have about the same length, and mean something by their direction;
        so the mixture is brought to the weighted mean of the lengths. The notes of each voice are
        kept, behind its number.

        Args:
            parts: voices and their positive weights, which are divided by their sum.

        Raises:
            VoiceError: no pairs of a voice and a weight, none or too many of them, a weight that is
                not positive and finite, voices of different checkpoints or codecs, or voices so
                opposite that nothing is left.
        """
        voices, weights = _checked_parts(parts)
        first = voices[0]
        notes = {
            f"{number}.{key}": value
            for number, voice in enumerate(voices, 1)
            for key, value in voice.provenance.items()
        }
        shares = " + ".join(f"{w:.4g} of voice {i}" for i, w in enumerate(weights, 1))
        ar, nar = (
            _mixed(name, [getattr(voice, name) for voice in voices], weights) for name in SPEAKERS
        )
        return cls(
            first.codes[:0], None, first.codec, first.checkpoint, ar, nar,
            {"blend": shares, **notes}, first.frame_rate,
        )  # fmt: skip

    def check_usable(self, checkpoint: str, transcript: str | None) -> None:
        """Refuse what a style or a blend cannot do: another checkpoint, or a blend's deep clone.

        Args:
            checkpoint: fingerprint of the models that shall speak.
            transcript: one given with the voice.

        Raises:
            VoiceError: one of the two is asked for.
        """
        if self.style is not None and self.checkpoint != checkpoint:
            raise VoiceError(
                f"the voice got its style with the checkpoint {self.checkpoint!r}, this model is "
                f"{checkpoint!r}: give voice and style apart, and this model joins them"
            )
        if not self.is_blend:
            return
        if self.checkpoint != checkpoint:
            raise VoiceError(
                f"the voice is a blend made with the checkpoint {self.checkpoint!r}, this model is "
                f"{checkpoint!r}, and a blend has no recording to compute it anew from: make its "
                "voices with this model and blend them again"
            )
        if transcript is not None:
            raise VoiceError(
                "the voice is a blend, which has no recording that a transcript could describe: "
                "leave the transcript out, which gives a shallow clone"
            )

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file, whole or not at all.

        Raises:
            VoiceError: the voice has a style, or the folder does not exist or cannot be written.
        """
        if self.style is not None:
            raise VoiceError("a voice with a style is not saved: save the two apart, and join them")
        contents = Contents(
            self.codes, self.transcript, self.codec, self.checkpoint,
            self.ar_speaker, self.nar_speaker, self.provenance, self.frame_rate,
        )  # fmt: skip
        write(path, contents)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Voice:
        """Read what `save` wrote.

        Raises:
            VoiceError: no such file, or not a voice file, or a damaged one.
        """
        return cls(*read(path))


def _checked_parts(parts: Sequence[tuple[Voice, float]]) -> tuple[list[Voice], list[float]]:
    """The voices of a blend, and their shares of it, which add up to 1."""
    if not isinstance(parts, Sequence) or isinstance(parts, str):
        raise VoiceError(
            f"a blend takes a list of pairs (voice, weight), got {type(parts).__name__}"
        )
    if not 1 <= len(parts) <= MAX_PARTS:
        raise VoiceError(f"a blend takes 1 to {MAX_PARTS} voices, got {len(parts)}")
    pairs = [_checked_part(number, part) for number, part in enumerate(parts, 1)]
    voices, total = [voice for voice, _ in pairs], sum(weight for _, weight in pairs)
    if any(voice.style is not None for voice in voices):
        raise VoiceError("a voice with a style cannot be blended: give voices without")
    _check_alike(voices)
    return voices, [weight / total for _, weight in pairs]


def _checked_part(number: int, part: object) -> tuple[Voice, float]:
    if not isinstance(part, (tuple, list)) or len(part) != 2:
        raise VoiceError(f"part {number} of a blend must be (voice, weight), got {part!r:.80}")
    voice, weight = part
    if not isinstance(voice, Voice):
        raise VoiceError(
            f"part {number} of a blend must begin with a Voice, got {voice!r:.80}: Voice.load "
            "reads a voice file, and Mars5TTS.voice makes a voice of a recording"
        )
    real = isinstance(weight, Real) and not isinstance(weight, bool)
    if not real or not 0 < weight < math.inf:  # also refuses NaN
        raise VoiceError(f"the weight of voice {number} must be positive, got {weight!r:.80}")
    return voice, float(weight)


def _check_alike(voices: Sequence[Voice]) -> None:
    first = voices[0]
    for number, voice in enumerate(voices[1:], 2):
        for name in ("codec", "checkpoint"):
            one, other = getattr(first, name), getattr(voice, name)
            if one != other:
                raise VoiceError(
                    f"voice 1 was made with the {name} {one!r}, voice {number} with {other!r}: "
                    "make both again from their audio, with one model"
                )


def _mixed(name: str, vectors: list[Tensor], weights: list[float]) -> Tensor:
    if len({vector.shape for vector in vectors}) > 1:
        raise VoiceError(f"the voices have {name} of different widths: make them again")
    stack, share = torch.stack(vectors).double(), torch.tensor(weights, dtype=torch.float64)
    mixture, length = share @ stack, share @ stack.norm(dim=1)
    if length <= 0 or mixture.norm() < _LEAST_LENGTH * length:
        raise VoiceError(
            f"the voices cancel out in {name}: choose weights that differ more, or other voices"
        )
    return (mixture * (length / mixture.norm())).float()

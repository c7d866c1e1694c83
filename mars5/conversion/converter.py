"""`Converter`: speech of a checkpoint's own voice, given the pitch and the timbre of another one.

    codes -> log-mel -> the other register -> the other timbre -> near frames mixed in

A small checkpoint can only say clearly what it has heard for hours: its own voice. So that voice
speaks, and what is left to do for a clone is done by what a recording tells without training: where
its pitch lies, how its sound is distributed, and its frames themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mars5.codec import MelCodec
from mars5.conversion.neighbours import CONTEXT, SHARE, with_neighbours
from mars5.conversion.pitch import Register
from mars5.conversion.timbre import Timbre
from mars5.conversion.transposer import Shift, Transposer


@dataclass(frozen=True)
class Conversion:
    """From the own voice to another one: found once for a voice, then the same for every frame.

    Attributes:
        recording: (R, C) log-mel frames of the other voice.
        share: of what is near in them in the result.
    """

    shift: Shift
    timbre: Timbre
    recording: Tensor
    share: float


class Converter:
    """Converts codes to the sound that they have in another voice.

    Args:
        transposer: None leaves every voice in the own one's register.

    Attributes:
        reach: code frames on either side of a frame that its result depends on.
    """

    def __init__(self, codec: MelCodec, transposer: Transposer | None) -> None:
        self.codec, self.transposer = codec, transposer
        reach = CONTEXT + (0 if transposer is None else transposer.reach)
        self.reach = -(-reach // codec.dims.stack)

    @torch.no_grad()
    def between(
        self,
        made: Tensor,
        wanted: Tensor,
        registers: tuple[Register | None, Register | None],
        strength: float,
    ) -> Conversion:
        """The conversion of the own voice to another one.

        Args:
            made: (n, Q) codes of speech of the own voice, as it will be given.
            wanted: (m, Q) codes of the other voice's recording.
            registers: of the two.
            strength: 0 to 1, of the way.
        """
        shift = Shift.between(*registers, strength)
        here = self._transposed(self.codec.sound(made[None]), shift)[0]
        there = self.codec.sound(wanted[None])[0]
        timbre = Timbre.between(here.cpu(), there.cpu(), strength)
        return Conversion(shift, timbre.to(made.device), there, strength * SHARE)

    @torch.no_grad()
    def __call__(self, codes: Tensor, conversion: Conversion) -> Tensor:
        """Codes (B, L, Q) of the own voice -> log-mel frames (B, L * stack, C) of the other one.

        They are for the vocoder as they are: the codebooks were made for recordings, and the
        nearest codes (`codes`) of a converted sound lose words.
        """
        sound = self._transposed(self.codec.sound(codes), conversion.shift)
        sound = conversion.timbre(sound)
        return with_neighbours(sound, conversion.recording, conversion.share)

    @torch.no_grad()
    def codes(self, sound: Tensor) -> Tensor:
        """The codes (B, L, Q) nearest to log-mel frames (B, L * stack, C)."""
        return self.codec.quantise(self.codec.project(sound))

    def _transposed(self, sound: Tensor, shift: Shift) -> Tensor:
        """Log-mel frames (B, L, C) in another register."""
        if self.transposer is None or shift == Shift():
            return sound
        shifts = torch.tensor([[shift.pitch, shift.spread]], device=sound.device)
        return self.transposer(sound, shifts.expand(len(sound), -1))

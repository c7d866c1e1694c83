"""`Converter`: speech of a checkpoint's own voice, given the pitch and the timbre of another one.

    codes -> log-mel -> the other register -> the other timbre -> near frames mixed in

A small checkpoint can only say clearly what it has heard for hours: its own voice. So that voice
speaks, and what is left to do for a clone is done by what a recording tells without training: where
its pitch lies, how its sound is distributed, and its frames themselves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mars5.codec import MelCodec
from mars5.config import CODEBOOK_SIZE, N_CODEBOOKS, SAMPLE_RATE
from mars5.conversion.neighbours import CONTEXT, SHARE, with_neighbours
from mars5.conversion.pitch import HIGHEST, LOWEST, Register
from mars5.conversion.timbre import Timbre
from mars5.conversion.transposer import Shift, Transposer, stretched
from mars5.errors import CheckpointError
from mars5.fourier import mel_corners

MOST_FRAMES = 20_000  # of the own voice's speech: nine minutes of the embedded checkpoint's


@dataclass(frozen=True, eq=False)
class OwnVoice:
    """What a checkpoint knows of the voice that it speaks with.

    Attributes:
        speech: (n, Q) int64 codes of some of its speech, about a minute: its statistics.
    """

    speech: Tensor
    register: Register

    @classmethod
    def from_weights(cls, weights: dict[str, Tensor], path: Path) -> OwnVoice:
        """From a checkpoint's tensors: codes (n, Q) and register (2,) as floats.

        Args:
            path: of the file, for messages.

        Raises:
            CheckpointError: they are something else.
        """
        if weights.keys() != {"speech", "register"}:
            raise CheckpointError(
                f"{path} has a transposer and of the voice that it moves {sorted(weights)} instead "
                "of speech and register: it is of another version, take files of this one"
            )
        speech, register = weights["speech"], weights["register"]
        if not 0 < len(speech) <= MOST_FRAMES or speech.shape[1:] != (N_CODEBOOKS,):
            raise CheckpointError(
                f"{path}: own.speech must have shape (n, {N_CODEBOOKS}) with n from 1 to "
                f"{MOST_FRAMES}, got {tuple(speech.shape)}"
            )
        codes = speech.long()
        whole = torch.equal(codes.to(speech), speech)
        if not whole or codes.min() < 0 or codes.max() >= CODEBOOK_SIZE:
            raise CheckpointError(
                f"{path}: own.speech must hold whole numbers from 0 to {CODEBOOK_SIZE - 1}"
            )
        values = register.tolist() if register.shape == (2,) else [0.0, 0.0]
        if not (LOWEST <= values[0] <= HIGHEST and 0 <= values[1] < 2):
            raise CheckpointError(
                f"{path}: own.register must be a median from {LOWEST:g} to {HIGHEST:g} Hz and a "
                f"spread from 0 to 2, got {register.flatten()[:3].tolist()}"
            )
        return cls(codes, Register(*values))

    def weights(self) -> dict[str, Tensor]:
        """What `from_weights` reads; float16 holds all codes."""
        register = torch.tensor([self.register.median, self.register.spread])
        return {"speech": self.speech.half(), "register": register}

    def to(self, device: torch.device) -> OwnVoice:
        return OwnVoice(self.speech.to(device), self.register)


@dataclass(frozen=True, eq=False)
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
    """Converts codes of the own voice to the sound that they have in another one.

    Attributes:
        reach: code frames on either side of a frame that its result depends on.
    """

    def __init__(self, codec: MelCodec, transposer: Transposer, own: OwnVoice) -> None:
        self.codec, self.transposer, self.own = codec, transposer, own
        corners = mel_corners(codec.dims.n_mels, SAMPLE_RATE)
        self.centres = corners[1:-1].to(own.speech.device)
        self.reach = -(-(CONTEXT + transposer.reach) // codec.dims.stack)

    @torch.no_grad()
    def towards(self, wanted: Tensor, register: Register | None, strength: float) -> Conversion:
        """The conversion to another voice.

        Args:
            wanted: (m, Q) codes of a recording of that voice.
            register: of that voice; None leaves the own one's.
            strength: 0 to 1, of the way.
        """
        shift = Shift.between(self.own.register, register, strength)
        here = self._transposed(self.codec.sound(self.own.speech[None]), shift)[0]
        there = self.codec.sound(wanted[None])[0]
        timbre = Timbre.between(here.cpu(), there.cpu(), strength)
        return Conversion(shift, timbre.to(wanted.device), there, strength * SHARE)

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
        if shift == Shift():
            return sound
        asked = torch.tensor([[shift.pitch - math.log(shift.stretch), shift.spread]])
        moved = self.transposer(sound, asked.to(sound).expand(len(sound), -1))
        return stretched(moved, shift.stretch, self.centres)

"""A small measurement of this machine, and the profile that it can speak with in real time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from mars5.config import N_CODEBOOKS
from mars5.engine import Coarse, Engine
from mars5.profiles import PROFILES, Profile

# Of the published checkpoint (tests/golden lists every parameter).
PUBLISHED_AR, PUBLISHED_NAR, PUBLISHED_FRAME_RATE = 765_000_000, 450_000_000, 75.0
PUBLISHED_GUIDED = 2  # passes of the NAR for each step
_FRAMES, _STEPS = 16, 2  # measured
_TEXT = "Measure the speed of this machine."


@dataclass(frozen=True)
class Speed:
    """What was measured with a checkpoint, and how large that is.

    Attributes:
        device: type of the device.
        ar_frame: seconds of the AR for each frame.
        nar_frame: seconds of the NAR for each frame, in one pass.
        frame_rate: frames of codes per second of speech.
        passes: of the NAR in each step: 2 with guidance.
        ar_parameters, nar_parameters: how many.
    """

    device: str
    ar_frame: float
    nar_frame: float
    frame_rate: float
    passes: int
    ar_parameters: int
    nar_parameters: int

    def real_time_factor(self, steps: int) -> float:
        """Seconds of computing for a second of speech, with so many diffusion steps."""
        return self.frame_rate * (self.ar_frame + steps * self.passes * self.nar_frame)

    def published(self) -> Speed:
        """The same machine with the published checkpoint, estimated.

        A CPU's time goes with the weights. A GPU waits for its launches as long as models are
        small, so there the estimate says no more than that no pass gets quicker.
        """
        heavy = self.device == "cpu"
        ar = max(1.0, PUBLISHED_AR / self.ar_parameters) if heavy else 1.0
        nar = max(1.0, PUBLISHED_NAR / self.nar_parameters) if heavy else 1.0
        return Speed(
            self.device, self.ar_frame * ar, self.nar_frame * nar, PUBLISHED_FRAME_RATE,
            PUBLISHED_GUIDED, PUBLISHED_AR, PUBLISHED_NAR,
        )  # fmt: skip


def recommend(speed: Speed) -> Profile:
    """The closest profile that speaks in real time with the published size; else nano."""
    published = speed.published()
    factors = {}
    for name in ("pro", "flash"):
        factors[name] = published.real_time_factor(PROFILES[name].settings["timesteps"])
        if factors[name] < 1:
            return replace(
                PROFILES[name],
                reason=f"about {factors[name]:.2g} s for a second of speech at the published size",
            )
    slow = ", ".join(f"{name} {factor:.2g} s" for name, factor in factors.items())
    return replace(
        PROFILES["nano"],
        reason=f"the published size would take, for a second of speech, about: {slow}",
    )


def measure(engine: Engine) -> Speed:
    """Run the AR for up to 16 ids and the NAR for two steps of a second, each after a warm-up."""
    voice = engine.voices.of_codes(torch.zeros(_FRAMES, N_CODEBOOKS, dtype=torch.int64), None, {})
    rate = round(engine.codec.frame_rate)
    default = engine.default_config
    cfg = replace(default, deep_clone=False, timesteps=_STEPS, nar_settle_step=0)  # makes them all
    task = engine.task(_TEXT, voice, None, cfg, torch.Generator().manual_seed(0))

    def autoregress() -> int:
        cut = replace(cfg, generate_max_len_override=len(task.prompt.ids) + _FRAMES)
        drawn = replace(task, cfg=cut, generator=torch.Generator().manual_seed(0))
        return sum(1 for _ in engine.draw(drawn))

    def refine() -> int:
        estimator, known = engine.refinement(task, Coarse([0] * rate, "stop"))
        *_, codes = engine.denoise(estimator, known, cfg, task.generator)
        codes.cpu()  # waits for the device
        return rate * _STEPS * estimator.copies

    return Speed(
        engine.device.type,
        _seconds_each(autoregress),
        _seconds_each(refine),
        engine.codec.frame_rate,
        1 if cfg.nar_guidance_w == 1 else 2,
        sum(p.numel() for p in engine.ar.parameters()),
        sum(p.numel() for p in engine.nar.parameters()),
    )


def _seconds_each(work: Callable[[], int]) -> float:
    """Seconds for each of what `work` counts: the quicker of two runs after a warm-up."""
    work()
    taken = []
    for _ in range(2):
        started = time.perf_counter()
        count = work()
        taken.append((time.perf_counter() - started) / count)
    return min(taken)

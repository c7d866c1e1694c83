"""Time taken, by the clock and by the processor, with the device waited for."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Taken:
    """Seconds by the clock, and seconds of processor time of all threads of this process.

    On a machine that is busy with other work the first grow, the second hardly do.
    """

    wall: float
    processor: float

    def __sub__(self, other: Taken) -> Taken:
        return Taken(self.wall - other.wall, self.processor - other.processor)

    def __truediv__(self, count: float) -> Taken:
        return Taken(self.wall / count, self.processor / count)


class Clock:
    """Reads the time once the device has done all it was given."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def now(self) -> Taken:
        """Seconds since some moment in the past."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()
        return Taken(time.perf_counter(), time.process_time())


def timed(clock: Clock, work: Callable[[], object]) -> Taken:
    """What `work` takes, once."""
    start = clock.now()
    work()
    return clock.now() - start


def several(work: Callable[[], Taken], repeats: int) -> list[Taken]:
    """`repeats` measurements after one to warm up; with a single one there is no warming up."""
    if repeats > 1:
        work()
    return [work() for _ in range(repeats)]


def many(work: Callable[[], Taken], repeats: int, most: int, seconds: float) -> list[Taken]:
    """At least `repeats` measurements, as `several`; more, up to `most`, in so many seconds."""
    found = several(work, repeats)
    while len(found) < most and sum(taken.wall for taken in found) < seconds:
        found.append(work())
    return found


def late(found: Sequence[Taken]) -> Taken:
    """The 95th percentile."""
    return Taken(_late([t.wall for t in found]), _late([t.processor for t in found]))


def _late(values: list[float]) -> float:
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=20, method="inclusive")[-1]


def median(found: Sequence[Taken]) -> Taken:
    return Taken(
        statistics.median(taken.wall for taken in found),
        statistics.median(taken.processor for taken in found),
    )


def least(found: Sequence[Taken]) -> Taken:
    return Taken(min(taken.wall for taken in found), min(taken.processor for taken in found))

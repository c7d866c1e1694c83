"""Speech that is drawn again: the one loop of all who do not take what comes first."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TypeVar

from mars5.errors import GenerationError

log = logging.getLogger("mars5")

Spoken = TypeVar("Spoken")


def tries(speak: Callable[[int], Spoken], times: int, text: str) -> Iterator[Spoken]:
    """What each try gives, in order, made when it is asked for; a try without speech is left out.

    Args:
        speak: makes try 0, 1, ...
        times: how many there are, at most.
        text: of the speech, for people.

    Raises:
        GenerationError: the reason of the last try, if none gave speech.
        Mars5Error: others of `speak`, at once.
    """
    spoken, failure = False, None
    for number in range(times):
        try:
            speech = speak(number)
        except GenerationError as error:
            failure = error
            if number + 1 < times:
                log.warning("%r gave no speech (%s); trying another seed", text[:40], error)
            continue
        spoken = True
        yield speech
    if failure is not None and not spoken:
        raise failure

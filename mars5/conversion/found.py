"""The conversions that were found for voices, each once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from mars5.voice import Voice

Value = TypeVar("Value")


class Found(Generic[Value]):
    """What was found for voices, as long as they live; copies and pickles begin with nothing."""

    def __init__(self) -> None:
        self._found: WeakKeyDictionary[Voice, dict[object, Value]] = WeakKeyDictionary()

    def of(self, voice: Voice, settings: object, find: Callable[[], Value]) -> Value:
        """That of a voice with these settings; `find` is called if it is not known yet."""
        found = self._found.setdefault(voice, {})
        if settings not in found:
            found[settings] = find()
        return found[settings]

    def __reduce__(self) -> tuple[type[Found[Value]], tuple[()]]:
        return Found, ()

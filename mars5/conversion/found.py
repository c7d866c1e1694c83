"""What was found for voices, each once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")

KEPT = 64  # the least recently asked for go first


class Found(Generic[Value]):
    """Values by what they depend on; copies and pickles begin with nothing."""

    def __init__(self) -> None:
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, key: Hashable, find: Callable[[], Value]) -> Value:
        """The value of a key; `find` is called if it is not known yet, or no more."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        value = find()
        with self._lock:
            self._values[key] = value
            while len(self._values) > KEPT:
                self._values.popitem(last=False)
        return value

    def __reduce__(self) -> tuple[type[Found[Value]], tuple[()]]:
        return Found, ()

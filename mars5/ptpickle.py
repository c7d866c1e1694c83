"""The pickle inside a `.pt`, run by a machine that can do nothing but describe tensors.

torch's own weights-only unpickler could be made to corrupt memory before torch 2.10
(CVE-2026-24747), and knows a hundred globals, some of which allot memory. Here there are the six
globals of a float state dict and the instructions that torch.save writes for one.
"""

from __future__ import annotations

import pickletools
from typing import Any, NamedTuple

import torch

MAX_INSTRUCTIONS = 1_000_000  # torch.save writes about 35 for a tensor


class ForeignPickleError(Exception):
    """The pickle asks for more than the description of float tensors in dicts."""


class PickledStorage(NamedTuple):
    """What the pickle claims of a record; nothing of it is checked."""

    dtype: Any
    key: Any
    numel: Any


class PickledTensor(NamedTuple):
    """What the pickle claims of a tensor; nothing of it is checked."""

    storage: Any
    offset: Any
    shape: Any
    stride: Any


def read_pickle(data: bytes) -> Any:
    """The pickled dict, text, number or `PickledTensor`; keys of dicts are texts.

    Raises:
        ForeignPickleError: it asks for more.
        Exception: of many kinds, if it is malformed.
    """
    machine = _Machine()
    for count, (instruction, value, _) in enumerate(pickletools.genops(data)):
        if count == MAX_INSTRUCTIONS:
            raise ForeignPickleError(f"has more than {MAX_INSTRUCTIONS} instructions")
        machine.run(instruction.name, value)
    return machine.pop()


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> PickledTensor:
    return PickledTensor(storage, offset, shape, stride)


def _parameter(data: Any, *_: Any) -> Any:
    return data


_GLOBALS: dict[str, Any] = {
    "collections OrderedDict": dict,
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_parameter": _parameter,
    "torch HalfStorage": torch.float16,
    "torch BFloat16Storage": torch.bfloat16,
    "torch FloatStorage": torch.float32,
}


class _Machine:
    """The stack and memo of a pickle; what the pickle holds is never hashed, compared or called."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def pop(self) -> Any:
        return self._stack.pop()

    def run(self, instruction: str, value: Any) -> None:
        push = self._stack.append
        match instruction:
            case "PROTO" | "STOP":
                pass
            case "BINUNICODE" | "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT":
                push(value)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                push({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[instruction])
            case "GLOBAL":
                push(_find(value))
            case "MARK":
                self._marks.append(len(self._stack))
            case "EMPTY_TUPLE":
                push(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                push(tuple(self._take(len(self._stack) - int(instruction[-1]))))
            case "TUPLE":
                push(tuple(self._take(self._marks.pop())))
            case "EMPTY_DICT":
                push({})
            case "SETITEM":
                self._set_items(self._take(len(self._stack) - 2))
            case "SETITEMS":
                self._set_items(self._take(self._marks.pop()))
            case "BINPUT" | "LONG_BINPUT":
                self._memo[value] = self._stack[-1]
            case "BINGET" | "LONG_BINGET":
                push(self._memo[value])
            case "BINPERSID":
                _kind, dtype, key, _location, numel = self.pop()
                push(PickledStorage(dtype, key, numel))
            case "REDUCE":
                arguments, function = self.pop(), self.pop()
                push(_call(function, arguments))
            case "BUILD":
                self.pop()  # the version numbers that modules attach to their state dict
            case _:
                raise ForeignPickleError(f"has the instruction {instruction}")

    def _take(self, start: int) -> list[Any]:
        if not 0 <= start <= len(self._stack):
            raise ValueError("the stack has too few values")
        taken = self._stack[start:]
        del self._stack[start:]
        return taken

    def _set_items(self, items: list[Any]) -> None:
        target, keys, values = self._stack[-1], items[::2], items[1::2]
        if not isinstance(target, dict) or not all(isinstance(key, str) for key in keys):
            raise ForeignPickleError("sets items that are not named entries of a dict")
        target.update(zip(keys, values, strict=True))


def _find(name: str) -> Any:
    if name not in _GLOBALS:
        shown = name[:80].replace(" ", ".")
        raise ForeignPickleError(f"names {shown!r}, which is no part of a float state dict")
    return _GLOBALS[name]


def _call(function: Any, arguments: Any) -> Any:
    if function is dict:
        return {}
    if function is _tensor or function is _parameter:
        return function(*arguments)
    raise ForeignPickleError("calls something that makes no tensor")

"""Pretended CUDA devices in the CPU's memory, so that the paths of CUDA run where there is none.

Their tensors are the CPU's in a class of their own: all numbers are real. What a GPU refuses is
refused here: operands on two devices, generators of another one, and within a captured graph all
that waits for the device, copies from the CPU, draws, or works on another device. A graph is
recorded without effect, and replayed on the same memory. Kernels and races are not pretended.

This is built on what torch documents for extending it. Its own `FakeTensorMode` is private, has no
numbers, so that no loop that looks at some runs to its end, and indexes only in builds for CUDA.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

CPU = torch.device("cpu")
N_DEVICES = 2
_PROPERTIES = {
    Tensor.device.__get__: lambda place: place,
    Tensor.is_cuda.__get__: lambda place: place != CPU,
    Tensor.is_cpu.__get__: lambda place: place == CPU,
}
_MOVES = {Tensor.to: None, Tensor.cpu: CPU, Tensor.cuda: "cuda"}
_READS = (Tensor.tolist, Tensor.numpy, Tensor.__array__)
_INDEXING = ("aten::index", "aten::index_put", "aten::index_put_")
_WAITS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class CudaError(RuntimeError):
    """What a GPU would have refused, or done otherwise than meant."""


class CudaTensor(torch.Tensor):
    """A tensor on the device `place`."""

    place: torch.device

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        return Machine.now().call(func, args, kwargs or {})


class Graph:
    """For `torch.cuda.CUDAGraph`."""

    def __init__(self) -> None:
        self._pool: object = object()
        self._work: list[tuple[Callable[..., Any], Any, Any, list[Tensor]]] | None = None
        self._overwritten: dict[int, tuple[Any, Any]] = {}
        self._own: set[int] = set()

    def pool(self) -> object:
        return self._pool

    def capture_begin(self, pool: object | None) -> None:
        self._work, self._pool = [], pool or self._pool

    def record(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run it for its shapes; `capture_end` puts back what it overwrites."""
        changes = func._schema.is_mutable
        for tensor in _tensors([args, kwargs]) if changes else []:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in self._own | set(self._overwritten):
                self._overwritten[storage.data_ptr()] = storage, storage.clone()
        out = func(*args, **kwargs)
        if changes or not any(returned.alias_info for returned in func._schema.returns):
            new = [] if changes else _tensors(out)
            self._own |= {tensor.untyped_storage().data_ptr() for tensor in new}
            self._captured().append((func, args, kwargs, new))
        return out

    def capture_end(self) -> None:
        """Nothing has been computed so far: there is garbage in what the graph will write."""
        for storage, before in self._overwritten.values():
            storage.copy_(before)
        for *_, new in self._captured():
            for tensor in new:
                tensor.fill_(math.nan if tensor.is_floating_point() else True)

    def replay(self) -> None:
        with torch._C.DisableTorchFunction(), torch.inference_mode():
            for func, args, kwargs, new in self._captured():
                out = func(*args, **kwargs)
                for tensor, value in zip(new, _tensors(out) if new else [], strict=True):
                    tensor.copy_(value)

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a graph can be neither copied nor saved")

    def _captured(self) -> list[tuple[Callable[..., Any], Any, Any, list[Tensor]]]:
        if self._work is None:
            raise CudaError("nothing was captured")
        return self._work


class Stream:
    """For `torch.cuda.Stream`; number 0 is a device's default stream."""

    def __init__(self, device: object = None, *, number: int | None = None) -> None:
        machine = Machine.now()
        self.device = machine.place(device)
        machine.n_streams += number is None
        self.cuda_stream = machine.n_streams if number is None else number

    def wait_stream(self, other: Stream) -> None:
        Machine.now().log.append(f"{self.cuda_stream} waits for {other.cuda_stream}")


class Capture:
    """For `torch.cuda.graph`, with its one stream for all captures that bring none."""

    def __init__(
        self,
        cuda_graph: Graph,
        pool: object | None = None,
        stream: Stream | None = None,
        capture_error_mode: str = "global",
    ) -> None:
        machine = Machine.now()
        machine.capture_stream = machine.capture_stream or stream or Stream()
        self.graph, self.pool, self.mode = cuda_graph, pool, capture_error_mode
        self.stream, self.within = stream or machine.capture_stream, ExitStack()

    def __enter__(self) -> None:
        machine = Machine.now()
        if machine.capturing is not None:
            raise CudaError("the device is waited for while another graph is captured")
        machine.log.append(f"capture on {self.stream.cuda_stream}, {self.mode}")
        self.within.enter_context(machine.on_stream(self.stream))
        machine.capturing, machine.capturing_thread = self.graph, threading.get_ident()
        self.graph.capture_begin(self.pool)

    def __exit__(self, *_: object) -> None:
        Machine.now().capturing = None
        self.graph.capture_end()
        self.within.close()


class _Generator(torch.Generator):
    """For `torch.Generator`, on any device."""

    def __new__(cls, device: object = "cpu") -> _Generator:
        return super().__new__(cls)

    def __init__(self, device: object = "cpu") -> None:
        self.place = CPU if str(device) == "cpu" else Machine.now().place(device)

    @property
    def device(self) -> torch.device:
        return self.place


class _Watch(TorchDispatchMode):
    """Sees the operators of which a call on a device is made."""

    def __init__(self, machine: Machine, place: torch.device) -> None:
        super().__init__()
        self.machine, self.place = machine, place

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and its import takes seconds

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        kwargs, machine = kwargs or {}, self.machine
        if _is_made_of_others(func):  # such ones arrive whole in inference mode
            with self:
                return func.decompose(*args, **kwargs)
        if _waits(func, args):
            machine.wait(str(func))
        graph = machine.own_capture
        if graph is None:
            return func(*args, **kwargs)
        # Attention is tagged for its dropout, which nothing here asks for.
        if torch.Tag.nondeterministic_seeded in func.tags and "attention" not in str(func):
            raise CudaError(f"{func} draws within a graph")
        if self.place != machine.current_stream().device:
            raise CudaError(f"{func} on {self.place} is not captured: the stream is another one's")
        return graph.record(func, args, kwargs)


class Machine(TorchFunctionMode):
    """A machine with pretended devices, for this thread.

    Attributes:
        waits: what the CPU has waited for.
        uploads: for each copy from the CPU whether it came from pinned memory.
        log: of streams and captures.
        capturing: the graph that is captured just now.
    """

    entered: Machine | None = None

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.uploads: list[bool] = []
        self.log: list[str] = []
        self.capturing: Graph | None = None
        self.capturing_thread = 0
        self.capture_stream: Stream | None = None
        self.n_streams = 0
        self._index = 0
        self._streams: dict[torch.device, Stream] = {}

    @classmethod
    def now(cls) -> Machine:
        if cls.entered is None:
            raise RuntimeError("a tensor of a pretended device outlived it")
        return cls.entered

    @property
    def own_capture(self) -> Graph | None:
        """The graph that this thread captures just now."""
        return self.capturing if self.capturing_thread == threading.get_ident() else None

    def place(self, device: object = None) -> torch.device:
        """The device meant, with its number."""
        found = torch.device("cuda" if device is None else device)  # type: ignore[call-overload]
        return torch.device("cuda", self._index) if found == torch.device("cuda") else found

    def current_stream(self, device: object = None) -> Stream:
        place = self.place(device)
        return self._streams.get(place) or Stream(place, number=0)

    @contextmanager
    def on_device(self, device: object) -> Iterator[None]:
        before, self._index = self._index, self.place(device).index
        yield
        self._index = before

    @contextmanager
    def on_stream(self, stream: Stream) -> Iterator[None]:
        with self.on_device(stream.device):
            before, self._streams = self._streams, {**self._streams, stream.device: stream}
            try:
                yield
            finally:
                self._streams = before

    def wait(self, what: str) -> None:
        if self.own_capture is not None:
            raise CudaError(f"{what} waits for the device within a graph")
        self.waits.append(what)

    def upload(self, source: object) -> None:
        if self.own_capture is not None:
            raise CudaError("a copy from the CPU within a graph")
        self.uploads.append(getattr(source, "in_pinned_memory", False))

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        return self.call(func, args, kwargs or {})

    def call(self, func: Any, args: Any, kwargs: Any) -> Any:
        """A function of torch, with tensors of any device."""
        if func in _PROPERTIES:
            return _PROPERTIES[func](_place(args[0]))
        if func in _MOVES:
            return self._moved(func, *args, **kwargs)
        if func is torch._has_compatible_shallow_copy_type:  # asked by `Module.to`
            return _place(args[0]) == _place(args[1])
        if func is Tensor.__iter__:
            return iter(self.call(Tensor.unbind, args, kwargs))
        place = self._common_place(func, args, kwargs)
        if place == CPU:
            return _on_cpu(func, args, kwargs)
        if func in _READS:
            self.wait(func.__name__)
        if func in (torch.tensor, torch.as_tensor):
            self.upload(args[0])
        if "device" in kwargs:
            kwargs = {**kwargs, "device": CPU}
        with torch._C.DisableTorchFunction(), _Watch(self, place):
            return _put(func(*args, **kwargs), place)

    def _common_place(self, func: Any, args: Any, kwargs: Any) -> torch.device:
        """Where this is to be computed."""
        if func in (Tensor.copy_, Tensor.__setitem__) and _place(args[0]) != CPU == _place(
            args[-1]
        ):
            if isinstance(args[-1], Tensor):
                self.upload(args[-1])
            args = args[:-1]
        places = {_place(tensor) for tensor in _tensors([args, kwargs])}
        if kwargs.get("device") is not None:
            places = {self.place(kwargs["device"])}
        if len(places) > 1:
            raise CudaError(f"{getattr(func, '__name__', func)} of tensors on {places}")
        place = places.pop() if places else CPU
        source = kwargs.get("generator")
        if source is not None and source.device != place:
            raise CudaError(f"a generator on {source.device} for numbers on {place}")
        return place

    def _moved(self, func: Any, tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        """A copy if the device is another one; on the same one what the CPU would do."""
        given = [*args, kwargs.get("device"), kwargs.get("dtype"), _MOVES[func]]
        wanted = [x.device if isinstance(x, Tensor) else x for x in given]
        dtypes = [x.dtype if isinstance(x, Tensor) else x for x in given]
        devices = [x for x in wanted if isinstance(x, (str, torch.device))]
        here = _place(tensor)
        there = self.place(devices[0]) if devices else here
        dtype = next((x for x in dtypes if isinstance(x, torch.dtype)), tensor.dtype)
        if there == here:
            with torch._C.DisableTorchFunction(), _Watch(self, here):
                moved = tensor.to(dtype)
                return moved if here == CPU else _put(moved, here)
        if here == CPU:
            self.upload(tensor)
        if there == CPU:
            self.wait("a copy to the CPU")
        with torch._C.DisableTorchFunction():
            copy = tensor.as_subclass(Tensor).to(dtype, copy=True)
            return copy if there == CPU else _put(copy, there)


def _on_cpu(func: Any, args: Any, kwargs: Any) -> Any:
    with torch._C.DisableTorchFunction():
        if func is not Tensor.pin_memory:
            return func(*args, **kwargs)
        copy = args[0].clone()
        copy.in_pinned_memory = True
        return copy


@cache
def _is_made_of_others(func: Any) -> bool:
    return func.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd)


@cache
def _depends_on_values(func: Any) -> bool:
    return bool(_WAITS & set(func.tags))


def _waits(func: Any, args: Any) -> bool:
    """Whether the CPU must know a value of the device to go on."""
    if func._schema.name in _INDEXING:
        return any(index.dtype in (torch.bool, torch.uint8) for index in _tensors(args[1]))
    return _depends_on_values(func)


def _place(value: object) -> torch.device:
    if isinstance(value, CudaTensor):
        return value.place
    with torch._C.DisableTorchFunction():
        return value.device if isinstance(value, Tensor) else CPU


def _put(value: Any, place: torch.device) -> Any:
    """All tensors in it, as those of the device."""
    if isinstance(value, (tuple, list)):
        return type(value)([_put(part, place) for part in value])
    if not isinstance(value, Tensor) or isinstance(value, CudaTensor):
        return value
    put = value.as_subclass(CudaTensor)
    put.place = place
    return put


def _tensors(value: Any) -> list[Tensor]:
    """All tensors in it."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [x for part in value for x in _tensors(part)] if isinstance(value, (tuple, list)) else []


@contextmanager
def fake_cuda() -> Iterator[Machine]:
    """A machine with two pretended CUDA devices."""
    machine = Machine()
    replaced = {
        "is_available": lambda: True, "device_count": lambda: N_DEVICES, "CUDAGraph": Graph,
        "Stream": Stream, "graph": Capture, "stream": machine.on_stream,
        "device": machine.on_device, "current_stream": machine.current_stream,
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name, value in replaced.items():
            patch.setattr(torch.cuda, name, value)
        patch.setattr(torch, "Generator", _Generator)
        patch.setattr(Machine, "entered", machine)
        with machine:
            yield machine

"""Work captured as CUDA graphs: one launch where there were hundreds."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import torch

WARM_UPS = 2  # runs before a capture, in which libraries make what they need

Output = TypeVar("Output")

# Torch can capture one graph at a time in a process: the next capture begins with waiting for the
# whole device, which would break one that is under way.
_one_at_a_time = threading.Lock()


class Replay(Generic[Output]):
    """A CUDA graph, called to run its work again on the same tensors; it returns the same ones.

    Args:
        run: the work. It launches kernels on the device and waits for none of them.
        device: of all its tensors.
        neighbour: one whose memory this one may use, since they never run at the same time; what
            each returns is its own.
    """

    def __init__(
        self, run: Callable[[], Output], device: torch.device, neighbour: Replay[Any] | None = None
    ) -> None:
        self._graph = torch.cuda.CUDAGraph()
        pool = None if neighbour is None else neighbour._graph.pool()
        with _one_at_a_time, torch.cuda.device(device):
            here = torch.cuda.current_stream()
            # Left to torch, the stream would be of the device that captured first in the process:
            # work on another one would not be captured, but run once.
            self._stream: torch.cuda.Stream = (
                neighbour._stream if neighbour else torch.cuda.Stream()
            )
            self._stream.wait_stream(here)
            try:
                # Around the capture too, since torch leaves its stream in place if that fails.
                with torch.cuda.stream(self._stream):
                    for _ in range(WARM_UPS):
                        run()
                    with torch.cuda.graph(
                        self._graph,
                        pool,
                        self._stream,
                        capture_error_mode="thread_local",  # other threads may use the device
                    ):
                        self._output = run()
            finally:
                here.wait_stream(self._stream)

    def __call__(self) -> Output:
        self._graph.replay()
        return self._output


def stream_number(device: torch.device) -> int:
    """Tells the streams on which work for the device is launched apart; 0 where there are none.

    Tensors that graphs read and write are safe on one stream only: those of another one would be
    overwritten while they are read.
    """
    return torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0

"""Where to compute, and in which precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from mars5.errors import ConfigError, DeviceError, Mars5Error, OutOfMemoryError

KINDS = ("cpu", "cuda", "mps")
DTYPES = (torch.float32, torch.float16, torch.bfloat16)

# Only CUDA has an error type of its own; the CPU and MPS say it in a RuntimeError.
_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED")


def resolve_device(device: str | torch.device | None) -> torch.device:
    """The device meant; None is CUDA, else MPS, else the CPU.

    Raises:
        DeviceError: not a device this library knows, or not there.
    """
    if device is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        wanted = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise DeviceError(
            f"device must be one of {', '.join(KINDS)}, optionally with an index, got {device!r}"
        ) from error
    if wanted.type not in KINDS:
        raise DeviceError(f"device must be one of {', '.join(KINDS)}, got {device!r}")
    if wanted.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("device 'mps' asked for, but this machine or torch has none: use 'cpu'")
    if wanted.type == "cuda" and (wanted.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"device {str(wanted)!r} asked for, but torch sees {torch.cuda.device_count()} CUDA "
            "devices: use device='cpu', or install a CUDA build of torch and a driver"
        )
    return wanted


def resolve_dtype(dtype: torch.dtype | None, device: torch.device) -> torch.dtype:
    """The precision meant; None is float32 on a CPU, which has no fast half precision everywhere,
    and float16 elsewhere.

    Raises:
        ConfigError: not one of `DTYPES`.
    """
    if dtype is None:
        return torch.float32 if device.type == "cpu" else torch.float16
    if dtype not in DTYPES:
        raise ConfigError(f"dtype must be one of {', '.join(map(str, DTYPES))}, got {dtype!r}")
    return dtype


def uploaded(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device; a CUDA device is not waited for, which takes pinned memory."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


@contextmanager
def at_work() -> Iterator[None]:
    """Around what the models do: in their own precision, and memory may run out; also a decorator.

    Raises:
        OutOfMemoryError: for the many ways in which torch says so.
    """
    try:
        with ExitStack() as stack:
            for kind in KINDS:
                if torch.is_autocast_enabled(kind):  # the caller's: the caches are not in its type
                    stack.enter_context(torch.autocast(kind, enabled=False))
            yield
    except (MemoryError, RuntimeError) as error:
        reason = str(error).partition("\n")[0][:200]
        told = isinstance(error, (MemoryError, torch.OutOfMemoryError))
        if isinstance(error, Mars5Error) or not (told or any(s in reason for s in _NO_MEMORY)):
            raise
        raise OutOfMemoryError(
            f"the memory did not suffice ({reason or type(error).__name__}): shorten the text or "
            "the reference, free memory, or load the model on another device"
        ) from error

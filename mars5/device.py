"""Where to compute, and in which precision."""

from __future__ import annotations

import torch

from mars5.errors import DeviceError

KINDS = ("cpu", "cuda", "mps")


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


def default_dtype(device: torch.device) -> torch.dtype:
    """float32 on a CPU, which has no fast half precision everywhere; float16 elsewhere."""
    return torch.float32 if device.type == "cpu" else torch.float16

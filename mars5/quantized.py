"""Linear layers with int8 weights for CPUs: torch's own kernels (FBGEMM, oneDNN), packed once."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from mars5.errors import ConfigError

INT8 = "int8"
_LARGEST = 127


def check_quantize(quantize: str | None, device: torch.device, dtype: torch.dtype) -> None:
    """Refuse what cannot be quantised: raises `ConfigError`."""
    if quantize is None:
        return
    if quantize != INT8:
        raise ConfigError(f"quantize must be {INT8!r} or None, got {quantize!r}")
    if device.type != "cpu" or dtype == torch.float16:
        raise ConfigError(
            f"quantize={INT8!r} is for a CPU, with the NAR in float32 or bfloat16, got {dtype} on "
            f"{device}: leave it out, or load with device='cpu'"
        )


class Int8Linear(nn.Module):
    """`nn.Linear` with one int8 scale a row of the weight; inputs are rounded to 8 bits a call.

    A call's inputs share one scale, so a row's result depends a little on the rows beside it.

    Args:
        linear: the float32 layer on the CPU whose weight to round.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach()
        scales = (weight.abs().amax(1) / _LARGEST).clamp(min=torch.finfo(torch.float32).tiny)
        zeros = torch.zeros(len(weight), dtype=torch.long)
        with warnings.catch_warnings():  # torch means to replace these tensors, not the kernels
            warnings.simplefilter("ignore", UserWarning)
            rounded = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
        bias = None if linear.bias is None else linear.bias.detach()
        self.packed: Any = torch.ops.quantized.linear_prepack(rounded, bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) float32 -> (..., out) float32."""
        return torch.ops.quantized.linear_dynamic(x, self.packed)


def quantize_linears(module: nn.Module) -> None:
    """Replace every `nn.Linear` below `module` by an `Int8Linear`, in place and one by one."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                setattr(parent, name, Int8Linear(child))

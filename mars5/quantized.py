"""Int8 weights for CPUs: linear layers by torch's own kernels (FBGEMM, oneDNN), packed once."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mars5.ar.model import CodecLM
from mars5.errors import ConfigError
from mars5.layers import Attention, Gate, attend_heads, split_heads
from mars5.nar.model import ResidualTransformer

INT8 = "int8"
_LARGEST = 127
_TINY = torch.finfo(torch.float32).tiny
# With one of these, sums of 8-bit products are exact; other kernels may add pairs in 16 bits.
_EXACT_SUMS = ("avx512_vnni", "avx_vnni", "neon")


def check_quantize(quantize: str | None, device: torch.device, dtype: torch.dtype) -> None:
    """Refuse what cannot be quantised: raises `ConfigError`."""
    if quantize is None:
        return
    if quantize != INT8:
        raise ConfigError(f"quantize must be {INT8!r} or None, got {quantize!r}")
    if device.type != "cpu" or dtype != torch.float32:
        raise ConfigError(
            f"quantize={INT8!r} is for a CPU, and what it does not round stays in float32, got "
            f"{dtype} on {device}: leave out quantize, or load with device='cpu' and no dtype"
        )


def quantize_models(ar: CodecLM, nar: ResidualTransformer) -> None:
    """Round both models' weights in place, but for embeddings, norms and the speaker encoders.

    A voice is the same with and without.
    """
    quantize_linears(ar.ar)
    quantize_linears(nar.tfm)
    quantize_linears(nar.residual_decoder)


def quantize_linears(module: nn.Module) -> None:
    """Replace every linear layer below `module` by an int8 one, in place and one by one."""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Linear):
            setattr(module, name, Int8Linear(child.weight, child.bias))
        elif isinstance(child, Attention):
            setattr(module, name, Int8Attention(child))
        elif isinstance(child, Gate):
            setattr(module, name, Int8Gate(child))
        else:
            quantize_linears(child)


def is_quantized(model: nn.Module) -> bool:
    """Whether any of its layers is an int8 one."""
    return any(isinstance(part, Int8Linear) for part in model.modules())


class Int8Linear(nn.Module):
    """`nn.Linear` whose weight has one scale a row; each row of input is rounded to 8 bits, too.

    The rows of a call do not touch; a single one is rounded a little finer than beside others.

    Args:
        weight: (out, in) float32 on the CPU.
        bias: (out,) or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        weight = weight.detach()
        scales = (weight.abs().amax(1) / _LARGEST).clamp(min=_TINY)
        zeros = torch.zeros(len(weight), dtype=torch.long)
        with warnings.catch_warnings():  # torch means to replace these tensors, not the kernels
            warnings.simplefilter("ignore", UserWarning)
            rounded = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
        self.packed: Any = torch.ops.quantized.linear_prepack(rounded, None)
        self.bias = None if bias is None else bias.detach()
        self._use_7_bits = not any(_capabilities().get(name) for name in _EXACT_SUMS)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) float32 -> (..., out) float32."""
        if x.numel() == x.shape[-1]:
            y = self._product(x)
            return y if self.bias is None else y.add_(self.bias)
        # The kernel has one scale for all rows: give them all the same largest number.
        scales = x.abs().amax(-1, keepdim=True).clamp_(min=_TINY)
        y = self._product(x / scales)
        return y.mul_(scales) if self.bias is None else torch.addcmul(self.bias, y, scales)

    def _product(self, x: Tensor) -> Tensor:
        product: Tensor = torch.ops.quantized.linear_dynamic(x, self.packed, self._use_7_bits)
        return product


class Int8Attention(nn.Module):
    """`Attention` with int8 projections."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        weight, bias, out = attention.in_proj_weight, attention.in_proj_bias, attention.out_proj
        dim = weight.shape[1]
        self.n_heads = attention.n_heads
        self.queries = Int8Linear(weight[:dim], bias[:dim])
        self.both = Int8Linear(weight[dim:], bias[dim:])
        self.out_proj = Int8Linear(out.weight, out.bias)

    def forward(self, x: Tensor, visible: Tensor | None) -> Tensor:
        """As of `Attention`."""
        return self.attend(x, *self.keys_values(x), visible)

    def keys_values(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """As of `Attention`."""
        keys, values = self.both(memory).chunk(2, -1)
        return split_heads(keys, self.n_heads), split_heads(values, self.n_heads)

    def attend(self, x: Tensor, keys: Tensor, values: Tensor, visible: Tensor | None) -> Tensor:
        """As of `Attention`."""
        queries = split_heads(self.queries(x), self.n_heads)
        mixed: Tensor = self.out_proj(attend_heads(queries, keys, values, visible))
        return mixed


class Int8Gate(nn.Module):
    """`Gate` with both int8 layers in one."""

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self.both = Int8Linear(torch.cat([gate.W.weight, gate.V.weight]), None)

    def forward(self, y: Tensor) -> Tensor:
        """As of `Gate`."""
        shown, passed = self.both(y).chunk(2, -1)
        return F.silu(shown).mul_(passed)


def _capabilities() -> dict[str, Any]:
    """What torch knows of this CPU: nothing, if it is too old to tell."""
    known = getattr(torch.cpu, "get_capabilities", None)
    return {} if known is None else dict(known())

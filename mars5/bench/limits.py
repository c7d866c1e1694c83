"""What the device can do at most, measured, and what the models ask of it, counted."""

from __future__ import annotations

from functools import partial

import torch

from mars5.ar.model import CodecLM
from mars5.bench.clock import Clock, Taken, least, several, timed
from mars5.config import N_CODEBOOKS, NARDims
from mars5.quantized import Int8Linear, is_quantized

REPEATS = 6  # the best counts: a limit is not a habit
CPU_FLOATS, DEVICE_FLOATS = 2**26, 2**28  # far more than the caches hold
CPU_SIDE, DEVICE_SIDE = 1024, 8192  # of the matrices


def byte_taken(clock: Clock) -> Taken:
    """Time for each byte read from memory: a sum over many."""
    on_cpu = clock.device.type == "cpu"
    memory = torch.ones(CPU_FLOATS if on_cpu else DEVICE_FLOATS, device=clock.device)
    return least(several(lambda: timed(clock, memory.sum), REPEATS)) / memory.nbytes


def flop_taken(clock: Clock, dtype: torch.dtype, int8: bool = False) -> Taken:
    """Time for each operation of a large product of matrices; `int8`: by the int8 layers."""
    side = CPU_SIDE if clock.device.type == "cpu" else DEVICE_SIDE
    matrix = torch.ones(side, side, device=clock.device, dtype=dtype)
    product = Int8Linear(matrix, None) if int8 else partial(torch.matmul, matrix)
    return least(several(lambda: timed(clock, lambda: product(matrix)), REPEATS)) / (2 * side**3)


def bytes_for_token(model: CodecLM, context: int) -> int:
    """What the AR reads for one id: the decoder's weights, and keys and values of `context`."""
    d, width = model.dims, model.embed.weight.element_size()
    weights = d.n_layers * (4 * d.dim**2 + 3 * d.dim * d.ff_dim) + d.n_vocab * d.dim
    each = 1 if is_quantized(model.ar) else width
    return weights * each + context * 2 * d.n_layers * d.dim * width


def flops_for_step(
    dims: NARDims, frames: int, memory: int, refined: int, levels: int, passes: int
) -> int:
    """Operations of the NAR's products of matrices in one step, as the library does them.

    Args:
        frames: L, in the decoder.
        memory: M, text ids and the speaker vector in the encoder.
        refined, levels: frames and codebooks of which logits are made.
        passes: 2 with guidance.
    """
    d, layer = dims.dim, 4 * dims.dim**2 + 3 * dims.dim * dims.ff_dim
    encoder = dims.n_enc_layers * memory * (2 * layer + 4 * memory * d)
    own = frames * (2 * layer + 4 * frames * d)
    # Of the cross-attention, queries and output read the frames, keys and values the text.
    cross = 4 * d**2 * (frames + memory) + 4 * frames * memory * d
    heads = 2 * refined * min(levels, N_CODEBOOKS) * d * dims.n_classes
    times = 2 * (dims.t_emb_dim + d) * d * 2  # of encoder and decoder
    return passes * (encoder + dims.n_dec_layers * (own + cross) + heads + times)

"""AR decoding over static memory: rows of keys and values, one id a row and step.

The same numbers as `CodecLM` with a cache, which stays the readable form: projections are fused
where their weights lie side by side, rotary tables are made once, nothing is allocated that lasts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mars5.ar.model import Block, CodecLM
from mars5.ar.sampler import Sampler
from mars5.ar.sampling import Vocabulary
from mars5.config import InferenceConfig
from mars5.device import uploaded
from mars5.layers import RMSNorm, rotary_table

Projection = Callable[[Tensor], Tensor]


def lay_side_by_side(model: CodecLM) -> None:
    """Move the weights that read the same input next to each other, so that they can be fused.

    In float32 on a CPU every projection of the decoder is also stored by columns: there, products
    with one vector take 1/4 to 1/3 less time so. The parameters keep names, shapes and values; a
    few at a time are copied.
    """
    weight = model.ar.output.weight
    by_columns = weight.device.type == "cpu" and weight.dtype == torch.float32
    groups = [group for block in model.ar.layers for group in _groups(block)]
    if by_columns:
        groups.append((model.ar.output,))
    for group in groups:
        linears = [linear for linear in group if isinstance(linear, nn.Linear)]
        weights = [linear.weight.detach() for linear in linears]
        if by_columns:
            joined = torch.cat([weight.t() for weight in weights], 1).t()
        else:
            joined = torch.cat(weights)
        parts = joined.split([len(weight) for weight in weights])
        for linear, part in zip(linears, parts, strict=True):
            linear.weight = nn.Parameter(part, linear.weight.requires_grad)


def _groups(block: nn.Module) -> list[Sequence[nn.Module]]:
    """The projections of a block in the order of use; one group for each input."""
    if not isinstance(block, Block):  # for the type checker: a ModuleList forgets
        raise TypeError("not a block")
    attention, feed_forward = block.attention, block.feed_forward
    return [
        (attention.wq, attention.wk, attention.wv),
        (attention.wo,),
        (feed_forward.w1, feed_forward.w3),
        (feed_forward.w2,),
    ]


def fused(linears: Sequence[nn.Module]) -> Projection:
    """One projection with the outputs of several, one after the other in the last axis."""
    weights = [linear.weight for linear in linears if isinstance(linear, nn.Linear)]
    if len(weights) == len(linears) and _are_neighbours(weights):
        first, rows = weights[0].detach(), sum(len(weight) for weight in weights)
        joined = first.as_strided((rows, first.shape[1]), first.stride())
        return lambda x: F.linear(x, joined)
    if len(linears) == 1:
        return linears[0]
    return lambda x: torch.cat([linear(x) for linear in linears], -1)


def _are_neighbours(weights: Sequence[Tensor]) -> bool:
    """Whether the rows of each follow those of the one before, all within one storage."""
    first = weights[0]
    storage, expected = first.untyped_storage().data_ptr(), first.storage_offset()
    for weight in weights:
        same = weight.untyped_storage().data_ptr() == storage and weight.stride() == first.stride()
        if not same or weight.storage_offset() != expected:
            return False
        expected += len(weight) * first.stride(0)
    return True


@dataclass(frozen=True)
class _Layer:
    """One block, as the loop below calls it."""

    norm: RMSNorm
    qkv: Projection
    out: Projection
    ff_norm: RMSNorm
    gate_and_up: Projection
    down: Projection

    @classmethod
    def of(cls, block: nn.Module) -> _Layer:
        qkv, out, gate_and_up, down = (fused(group) for group in _groups(block))
        if not isinstance(block, Block):
            raise TypeError("not a block")
        return cls(block.attention_norm, qkv, out, block.ffn_norm, gate_and_up, down)

    def feed_forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_and_up(normed(self.ff_norm, x)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


def normed(norm: RMSNorm, x: Tensor) -> Tensor:
    """`norm(x)` in one call: one kernel on CUDA, and half the time of the module on a CPU."""
    return F.rms_norm(x, norm.weight.shape, norm.weight, norm.eps)


class Rows:
    """Keys and values of `rows` sequences, and the decoder that extends them.

    Position p of a row lives in slot p mod `slots`; with as many slots as the sliding window a
    query sees that many positions including itself.

    Args:
        slots: positions for which there is room; no more are kept than the sliding window.
        limit: positions a row may reach, for the tables.

    Attributes:
        lengths: (rows,) int64 on the device: positions of each row so far.
    """

    def __init__(self, model: CodecLM, rows: int, limit: int) -> None:
        dims, weight = model.dims, model.embed.weight
        self.model, self.device = model, weight.device
        self.slots = min(limit, dims.sliding_window)
        self.heads = (dims.n_heads, dims.head_dim)
        shape = (dims.n_layers, 2, rows, dims.n_heads, self.slots, dims.head_dim)
        self.memory = torch.zeros(shape, device=self.device, dtype=weight.dtype)
        self.memories = self.memory.unbind()
        self.lengths = torch.zeros(rows, dtype=torch.long, device=self.device)
        self.layers = [_Layer.of(block) for block in model.ar.layers]
        self.output = fused((model.ar.output,))
        positions = torch.arange(limit, device=self.device)
        cos, sin = rotary_table(positions, dims.head_dim)
        self.cos = cos.repeat_interleave(2, -1)[:, None, None]
        self.sin = torch.stack([-sin, sin], -1).flatten(1)[:, None, None]
        self.rows = torch.arange(rows, device=self.device)
        self.slot_numbers = positions[: self.slots]

    def prefill(self, row: int, ids: Tensor, speaker: Tensor) -> None:
        """Start row `row` anew with [speaker (1, D), ids (1, S)]; S may be 0."""
        x = torch.cat([speaker[:, None].to(self.memory.dtype), self.model.embed(ids)], 1)
        n = x.shape[1]
        kept = min(n, self.slots)
        slots = torch.arange(n - kept, n, device=self.device) % self.slots
        rotary = self.cos[:n], self.sin[:n]
        wide = n > self.model.dims.sliding_window + 1
        mask = self.model.causal_mask(torch.arange(n, device=self.device)) if wide else None
        for layer, memory in zip(self.layers, self.memories, strict=True):
            qkv = self._qkv(layer, x, rotary)
            memory[:, row].index_copy_(2, slots, qkv[0, -kept:, 1:].permute(1, 2, 0, 3))
            q, k, v = qkv.transpose(1, 3).unbind(2)
            mixed = F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None)
            x = layer.feed_forward(x + layer.out(mixed.transpose(1, 2).flatten(2)))
        self.lengths[row] = n

    def step(self, ids: Tensor, used: int) -> Tensor:
        """Float32 logits (rows, V) after one more id (rows,) in every row.

        `lengths` stays: the caller counts. In a row that is not in use anything comes out.

        Args:
            used: slots to look at, at least those that hold a position of some row.
        """
        x = F.embedding(ids, self.model.embed.weight)
        lengths = self.lengths
        rotary = self.cos.index_select(0, lengths), self.sin.index_select(0, lengths)
        slots = lengths % self.slots
        mask = None
        if len(self.rows) > 1 or self.device.type == "cuda":  # where `used` may be too many
            mask = (self.slot_numbers[:used] <= lengths[:, None])[:, None, None]
        seen = self.memory[..., :used, :].flatten(0, 1).unbind()
        for layer, memory, keys, values in zip(
            self.layers, self.memories, seen[::2], seen[1::2], strict=True
        ):
            qkv = self._qkv(layer, x, rotary)
            memory[:, self.rows, :, slots] = qkv[:, 1:]
            mixed = F.scaled_dot_product_attention(qkv[:, 0, :, None], keys, values, mask)
            x = layer.feed_forward(x + layer.out(mixed.flatten(1)))
        return self.output(normed(self.model.ar.norm, x)).float()

    def _qkv(self, layer: _Layer, x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        """(..., D) -> (..., 3, H, head_dim), queries and keys rotated in float32."""
        qkv = layer.qkv(normed(layer.norm, x)).unflatten(-1, (3, *self.heads))
        given = qkv[..., :2, :, :]
        pairs = given.float()
        swapped = pairs.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)
        given.copy_((pairs * rotary[0]).addcmul_(swapped, rotary[1]))
        return qkv


class EagerSteps:
    """Decodes in `n_rows` rows at once: each step feeds every row's last id and draws the next.

    Attributes:
        ahead: ids worth drawing between two looks at them.
        tokens: (rows,) int64, the ids last drawn, on the device of the sampling.
    """

    ahead = 1

    def __init__(
        self, model: CodecLM, vocabulary: Vocabulary, cfg: InferenceConfig, n_rows: int
    ) -> None:
        self.n_rows, limit = n_rows, cfg.max_len + 1  # the speaker vector takes a place
        self.rows = Rows(model, n_rows, limit)
        # MPS lacks some of the filters' operators.
        place = self.rows.device if self.rows.device.type == "cuda" else torch.device("cpu")
        self.sampler = Sampler(vocabulary, model.dims.n_vocab, cfg, n_rows, limit, place)
        self.tokens = torch.zeros(n_rows, dtype=torch.long, device=place)
        self.in_use = torch.zeros(n_rows, dtype=torch.long, device=place)
        self.finite = torch.ones(n_rows, dtype=torch.bool, device=place)
        self._lengths = [0] * n_rows
        self._spoilt: set[int] = set()

    def admit(self, row: int, prompt: Sequence[int], speaker: Tensor, estimate: int | None) -> None:
        """Begin a sequence in a row: the prompt (S >= 1 ids) after its speaker vector (1, D)."""
        if row in self._spoilt:  # a mask alone does not stop what is not finite
            self.rows.memory[:, :, row] = 0
            self._spoilt.remove(row)
        ids = torch.tensor([prompt], device=self.rows.device)
        self.rows.prefill(row, ids[:, :-1], speaker.to(self.rows.device))
        self.sampler.reset(row, estimate)
        self.tokens[row] = prompt[-1]
        self.in_use[row], self.finite[row] = 1, True
        self._lengths[row] = len(prompt)

    def release(self, row: int) -> None:
        """The row's sequence is over; its further ids mean nothing."""
        self.in_use[row], self.rows.lengths[row], self._lengths[row] = 0, 0, 0

    def run(self, noise: Tensor) -> tuple[list[list[int]], list[list[bool]]]:
        """As many steps as there is noise for, (n, rows, V); one wait for the device at the end.

        Returns:
            for each step and row the id, and whether all its logits were finite up to there.
        """
        drawn, sound = [], []
        for one in uploaded(noise, self.tokens.device):
            self._advance(one)
            drawn.append(self.tokens.clone())
            sound.append(self.finite.clone())
            self._lengths = [length and length + 1 for length in self._lengths]
        ids, finite = torch.stack(drawn).tolist(), torch.stack(sound).tolist()
        self._spoilt.update(row for row, is_finite in enumerate(finite[-1]) if not is_finite)
        return ids, finite

    def _advance(self, noise: Tensor) -> None:
        used = min(max(self._lengths) + 1, self.rows.slots)
        self._feed_and_draw(noise, used)

    def _feed_and_draw(self, noise: Tensor, used: int) -> None:
        logits = self.rows.step(self.tokens.to(self.rows.device), used).to(self.tokens.device)
        self.rows.lengths += self.in_use.to(self.rows.device)
        self.finite &= logits.sum(-1).isfinite()  # as all its terms; a seventh of their checks
        self.tokens.copy_(self.sampler.draw(logits, noise))

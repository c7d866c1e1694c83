"""The AR loop: prefill the prompt, then one id a step until the end token or the limit."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from mars5.ar.model import CodecLM, KVCache
from mars5.ar.sampling import Vocabulary, draw, next_token_probabilities
from mars5.config import InferenceConfig
from mars5.errors import GenerationError


@torch.inference_mode()
def generate_ids(
    model: CodecLM,
    prompt: Tensor,
    speaker: Tensor,
    vocabulary: Vocabulary,
    cfg: InferenceConfig,
    estimate: int | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[int]:
    """Yield joint ids as they are drawn; the end token, if it comes, is the last one.

    Args:
        prompt: (1, S) joint ids.
        speaker: (1, D) from `CodecLM.speaker_vector`.
        estimate: expected number of tokens, for the penalty on an early end; None turns it off.
        generator: source of randomness on the CPU; None is torch's global one.

    The loop ends without an end token when prompt and generated ids together reach `cfg.max_len`.
    """
    ids = prompt
    cache = None
    if cfg.use_kv_cache:
        weight = model.embed.weight
        slots = max(cfg.max_len, prompt.shape[1]) + 1  # the speaker vector takes a place
        cache = KVCache(model.dims, slots, 1, weight.device, weight.dtype)
    new: Tensor = prompt
    while ids.shape[1] < cfg.max_len:
        started = cache is not None and cache.length > 0
        logits = model.next_logits(
            new if cache is not None else ids, None if started else speaker, cache
        )
        generated = ids[:, prompt.shape[1] :]
        # On the CPU: the same numbers are drawn on every device, and no filter needs its operators.
        logits = _checked(logits.cpu(), model)
        probabilities = next_token_probabilities(logits, generated.cpu(), estimate, vocabulary, cfg)
        new = draw(probabilities, generator).to(ids.device)
        ids = torch.cat([ids, new], 1)
        token = int(new)
        yield token
        if token == vocabulary.end:
            return


def _checked(logits: Tensor, model: CodecLM) -> Tensor:
    if not logits.isfinite().all():
        raise GenerationError(
            f"the AR's logits are not finite in {model.embed.weight.dtype}: load the model with "
            "dtype=torch.bfloat16 or torch.float32"
        )
    return logits

"""The plain rules, timed: nothing kept, nothing computed ahead, float32, one pass at a time.

The AR reads the whole sequence again for each id, the NAR runs once with and once without the
speaker; both compute speaker vectors anew at each step. The readable form of what the library does,
not the published program, whose AR has a cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor

from mars5.ar.model import CodecLM
from mars5.ar.sampling import Noise, Vocabulary, draw, next_token_probabilities
from mars5.bench.clock import Clock, Taken, timed
from mars5.bench.random_systems import random_model
from mars5.config import InferenceConfig
from mars5.engine import Task
from mars5.nar.decode import Known
from mars5.nar.diffusion import cosine_schedule, log_onehot, posterior, q_pred, sample, uniforms
from mars5.nar.model import ResidualTransformer
from mars5.quantized import is_quantized
from mars5.tts import Mars5TTS

TOKENS, STEPS = 2, 2  # timed, after one to warm up


def token_taken(system: Mars5TTS, task: Task, prompt: list[int], clock: Clock) -> Taken:
    """Time for each id after a prompt; by random weights where the system's are not float32."""
    model, dims = system.ar, system.ar.dims
    if model.embed.weight.dtype != torch.float32 or is_quantized(model):
        model = random_model(lambda: CodecLM(dims), system.device, torch.float32)
    reference = task.voice.codes[None].to(system.device)
    ids = plain_ids(model, prompt, reference, system.vocabulary, task.cfg)
    next(ids)
    return timed(clock, lambda: list(islice(ids, TOKENS))) / TOKENS


def step_taken(system: Mars5TTS, task: Task, known: Known, clock: Clock) -> Taken:
    """Time for each step of the exact law, as above."""
    model, dims = system.nar, system.nar.dims
    if model.text_embed.weight.dtype != torch.float32 or is_quantized(model):
        model = random_model(lambda: ResidualTransformer(dims), system.device, torch.float32)
    reference = task.voice.codes[None].to(system.device)
    text = torch.tensor([task.prompt.ids[: task.prompt.n_text]], device=system.device)
    steps = plain_steps(model, text, reference, known, task.cfg, STEPS + 1)
    next(steps)
    return timed(clock, lambda: list(steps)) / STEPS


@torch.inference_mode()
def plain_ids(
    model: CodecLM,
    prompt: list[int],
    reference: Tensor,
    vocabulary: Vocabulary,
    cfg: InferenceConfig,
) -> Iterator[int]:
    """Ids without end, for a reference (1, R, Q)."""
    ids = torch.tensor([prompt], device=reference.device)
    noise = Noise(model.dims.n_vocab, torch.Generator().manual_seed(1))
    while True:
        logits = model.next_logits(ids, model.speaker_vector(reference)).cpu()
        generated = ids[:, len(prompt) :].cpu()
        probabilities = next_token_probabilities(logits, generated, None, vocabulary, cfg)
        new = draw(probabilities, noise.draw(1))
        ids = torch.cat([ids, new.to(ids.device)], 1)
        yield int(new)


@torch.inference_mode()
def plain_steps(
    model: ResidualTransformer,
    text: Tensor,
    reference: Tensor,
    known: Known,
    cfg: InferenceConfig,
    steps: int,
) -> Iterator[Tensor]:
    """The codes (1, L, Q) after each step of a schedule of so many."""
    device, n_classes = text.device, model.dims.n_classes
    schedule = cosine_schedule(steps).to(device)
    n_text = torch.tensor([text.shape[1]], device=device)
    n_reference = torch.tensor([reference.shape[1]], device=device)
    x = known.codes
    for t in range(steps - 1, -1, -1):
        at = torch.tensor([t], device=device)
        speaker = model.speaker_vector(reference, n_reference)
        logits = model(text, n_text, speaker, x, at)
        if cfg.nar_guidance_w != 1:
            without = model(text, n_text, model.no_speaker_vector(1), x, at)
            logits = cfg.nar_guidance_w * logits + (1 - cfg.nar_guidance_w) * without
        log_x0 = (logits / cfg.x_0_temp).log_softmax(-1)
        log_p = posterior(log_x0, log_onehot(x, n_classes), t, schedule)
        drawn = sample(log_p, uniforms(tuple(log_p.shape), None, device))
        noised = q_pred(log_onehot(known.codes, n_classes), t, schedule)
        given = sample(noised, uniforms(tuple(noised.shape), None, device))
        x = torch.where(known.mask, given if t else known.codes, drawn)
        yield x

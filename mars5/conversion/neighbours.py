"""The recording's own frames, mixed into a sound that is near to them.

After Baas, van Niekerk and Kamper, "Voice conversion with just nearest neighbors", Interspeech 2023
(https://arxiv.org/abs/2305.18975): each frame is replaced by the mean of those of the recording
that are most like it. A few seconds do not hold all that is to be said, so here the mean is only a
share of the result: enough for the grain of the voice, too little to change a word.
"""

from __future__ import annotations

import torch
from torch import Tensor

NUMBER = 4
SHARE = 0.3  # more is more like the voice, and loses words
SHARPNESS = 4.0  # of the weights, as distances over their mean grow
CONTEXT = 1  # frames on either side that are compared, too


def with_neighbours(sound: Tensor, recording: Tensor, share: float) -> Tensor:
    """Log-mel frames (B, L, C) with a share of the nearest frames of a recording (R, C)."""
    if not share:
        return sound
    # As a difference, not by products: the same in any company.
    mode = "donot_use_mm_for_euclid_dist"
    distances = torch.cdist(_in_context(sound), _in_context(recording[None]), compute_mode=mode)
    nearest, which = distances.topk(min(NUMBER, len(recording)), dim=2, largest=False)
    scale = nearest.mean(2, keepdim=True).clamp(min=1e-6)
    weights = (-SHARPNESS * nearest / scale).softmax(2)
    return sound.lerp((weights[..., None] * recording[which]).sum(2), share)


def _in_context(sound: Tensor) -> Tensor:
    """(B, L, C) -> (B, L, 3 C): each frame with those beside it, the last ones twice."""
    before, after = (sound.roll(step, 1) for step in (CONTEXT, -CONTEXT))
    before[:, :CONTEXT], after[:, -CONTEXT:] = sound[:, :CONTEXT], sound[:, -CONTEXT:]
    return torch.cat([before, sound, after], 2)

"""Step 3: turn the corpus into codes and train the two tokenizers.

A token shard holds the codes of one corpus shard with what training needs to know of each
utterance; it is a thirtieth of the audio's size.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from mars5.codec import MelCodec
from mars5.files import replacing
from mars5.train.corpus import read_shard
from mars5.train.rooms import in_a_room
from mars5.train.teachers import as_wave


@dataclass(frozen=True)
class Example:
    """One utterance, ready for training.

    Attributes:
        text: what is said.
        speaker: utterances of one speaker may stand in for each other.
        codes: (T, Q) int16.
        roomy: (T, Q) int16, the codes of the same in some room.
        progress: (T,) float16, how far into `text` (0..1, in characters) the speech is at the
            middle of each frame, from the teacher's phone times.
        delivered: (T', Q) int16, the codes upon the own voice's coarse ones (`delivery`), if made.
    """

    text: str
    speaker: str
    codes: Tensor
    roomy: Tensor
    progress: Tensor
    delivered: Tensor | None = None


def encode_shard(codec: MelCodec, shard: Path, target: Path) -> None:
    """Write the codes of a corpus shard, unless they exist already."""
    if target.exists():
        return
    entries: list[dict[str, object]] = []
    codes: list[Tensor] = []
    roomy: list[Tensor] = []
    progress: list[Tensor] = []
    rng = np.random.default_rng(crc32(shard.name.encode()))
    for utterance, pcm in read_shard(shard):
        wave = as_wave(pcm).numpy()
        for found, recording in ((codes, wave), (roomy, in_a_room(wave, rng))):
            found.append(codec.encode(torch.from_numpy(recording)[None])[0].to(torch.int16))
        middles = (torch.arange(len(codes[-1])) + 0.5) / codec.frame_rate
        progress.append(text_progress(utterance.text, utterance.phones, middles).half())
        facts = {"text": utterance.text, "speaker": utterance.speaker}
        entries.append(facts | {"frames": len(codes[-1])})
    parts = {"codes": codes, "roomy": roomy, "progress": progress}
    tensors = {name: torch.cat(each) for name, each in parts.items()}
    with replacing(target) as temporary:
        save_file(tensors, temporary, {"utterances": json.dumps(entries)})


def text_progress(text: str, phones: Sequence[tuple[str, float]], times: Tensor) -> Tensor:
    """(n,) share of the text's characters said at `times` (seconds).

    Pauses inside are matched to commas and the like, in order, as far as both exist; between two
    such anchors every phone stands for the same number of characters.
    """
    marks = [i for i, c in enumerate(text[:-1]) if c in ",;:"]
    pauses = [i for i, (p, _) in enumerate(phones) if p == "pau" and 0 < i < len(phones) - 1]
    anchors = list(zip(pauses, marks, strict=False)) if len(pauses) == len(marks) else []
    ends, positions = [0.0, phones[0][1]], [0.0, 0.0]
    first, place = 1, 0.0
    for phone, mark in [*anchors, (len(phones) - 1, len(text))]:
        count = phone - first
        for k in range(count):
            ends.append(phones[first + k][1])
            positions.append(place + (mark - place) * (k + 1) / count)
        ends.append(phones[phone][1])
        positions.append(float(mark))
        first, place = phone + 1, float(mark)
    return _interpolate(times, torch.tensor(ends), torch.tensor(positions)) / max(len(text), 1)


def _interpolate(x: Tensor, known_x: Tensor, known_y: Tensor) -> Tensor:
    """Piecewise linear, constant outside."""
    right = torch.searchsorted(known_x, x).clamp(1, len(known_x) - 1)
    x0, x1, y0, y1 = known_x[right - 1], known_x[right], known_y[right - 1], known_y[right]
    share = ((x - x0) / (x1 - x0).clamp(min=1e-6)).clamp(0, 1)
    return y0 + (y1 - y0) * share


def read_examples(paths: Iterable[Path], delivered: Path | None = None) -> list[Example]:
    """All utterances of token shards, with what the folder `delivered` has for them."""
    examples: list[Example] = []
    for path in paths:
        with safe_open(path, "pt") as file:
            entries = json.loads(file.metadata()["utterances"])
            tensors = [file.get_tensor(name) for name in ("codes", "roomy", "progress")]
        lengths = [entry["frames"] for entry in entries]
        others: Sequence[Tensor | None] = [None] * len(entries)
        if delivered is not None and (delivered / path.name).exists():
            others = load_codes(delivered / path.name)
        split = (tensor.split(lengths) for tensor in tensors)
        parts = zip(entries, *split, others, strict=True)
        examples += [Example(e["text"], e["speaker"], *each) for e, *each in parts]
    return examples


def save_codes(path: Path, codes: Sequence[Tensor]) -> None:
    """Write codes (T, Q) of the utterances of a shard, in its order."""
    facts = {"frames": json.dumps([len(each) for each in codes])}
    with replacing(path) as temporary:
        save_file({"codes": torch.cat(list(codes)).to(torch.int16)}, temporary, facts)


def load_codes(path: Path) -> Sequence[Tensor]:
    """What `save_codes` wrote: (T, Q) int16 for each utterance."""
    with safe_open(path, "pt") as file:
        return file.get_tensor("codes").split(json.loads(file.metadata()["frames"]))

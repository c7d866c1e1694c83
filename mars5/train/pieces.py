"""Weights in small files: what a machine that is only lent for a while can hand back.

Half-precision safetensors, cut every 15 MB; the last piece's name says how many there are.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load, save

from mars5.errors import TrainError
from mars5.files import replacing

PIECE_BYTES = 15_000_000
FACTS = ("seconds", "step", "seen")


def split(state: dict[str, Any], name: str, target: Path) -> None:
    """Write a training state's weights and facts as `name`.PIECE-of-PIECES files."""
    weights = {key: tensor.half().contiguous() for key, tensor in state["model"].items()}
    data = save(weights, {"facts": json.dumps({key: state[key] for key in FACTS})})
    parts = [data[i : i + PIECE_BYTES] for i in range(0, len(data), PIECE_BYTES)]
    for old in target.glob(f"{name}.*-of-*"):
        old.unlink()
    for number, part in enumerate(parts, 1):
        with replacing(target / f"{name}.{number}-of-{len(parts)}") as temporary:
            temporary.write_bytes(part)


def joined(name: str, source: Path) -> dict[str, Any] | None:
    """The state that `split` wrote, weights in float32; None if there is no piece of it.

    Raises:
        TrainError: pieces are missing.
    """
    found = sorted(source.glob(f"{name}.*-of-*"), key=lambda p: int(p.suffix[1:].split("-")[0]))
    if not found:
        return None
    wanted = int(found[0].suffix.split("-")[-1])
    if len(found) != wanted:
        names = ", ".join(path.name for path in found)
        raise TrainError(f"{source} has {names}: {wanted} pieces are needed, fetch the others")
    data = b"".join(path.read_bytes() for path in found)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    facts: dict[str, Any] = json.loads(header["__metadata__"]["facts"])
    return facts | {"model": {key: tensor.float() for key, tensor in load(data).items()}}

"""Are the new words of an edit understood, and the others still?

Edits of a LibriVox reader's recording, whom nano has never met, and of nano's own speech, with
several seeds, heard by the ears of `mars5 eval` (`pip install '.[eval]'`). Prints a table; the last
line is the same as JSON.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path

import torch

from mars5 import Mars5TTS, Voice
from mars5.config import SAMPLE_RATE
from mars5.errors import GenerationError
from mars5.eval.clips import to_judges
from mars5.eval.ears import Recogniser
from mars5.eval.text import word_errors, words_of

READER = Path(__file__).parent.parent / "examples" / "reader.wav"
READER_SAYS = "Unless to be rather cold hearted and rather selfish is to be ill disposed."
OF_READER = (
    ("ill", "well"),
    ("cold", "warm"),
    ("selfish", "generous"),
    ("hearted and", "hearted and very angry and"),
    ("disposed", "disposed and wicked"),
    ("Unless", "I think"),
    ("cold hearted", "friendly"),
)
OF_NANO = (
    ("evening", "morning"),
    ("by the window", "near the door"),
    ("quietly", "quietly all night"),
    ("The evening", "In May the evening"),
)


Recording = tuple[str, str | Voice, str, tuple[tuple[str, str], ...]]


def recordings(system: Mars5TTS) -> list[Recording]:
    """Whose, the recording, what it says, and what to change."""
    own = system.default_voice
    if own is None or own.transcript is None:
        raise SystemExit("the model has no voice of its own")
    return [
        ("reader", str(READER), READER_SAYS, OF_READER),
        ("nano", own, own.transcript, OF_NANO),
    ]


def heard(
    system: Mars5TTS, ears: Recogniser, recording: str | Voice, *texts: str, seed: int
) -> str:
    try:
        edited = system.edit(recording, *texts, seed=seed)
    except GenerationError as error:
        return f"({error})"
    return ears.transcribe([to_judges(edited.audio.numpy(), SAMPLE_RATE)])[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    args = parser.parse_args()
    torch.set_num_threads(1)
    system, ears = Mars5TTS.from_pretrained(device="cpu"), Recogniser("base", 1)
    rows = []
    for name, recording, transcript, edits in recordings(system):
        for (old, new), seed in product(edits, args.seeds):
            wanted = transcript.replace(old, new, 1)
            understood = heard(system, ears, recording, transcript, wanted, seed=seed)
            said = words_of(wanted)
            errors = min(len(said), word_errors(said, words_of(understood)))
            rows.append(
                {"of": name, "new": new, "seed": seed, "errors": errors, "words": len(said)}
            )
            told = f"{name:7} {new:28} seed {seed} {errors:2} of {len(said)}  {understood}"
            print(told, flush=True)
        mine = [row for row in rows if row["of"] == name]
        wrong, words = (sum(int(row[key]) for row in mine) for key in ("errors", "words"))
        print(f"{name}: {wrong} of {words} words wrong in {len(mine)} edits")
    print(json.dumps(rows))


if __name__ == "__main__":
    main()

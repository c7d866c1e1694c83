"""Five recordings each of voices to be cloned, as manifests for `mars5 eval --references`.

    python benchmarks/references.py people
    mars5 eval nano --references people/slt.jsonl

The teachers of the training recipe (`pip install '.[train,eval]'`) say five sentences that no
training hears. Allison Smith, whom no training hears either, is read from Asterisk's prompts, if
they are there (Debian's `asterisk-core-sounds-en-g722`, CC-BY-SA 3.0).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from mars5.config import SAMPLE_RATE
from mars5.train.teachers import Speaker, speak

Pcm = npt.NDArray[np.int16]

TEACHERS = {
    "slt": Speaker("flite", "slt"),
    "awb": Speaker("flite", "awb"),
    "jf_alpha": Speaker("kokoro", "jf_alpha"),
    "jm_kumo": Speaker("kokoro", "jm_kumo"),
}
SENTENCES = (
    "The garden behind the old school was full of apple trees, and nobody ever locked its gate.",
    "She put the letters back into the drawer, turned the small key twice, and went to bed.",
    "From the top of the hill you could see both rivers, the bridge, and a long grey train.",
    "We had bread, cheese and a few plums for lunch, then walked on until it was almost dark.",
    "He always said that a good question is worth more than a quick answer, and I believe him.",
)
ALLISON = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
PROMPTS = {
    "demo-nogo": "I am afraid I was unable to create a connection to the Digium demonstration "
    "Asterisk server. You may find some helpful debugging information on the Asterisk console.",
    "queue-periodic-announce": "All of our representatives are currently busy. Please stay on the "
    "line and your call will be answered by the next available representative.",
    "tt-allbusy": "All representatives of the household are currently assisting other "
    "telemarketers. Please hold and your call will be answered in the order it was received.",
    "vm-review": "Press one to accept this recording. Press two to listen to it. Press three to "
    "rerecord your message.",
    "vm-tempgreeting2": "Press one to record your temporary greeting, or press two to erase your "
    "temporary greeting.",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, speaker in TEACHERS.items():
        waves = [speak(text, speaker)[0] for text in SENTENCES]
        write(folder, name, waves, SAMPLE_RATE, SENTENCES)
    paths = [ALLISON / f"{prompt}.g722" for prompt in PROMPTS]
    if all(path.is_file() for path in paths):
        write(folder, "allison", [decoded(path) for path in paths], 16_000, tuple(PROMPTS.values()))


def decoded(path: Path) -> Pcm:
    """(T,) at 16 kHz."""
    import av

    with av.open(str(path)) as file:
        return np.concatenate([frame.to_ndarray()[0] for frame in file.decode(audio=0)])


def write(folder: Path, name: str, waves: list[Pcm], rate: int, texts: tuple[str, ...]) -> None:
    """`name-1.wav` and so on, and `name.jsonl`, which names them as one speaker's."""
    rows = []
    for number, (wave, text) in enumerate(zip(waves, texts, strict=True), 1):
        path = folder / f"{name}-{number}.wav"
        soundfile.write(path, wave, rate)
        rows.append({"text": text, "path": path.name, "speaker": name})
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    main()

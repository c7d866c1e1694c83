"""From text and codes to the ids the AR reads, and from the ids it wrote back to codes.

Pure integers; docs/architecture.md, Prompt, tells what the published weights expect.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mars5.ar.sampling import Vocabulary
from mars5.tokenizers import SpeechTokenizer, TextTokenizer


@dataclass(frozen=True)
class Prompt:
    """Joint ids of one utterance's prompt: framed text, then the reference's speech tokens.

    Attributes:
        ids: all of them.
        n_text: how many are text.
    """

    ids: list[int]
    n_text: int

    @property
    def n_speech(self) -> int:
        return len(self.ids) - self.n_text


def joint_vocabulary(text: TextTokenizer, speech: SpeechTokenizer) -> Vocabulary:
    """Text ids stay, speech ids are shifted by the size of the text vocabulary."""
    return Vocabulary(len(text), len(text) + speech.end_id)


def build_prompt(
    text: str,
    transcript: str | None,
    reference_l0: Sequence[int],
    text_tokenizer: TextTokenizer,
    speech_tokenizer: SpeechTokenizer,
) -> Prompt:
    """The prompt for `text`.

    Args:
        transcript: what the reference says, for a deep clone; None for a shallow one.
        reference_l0: coarse codes of the reference; used in a deep clone only.
    """
    said = text.strip()
    if transcript is not None:
        said = f"{transcript} {said}"
    ids = [text_tokenizer.start_id, *text_tokenizer.encode(said), text_tokenizer.end_id]
    n_text = len(ids)
    if transcript is not None:
        shift = len(text_tokenizer)
        ids += [token + shift for token in speech_tokenizer.encode(reference_l0)]
    return Prompt(ids, n_text)


def speech_codes(
    prompt: Prompt,
    generated: Sequence[int],
    n_text_vocab: int,
    speech: SpeechTokenizer,
    drop_first: bool,
) -> list[int]:
    """L0 codes of the prompt's speech part and of what was generated after it.

    Args:
        generated: joint ids without the end token. The last text id counts as code 0.
        drop_first: leave out the first speech token, as the published weights expect.
    """
    tokens = [*prompt.ids[prompt.n_text :], *generated]
    kept = tokens[1:] if drop_first else tokens
    return speech.decode([max(token - n_text_vocab, 0) for token in kept])

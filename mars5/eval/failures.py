"""What counts as a failed utterance, beyond misheard words: empty, looping, cut off."""

from __future__ import annotations

from mars5.eval.text import word_errors

EMPTY, LOOPING, CUT = "empty", "looping", "cut"
FAILURES = (EMPTY, LOOPING, CUT)

_MIN_SECONDS = 0.15
_PHRASE = 8  # words; longer loops are found by their duration
_MORE_TIMES = 2
_MAX_DURATION_RATIO = 2.5
_CUT_WORDS, _CUT_SHARE = 3, 0.25
# Of this package's everyday list as spoken by the flite voice "rms".
CHARACTERS_PER_SECOND = 15.5


def expected_seconds(text: str) -> float:
    """How long a text lasts at a common pace; used where no teacher tells."""
    return len(text) / CHARACTERS_PER_SECOND


def failure_of(
    said: list[str], heard: list[str], seconds: float, expected: float, at_limit: bool = False
) -> str | None:
    """The failure of an utterance, or None; the first of these that holds.

    * "empty": shorter than 0.15 s, or no word is heard;
    * "looping": some run of one to eight words is heard at least two times more often in a row
      than it is said, or the speech lasts more than 2.5 times as long as expected;
    * "cut": the last words are missing, at least three and a quarter of them all, by an alignment
      with the fewest errors; or the model reached its length limit before it ended the speech.

    Args:
        said, heard: normalised words.
        seconds, expected: how long the speech is, and how long it should be.
        at_limit: generation was stopped by its length limit.

    Raises:
        MissingExtraError: the extra is not installed.
    """
    if seconds < _MIN_SECONDS or not heard:
        return EMPTY
    if repeats(heard) >= repeats(said) + _MORE_TIMES or seconds > _MAX_DURATION_RATIO * expected:
        return LOOPING
    least = max(_CUT_WORDS, _CUT_SHARE * len(said))
    if at_limit or missing_at_end(said, heard) >= least:
        return CUT
    return None


def repeats(words: list[str]) -> int:
    """The most times that any run of one to eight words comes in a row; 0 without words."""
    most = 0
    for n in range(1, min(_PHRASE, len(words)) + 1):
        same = 0  # words equal to those n places before, without a break
        for i in range(n, len(words)):
            same = same + 1 if words[i] == words[i - n] else 0
            most = max(most, 1 + same // n)
    return max(most, min(len(words), 1))


def missing_at_end(said: list[str], heard: list[str]) -> int:
    """Words at the end of `said` that some alignment with the fewest errors leaves out."""
    fewest = word_errors(said, heard)
    for k in range(len(said), 0, -1):
        if word_errors(said[:-k], heard) + k == fewest:
            return k
    return 0

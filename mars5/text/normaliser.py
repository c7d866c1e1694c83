"""Numbers, dates, amounts, addresses and short forms written out as they are said."""

from __future__ import annotations

from mars5.errors import TextError
from mars5.text import abbreviations, amounts, dates, phones, roman, symbols, web
from mars5.text.checks import check_characters
from mars5.text.rules import Rule, apply

# The order matters: what is read as a whole (an address, a date) comes before its parts.
_RULES: list[Rule] = [
    *symbols.FIRST_RULES,
    *web.RULES,
    *phones.RULES,
    *dates.RULES,
    *phones.GROUP_RULES,
    *abbreviations.NUMBER_RULES,
    *roman.RULES,
    *amounts.SIGN_RULES,
    *amounts.RULES,
    *dates.YEAR_RULES,
    *amounts.LAST_RULES,
    *symbols.LAST_RULES,
    *abbreviations.WORD_RULES,
]

# In odd text a rule can uncover what an earlier one reads ("*@me" without its star): the rules are
# applied until nothing changes. Ordinary text takes one round, and one to see that.
_ROUNDS = 8


def normalise(text: str, language: str = "en") -> str:
    """Write out what is not said as it is written; docs/text.md has the table.

    Plain words, their capitals, commas and blanks stay as they are: MARS5 reads capitals as
    emphasis and commas as pauses. Applied again, it changes nothing.

    Args:
        language: "en", the only one.

    Raises:
        TextError: not a string, control characters, or another language.
    """
    check_characters(text)
    if language != "en":
        raise TextError(
            f"language must be 'en', got {language!r:.80}: write the text out yourself and pass "
            "normalise=False"
        )
    text = symbols.plain_characters(text)
    for _ in range(_ROUNDS):
        before, text = text, apply(_RULES, text)
        if text == before:
            break
    return text

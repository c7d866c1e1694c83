"""Numbers in English words."""

from __future__ import annotations

import re
from functools import lru_cache

from num2words import num2words

MOST_DIGITS = 15  # of a number said as one; longer ones are read digit by digit

# Numbers begin where no digit precedes, so that a run of digits is tried once. At most 15 digits.
INTEGER = r"(?<![0-9])(?<![0-9][.,])(?:[0-9]{1,3}(?:,[0-9]{3}){1,4}(?![0-9])|[0-9]{1,15})"
NUMBER = rf"(?:{INTEGER}(?:\.[0-9]{{1,40}})?|(?<![\w.])\.[0-9]{{1,40}})"


@lru_cache(maxsize=1000)
def _words(number: int) -> str:
    return str(num2words(number)).replace(",", "")  # MARS5 would pause there


def digits(number: str) -> str:
    """The digits one by one: "007" is "zero zero seven"; other characters are left out."""
    return " ".join(_words(int(digit)) for digit in number if digit.isdigit())


def cardinal(number: str) -> str:
    """A number as in `NUMBER`: "1,234.50" is "one thousand two hundred ... point five zero"."""
    whole, _, fraction = number.replace(",", "").partition(".")
    said = []
    if whole:
        padded = len(whole) > 1 and whole.startswith("0")
        said.append(digits(whole) if padded else _words(int(whole)))
    if fraction:
        said += ["point", digits(fraction)]
    return " ".join(said)


def ordinal(number: str) -> str:
    """ "21" is "twenty-first"."""
    return num2words(int(number.replace(",", "")), to="ordinal").replace(",", "")


def year(number: str) -> str:
    """ "1984" is "nineteen eighty-four", "1905" is "nineteen oh five"."""
    return num2words(int(number), to="year").replace("oh-", "oh ")


def plural(words: str) -> str:
    """ "twenty" is "twenties"."""
    if words.endswith("y"):
        return words[:-1] + "ies"
    return words + ("es" if words.endswith("x") else "s")


def counted(number: str, one: str, many: str) -> str:
    """`number` in words with the noun: "one dollar", "two dollars"."""
    return f"{cardinal(number)} {one if number == '1' else many}"


def parted(match: re.Match[str], words: str) -> str:
    """`words` in the place of `match`, with blanks where they would touch other words."""
    before = match.string[match.start() - 1 : match.start()]
    after = match.string[match.end() : match.end() + 1]
    # A comma between digits without a blank is a list: "1,2,3".
    return " " * (before.isalnum() or before == ",") + words + " " * after.isalnum()

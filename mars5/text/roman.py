"""Roman numerals where they can be nothing else: kings and popes, wars and chapters."""

from __future__ import annotations

import re

from mars5.text.rules import Rule
from mars5.text.words import cardinal, ordinal

_RULERS = (
    "Henry|Louis|George|Edward|Richard|William|Charles|James|Elizabeth|Philip|Francis|Napoleon|"
    "Frederick|Wilhelm|Otto|Ivan|Peter|Catherine|Nicholas|Alexander|Paul|Pius|Leo|Gregory|"
    "Benedict|Innocent|Clement|Urban|Ramesses|Xerxes|Darius|Ferdinand|Leopold|Christian|Gustav|"
    "Harald|Baldwin|Robert|Philippe|Felipe|Umberto|Mehmed|Suleiman|Malcolm|Mary"
)
_PARTS = (
    "Chapter|Part|Volume|Book|Act|Scene|Section|Phase|Stage|Type|Level|Appendix|World War|Title|"
    "Article|Super Bowl"
)
_NUMERAL = r"(?:XL|L?X{0,3})(?:IX|IV|V?I{0,3})"
_VALUES = {"I": 1, "V": 5, "X": 10, "L": 50}


def _value(numeral: str) -> str:
    values = [_VALUES[letter] for letter in numeral]
    following = [*values[1:], 0]
    pairs = zip(values, following, strict=True)
    return str(sum(-value if value < after else value for value, after in pairs))


def _part(match: re.Match[str]) -> str:
    number = cardinal(_value(match[2]))
    return f"{match[1]} {number.capitalize() if match[1][0].isupper() else number}"


RULES: list[Rule] = [
    # One letter may be an initial or the word "I"; two and more are numerals.
    (re.compile(r"\b(World War)\s(I)\b(?!\.\w|')"), _part),
    (
        re.compile(rf"\b({_RULERS})\s(?=[IVX]{{2}})({_NUMERAL})(?<=[IVX])\b(?!\.\w)"),
        lambda m: f"{m[1]} the {ordinal(_value(m[2])).capitalize()}",
    ),
    (
        # "Type XL" is a size.
        re.compile(
            rf"\b((?i:{_PARTS}))\s(?=[IVXL]{{2}}|[VX]\b)(?<!(?i:type )(?=XL\b))({_NUMERAL})"
            r"(?<=[IVXL])\b(?!\.\w)"
        ),
        _part,
    ),
]

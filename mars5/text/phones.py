"""Telephone and other numbers that are read digit by digit."""

from __future__ import annotations

import re

from mars5.text.rules import Rule
from mars5.text.words import MOST_DIGITS, cardinal, digits, parted

_GROUP = re.compile(r"[0-9]+")


def _spelled(number: str) -> str:
    return ", ".join(digits(group) for group in _GROUP.findall(number))


def _phone(match: re.Match[str]) -> str:
    return ("plus " if match[0].startswith("+") else "") + _spelled(match[0])


def _called(match: re.Match[str]) -> str:
    return match[1] + _spelled(match[2])


def _long(match: re.Match[str]) -> str:
    """Blanks also stand between numbers of their own: eight digits may be a date."""
    return _phone(match) if sum(map(str.isdigit, match[0])) > 8 else match[0]


def _free_call(match: re.Match[str]) -> str:
    """ "1-800-FLOWERS"; 888 and others are said digit by digit."""
    group = "eight hundred" if match[2] == "800" else digits(match[2])
    return f"{'one ' if match[1] else ''}{group}, "


def _groups(match: re.Match[str]) -> str:
    """ "978-0-13-468599-1" digit by digit, but "11-5-2" is three numbers."""
    groups = match[0].split("-")
    short = all(len(group) < 3 and not group.startswith("0") for group in groups)
    return ", ".join(map(cardinal if short else digits, groups))


_CALL = (
    r"\b((?:[Cc]all|[Dd]ial|[Pp]hone|[Rr]ing|[Tt]ext)(?:l?ed|l?ing|s)?"
    r"(?: (?:me|us|him|her|them))?(?: (?:at|on))?:? )"
)
_STATES = (
    "A[KLRZ]|C[AOT]|D[CE]|FL|GA|HI|I[ADLN]|K[SY]|LA|M[ADEINOST]|N[CDEHJMVY]|O[HKR]|PA|RI|S[CD]|"
    "T[NX]|UT|V[AT]|W[AIVY]"
)
_END = r"(?![\w-]|[.,:/]\w|\s?[%°])"

RULES: list[Rule] = [
    (re.compile(r"(?<![\w.,+])\+[0-9]{1,3}(?:[ .-]?\(?[0-9]{1,5}\)?){2,6}(?![\w-])"), _phone),
    (
        re.compile(
            r"(?<![\w.,-])(?:1[ .-])?(?:\([0-9]{3}\) ?|[0-9]{3}[ .-])[0-9]{3}[ .-][0-9]{4}(?![\w-])"
        ),
        _phone,
    ),
    (re.compile(r"(?<![\w.,-])[0-9]{3}-[0-9]{4}(?![\w-])"), _phone),
    (re.compile(r"(?<![\w.,-])0[0-9]{2,5}[ -][0-9]{3,4}[ -]?[0-9]{3,5}(?![\w-])"), _phone),
    (re.compile(r"(?<![\w.,-])\(?0[0-9]{1,5}\)?(?: [0-9]{2,8}){1,5}(?![\w-])"), _long),
    # The zero tells that it is no number.
    (re.compile(r"(?<![\w.,-])[0-9]{3} 0[0-9]{3}(?![\w-])"), _phone),
    (re.compile(_CALL + r"([0-9]{3} [0-9]{4}|(?![0-9]+00000)[0-9]{7,11})" + _END), _called),
    # But "they called 311 people".
    (re.compile(_CALL + r"([2-9]11|999|112|988)" + _END + r"(?!\s(?:[a-z]+s|people)\b)"), _called),
    (re.compile(r"\b([Dd]ial(?:l?ed|l?ing|s)? )([0-9]{2,6})" + _END), _called),
    (re.compile(r"(?<![\w.,-])()(911)(?= (?:calls?|callers?|operators?)\b)"), _called),
    (re.compile(r"(?<![\w.,-])(1-)?(8(?:00|33|44|55|66|77|88))-(?=[A-Z]{2})"), _free_call),
    # A state and its ZIP code.
    (re.compile(rf"(, (?:{_STATES}) )([0-9]{{5}}(?:-[0-9]{{4}})?)(?![\w-])"), _called),
    (re.compile(rf"[0-9]{{{MOST_DIGITS + 1},}}"), lambda m: parted(m, digits(m[0]))),
]

# After the dates, which are such groups, too.
GROUP_RULES: list[Rule] = [
    (re.compile(r"(?<![\w.,$€£/-])[0-9]{1,15}(?:-[0-9]{1,15}){2,7}(?![\w/-])"), _groups),
]

"""Telephone and other numbers that are read digit by digit."""

from __future__ import annotations

import re

from mars5.text.rules import Rule
from mars5.text.words import MOST_DIGITS, digits, parted

_GROUP = re.compile(r"[0-9]+")


def _phone(match: re.Match[str]) -> str:
    plus = "plus " if match[0].startswith("+") else ""
    return plus + ", ".join(digits(group) for group in _GROUP.findall(match[0]))


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
    (re.compile(rf"[0-9]{{{MOST_DIGITS + 1},}}"), lambda m: parted(m, digits(m[0]))),
]

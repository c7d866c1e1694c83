"""Dates, times, years and decades in words."""

# ruff: noqa: RUF001 (its business are characters that look alike)

from __future__ import annotations

import re

from mars5.text.abbreviations import MONTHS
from mars5.text.rules import Rule
from mars5.text.words import cardinal, ordinal, plural, year

MONTH_NAMES = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September",
    "October", "November", "December",
]  # fmt: skip
_DAY_NAMES = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
_SHORT_MONTH = "|".join(month.capitalize() for month in MONTHS)
_MONTH = "|".join([*MONTH_NAMES, _SHORT_MONTH])
_SHORT_DAY = "Mon|Tues?|Wed|Thu(?:rs?)?|Fri|Sat|Sun"
_DAY = "|".join([*_DAY_NAMES, _SHORT_DAY])
_YEAR = r"(?:1[0-9]|20)[0-9]{2}"
_HALF = r"(?:\s?(?P<half>[AaPp])(?:\.\s?[Mm]\.|[Mm]\b\.?))"
_NOON = r"\s?(?:[AaPp]\.\s?[Mm]\.|[AaPp][Mm]\b)"
_CLOCK = rf"(?:[0-9]{{1,2}}:[0-9]{{2}}(?:{_NOON})?|[0-9]{{1,2}}{_NOON})"


def _month(name: str) -> str:
    return MONTHS.get(name.lower(), name)


def _day(name: str) -> str:
    return next(day for day in _DAY_NAMES if day.startswith(name[:3]))


def _date(month: str, day: str, in_year: str | None) -> str | None:
    """ "March fifth, twenty twenty-four"; None if there is no such date."""
    if not (1 <= int(month) <= 12 and 1 <= int(day) <= 31):
        return None
    said = f"{MONTH_NAMES[int(month) - 1]} {ordinal(day)}"
    if in_year is None:
        return said
    return f"{said}, {year('20' + in_year if len(in_year) == 2 else in_year)}"


def _iso(match: re.Match[str]) -> str:
    said = _date(match["m"], match["d"], match["y"])
    if not said or not match["time"]:
        return said or match[0]
    return f"{said}, {match['time']}{' UTC' if match['utc'] else ''}"


def _slashed(match: re.Match[str]) -> str:
    """Month first, unless that cannot be."""
    first, second = match["a"], match["b"]
    said = _date(first, second, match["y"]) or _date(second, first, match["y"])
    return said or match[0]


def _dotted(match: re.Match[str]) -> str:
    return _date(match["m"], match["d"], match["y"]) or match[0]


def _month_day(match: re.Match[str]) -> str:
    if not 1 <= int(match["d"]) <= 31:
        return match[0]
    said = f"{_month(match['m'])} {ordinal(match['d'])}"
    if match["to"]:
        if not int(match["d"]) < int(match["to"]) <= 31:
            return match[0]
        said += f" to {ordinal(match['to'])}"
    return f"{said}{match['comma']} {year(match['y'])}" if match["y"] else said


def _day_month(match: re.Match[str]) -> str:
    if not 1 <= int(match["d"]) <= 31:
        return match[0]
    article = "" if match["the"] else "the "
    days = ordinal(match["d"])
    if match["from"]:
        if not 1 <= int(match["from"]) < int(match["d"]):
            return match[0]
        days = f"{ordinal(match['from'])} to the {days}"
    said = f"{match['the'] or ''}{article}{days} of {_month(match['m'])}"
    return f"{said} {year(match['y'])}" if match["y"] else said


def _time(match: re.Match[str]) -> str:
    hour, minute, second = int(match["h"]), int(match["min"]), match["s"]
    if hour > 24 or minute > 59 or int(second or 0) > 59:
        return match[0]
    half = f" {match['half'].lower()}.m." if match["half"] else ""
    said = [cardinal(str(hour))]
    if minute:
        said.append(f"oh {cardinal(str(minute))}" if minute < 10 else cardinal(str(minute)))
    elif not half and not second:
        said.append("o'clock" if 1 <= hour <= 12 else "hundred")
    if second:
        said.append(f"and {cardinal(str(int(second)))} seconds")
    return " ".join(said) + half


def _hour(match: re.Match[str]) -> str:
    return f"{cardinal(match['h'])} {match['half'].lower()}.m."


def _season(match: re.Match[str]) -> str:
    """ "2023/24" is two years that follow each other."""
    follows = (int(match["y"]) + 1) % 100 == int(match["next"])
    return f"{year(match['y'])} {cardinal(match['next'])}" if follows else match[0]


def _decade(match: re.Match[str]) -> str:
    number = match["n"]
    return plural(year(number) if len(number) == 4 else cardinal(number))


# Where a dash is "to": "Mon-Fri", "Jan 30-Feb 2", "9-11am", "10:30 - 11:45", "3rd-5th".
_TO_RULES: list[Rule] = [
    (
        re.compile(rf"\b({_DAY})\b\.?\s?[-–]\s?({_DAY})\b(?:\.(?=,?\s[0-9a-z]))?"),
        lambda m: f"{_day(m[1])} to {_day(m[2])}",
    ),
    (
        re.compile(rf"\b({_DAY})\b\.?(?=,?\s(?:[0-9]{{1,2}}\s)?(?:{_MONTH})\b)"),
        lambda m: _day(m[1]),
    ),
    (
        re.compile(rf"\b({_MONTH})\b\.?[-–]({_MONTH})\b"),
        lambda m: f"{_month(m[1])} to {_month(m[2])}",
    ),
    (
        re.compile(
            rf"\b((?:{_MONTH})\b\.?\s[0-9]{{1,2}}(?:st|nd|rd|th)?)\s?[-–]\s?(?=(?:{_MONTH})\b)"
        ),
        lambda m: f"{m[1]} to ",
    ),
    # "6.30pm"
    (
        re.compile(
            r"(?<![\w.:,$€£])([0-9]{1,2})\.(?=[0-5][0-9](?:[-–][0-9]{1,2}\.[0-5][0-9])?"
            r"\s?[AaPp](?:\.\s?)?[Mm]\b)"
        ),
        lambda m: f"{m[1]}:",
    ),
    (
        re.compile(
            rf"(?<![\w.:,$€£/-])(?:({_CLOCK})\s?[-–—]\s?(?={_CLOCK})|({_CLOCK})[-–](?=[0-9])"
            rf"|([0-9]{{1,2}})[-–](?={_CLOCK}))"
        ),
        lambda m: f"{m[1] or m[2] or m[3]} to ",
    ),
    (re.compile(r"(?<=[0-9](?:st|nd|rd|th|0s))[-–](?=[0-9])"), lambda _: " to "),
]

RULES: list[Rule] = [
    (
        re.compile(
            rf"(?<![\w./-])(?P<y>{_YEAR})(?P<sep>[/-])(?P<m>[01][0-9])(?P=sep)(?P<d>[0-3][0-9])"
            r"(?:T(?P<time>[0-2][0-9]:[0-5][0-9](?::[0-5][0-9])?)(?:\.[0-9]{1,9})?"
            r"(?:(?P<utc>Z)|[+-][0-2][0-9]:?[0-5][0-9])?)?(?![\w/-])"
        ),
        _iso,
    ),
    (
        re.compile(
            rf"(?<![\w./-])(?P<a>[0-9]{{1,2}})/(?P<b>[0-9]{{1,2}})/(?P<y>{_YEAR}|[0-9]{{2}})(?![\w/-])"
        ),
        _slashed,
    ),
    (
        re.compile(
            rf"(?<![\w./-])(?P<a>[0-9]{{1,2}})-(?P<b>[0-9]{{1,2}})-(?P<y>{_YEAR})(?![\w/-])"
        ),
        _slashed,
    ),
    (re.compile(rf"(?<![\w./,])(?P<y>{_YEAR})/(?P<next>[0-9]{{2}})(?![\w/])"), _season),
    (
        re.compile(
            rf"(?<![\w./-])(?P<d>[0-9]{{1,2}})\.(?P<m>[0-9]{{1,2}})\.(?P<y>{_YEAR})(?![\w/-])"
        ),
        _dotted,
    ),
    *_TO_RULES,
    (
        re.compile(
            rf"\b(?P<m>{_MONTH})\b\.?\s(?P<d>[0-9]{{1,2}})(?:st|nd|rd|th)?"
            r"(?:[-–](?P<to>[0-9]{1,2})(?:st|nd|rd|th)?)?(?![\w/:–-]|[.,][0-9])"
            rf"(?:(?P<comma>,?)\s(?P<y>{_YEAR})(?![\w/:-]|[.,][0-9]))?"
        ),
        _month_day,
    ),
    (
        re.compile(
            r"(?P<the>\b[Tt]he\s)?(?<![\w.,:/$€£-])"
            r"(?:(?P<from>[0-9]{1,2})(?:st|nd|rd|th)?[-–])?(?P<d>[0-9]{1,2})(?:st|nd|rd|th)?\s"
            rf"(?:of\s)?(?P<m>{_MONTH})\b(?:\.(?=,?\s[0-9a-z]))?(?:,?\s(?P<y>{_YEAR})(?![\w/:-]|[.,][0-9]))?"
        ),
        _day_month,
    ),
    (re.compile(rf"\b(?P<m>{_SHORT_MONTH})\b\.?(?=\s[0-9])"), lambda m: _month(m["m"])),
    (
        re.compile(
            r"(?<![\w.:,])(?P<h>[0-9]{1,2}):(?P<min>[0-9]{2})(?::(?P<s>[0-9]{2}))?(?![0-9:])"
            + _HALF + "?"
        ),
        _time,
    ),
    (re.compile(r"(?<![\w.:,])(?P<h>1[0-2]|[1-9])" + _HALF), _hour),
    (re.compile(r"(?<![\w.,$€£])'?(?P<n>(?:1[1-9]|20)[0-9]0|[2-9]0)'?s\b"), _decade),
]  # fmt: skip

# A bare number of four digits from 1100 to 2099.
YEAR_RULES: list[Rule] = [
    (
        re.compile(r"(?<![\w.,])(?<![0-9][-/:])(?P<n>(?:1[1-9]|20)[0-9]{2})(?![\w/:]|[.,][0-9])"),
        lambda m: year(m["n"]),
    ),
]

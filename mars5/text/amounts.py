"""Money, percentages, measures, ranges, fractions and plain numbers in words."""

# ruff: noqa: RUF001 (its business are characters that look alike)

from __future__ import annotations

import re

from mars5.text.rules import Rule
from mars5.text.words import INTEGER, NUMBER, cardinal, counted, digits, ordinal, parted

_CURRENCIES = {
    "$": ("dollar", "dollars", "cent", "cents"), "US$": ("US dollar", "US dollars", "", ""),
    "€": ("euro", "euros", "cent", "cents"), "£": ("pound", "pounds", "penny", "pence"),
    "¥": ("yen", "yen", "", ""), "₹": ("rupee", "rupees", "paisa", "paise"),
    "USD": ("US dollar", "US dollars", "", ""), "EUR": ("euro", "euros", "cent", "cents"),
    "GBP": ("pound", "pounds", "penny", "pence"), "CHF": ("Swiss franc", "Swiss francs", "", ""),
}  # fmt: skip
_SCALES = {"k": "thousand", "m": "million", "mn": "million", "b": "billion", "bn": "billion"}

# Written short: said in the singular, in the plural. Case matters: "Mb" is not "MB".
_UNITS = {
    "km/h": "kilometre per hour", "kph": "kilometre per hour", "mph": "mile per hour",
    "m/s": "metre per second", "km": "kilometre", "cm": "centimetre", "mm": "millimetre",
    "m": "metre", "km²": "square kilometre", "m²": "square metre", "cm²": "square centimetre",
    "m³": "cubic metre", "cm³": "cubic centimetre", "mi": "mile", "yd": "yard", "kg": "kilogram",
    "g": "gram", "mg": "milligram", "lb": "pound", "lbs": "pound", "oz": "ounce", "L": "litre",
    "l": "litre", "ml": "millilitre", "mL": "millilitre", "h": "hour", "hr": "hour",
    "hrs": "hour", "min": "minute", "mins": "minute", "s": "second", "sec": "second",
    "ms": "millisecond", "W": "watt", "kW": "kilowatt", "MW": "megawatt", "V": "volt",
    "kB": "kilobyte", "KB": "kilobyte", "MB": "megabyte", "GB": "gigabyte", "TB": "terabyte",
    "Mbps": "megabit per second", "°C": "degree Celsius", "°F": "degree Fahrenheit",
    "℃": "degree Celsius", "℉": "degree Fahrenheit", "°": "degree", "cal": "calorie",
    "kcal": "kilocalorie", "kJ": "kilojoule",
}  # fmt: skip
_SAME_IN_PLURAL = {
    "ft": "foot feet", "Hz": "hertz hertz", "kHz": "kilohertz kilohertz", "kWh": "kilowatt-hour "
    "kilowatt-hours", "MHz": "megahertz megahertz", "GHz": "gigahertz gigahertz",
    "dB": "decibel decibels", "%": "percent percent", "‰": "per mille per mille",
}  # fmt: skip
_FRACTIONS = {"2": ("half", "halves"), "4": ("quarter", "quarters")}
_OPERATORS = {
    "+": "plus", "=": "equals", "×": "times", "*": "times", "÷": "divided by", "−": "minus",
    "<": "is less than", ">": "is greater than", "≤": "is at most", "≥": "is at least",
    "±": "plus or minus", "≈": "is about", "^": "to the power of",
}  # fmt: skip
_BEFORE = {"~": "about ", "≈": "about ", "±": "plus or minus ", "<": "less than ",
           ">": "more than ", "≤": "at most ", "≥": "at least ", "+": "plus "}  # fmt: skip

_TO = r"(?:\s?[–—‒]\s?|-)"
_RANGE = rf"(?P<low>{NUMBER})(?:{_TO}(?P<high>[0-9,.]{{0,20}}[0-9]))?"


def _unit(written: str, one: bool) -> str:
    if written in _SAME_IN_PLURAL:
        singular, _, many = _SAME_IN_PLURAL[written].partition(" ")
        if written == "‰":
            return "per mille"
        return singular if one else many
    singular = _UNITS[written]
    first, per, rest = singular.partition(" per ")
    kind, _, noun = first.rpartition(" ")
    if kind == "degree":  # the noun comes first: "degrees Celsius"
        return singular if one else f"degrees {noun}"
    return singular if one else f"{first}s{per}{rest}"


def _low_to_high(match: re.Match[str]) -> str:
    """ "five" or "five to ten"."""
    low = cardinal(match["low"])
    return f"{low} to {cardinal(match['high'])}" if match["high"] else low


def _money(match: re.Match[str]) -> str:
    one, many, cent, cents = _CURRENCIES[match["sign"]]
    low, scale = match["low"], match["scale"]
    if scale:
        return f"{_low_to_high(match)} {_SCALES.get(scale.lower(), scale)} {many}"
    whole, _, part = low.partition(".")
    if match["high"] or len(part) != 2 or not cent:
        singular = low == "1" and not match["high"]
        return f"{_low_to_high(match)} {one if singular else many}"
    said = [counted(whole, one, many)] if whole.strip("0") or part == "00" else []
    if part != "00":
        said.append(counted(part.lstrip("0"), cent, cents))
    return " and ".join(said)


def _measure(match: re.Match[str]) -> str:
    singular = match["low"] == "1" and not match["high"]
    return f"{_low_to_high(match)} {_unit(match['unit'], singular)}"


def _fraction(match: re.Match[str]) -> str:
    whole, above, below = match["whole"], match["above"], match["below"]
    if below in ("0", "1") or below.startswith("0"):
        return match[0]
    if int(below) > 100:
        said = f"{cardinal(above)} over {cardinal(below)}"
    else:
        one, many = _FRACTIONS.get(below) or (ordinal(below), ordinal(below) + "s")
        said = f"{cardinal(above)} {one if above == '1' else many}"
    if not whole:
        return said
    return f"{cardinal(whole)} and {'a ' + said[4:] if above == '1' else said}"


def _feet(match: re.Match[str]) -> str:
    return f"{cardinal(match[1])} foot {cardinal(match[2])}"


def _operator(match: re.Match[str]) -> str:
    return f" {_OPERATORS[match[1]]} "


def _version(match: re.Match[str]) -> str:
    return " point ".join(cardinal(part[:15]) for part in match[0].split("."))


def _any_of(names: object) -> str:
    return "|".join(sorted(map(re.escape, names), key=len, reverse=True))  # type: ignore[call-overload]


_UNIT = _any_of([*_UNITS, *_SAME_IN_PLURAL])
_SIGN = _any_of([s for s in _CURRENCIES if not s.isalpha()])
_CODE = _any_of([s for s in _CURRENCIES if s != "US$"])
_SCALE = r"(?P<scale>(?i:thousand|million|billion|trillion|bn|mn|[kmb])\b)"
_PER = re.compile(r"\s?/\s?(hour|hr|day|night|week|month|year|person|minute|second|kg|km)\b")

SIGN_RULES: list[Rule] = [
    (re.compile(rf"(?<![\w.,)])(?<!\d\s)[-−](?=(?:{_SIGN})?\.?[0-9])"), lambda _: "minus "),
]

RULES: list[Rule] = [
    (re.compile(rf"(?P<sign>{_SIGN})\s?{_RANGE}(?:\s?{_SCALE})?(?![0-9])"), _money),
    (re.compile(rf"(?<![\w.]){_RANGE}(?:\s?{_SCALE})?\s?(?P<sign>{_CODE})(?!\w)"), _money),
    (re.compile(r"(?<![\w.])([0-9])(?:'|ft )([0-9]|1[01])(?:\"|in\b)"), _feet),
    (re.compile(rf"(?<!\w){_RANGE}\s?-?(?P<unit>{_UNIT})(?![\w²³'])"), _measure),
    (re.compile(r"(?<![\w./,])24/7(?![\w/])"), lambda _: "twenty-four seven"),
    (
        re.compile(
            r"(?<![\w./,])(?:(?P<whole>[0-9]{1,6})\s)?(?P<above>[0-9]{1,4})[/⁄](?P<below>[0-9]{1,4})"
            r"(?![\w/]|\.[0-9])"
        ),
        _fraction,
    ),
    (re.compile(rf"({INTEGER})(?:st|nd|rd|th)\b", re.IGNORECASE), lambda m: ordinal(m[1])),
    (re.compile(r"\b[vV]\.?\s?(?=[0-9]{1,4}\.[0-9])"), lambda _: "version "),
    (re.compile(r"(?<![\w.])[0-9]{1,15}(?:\.[0-9]{1,15}){2,8}(?![\w])"), _version),
    (re.compile(r"(?<=[0-9])\s?([+=×*÷−<>≤≥±≈^])\s?(?=[0-9])"), _operator),
    (re.compile(r"(?<=[0-9])\s-\s(?=[0-9])"), lambda _: " minus "),
    (re.compile(r"(?<=[0-9]):(?=[0-9])"), lambda _: " to "),
    (re.compile(r"(?<![\w)])([~≈±<>≤≥+])\s?(?=\.?[0-9])"), lambda m: _BEFORE[m[1]]),
    (re.compile(r"(?<![\w])(?<![0-9]-)(?P<low>[0-9]{1,15})-(?=[0-9])"), lambda m: f"{m[1]} to "),
    (re.compile(r"(?<=[0-9])\s?[–—‒]\s?(?=[0-9])"), lambda _: " to "),
    (re.compile(r"(?<!\w)#\s?(?=[0-9])"), lambda _: "number "),
    (re.compile(r"(?<!\w)(?:N[oº°]|№)\s?(?=[0-9])"), lambda _: "number "),
]

LAST_RULES: list[Rule] = [
    (re.compile(NUMBER), lambda m: parted(m, cardinal(m[0]))),
    (re.compile(r"[0-9]+"), lambda m: parted(m, digits(m[0]))),
    (_PER, lambda m: f" per {_UNITS.get(m[1], m[1])}"),
]

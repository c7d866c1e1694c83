"""Money, percentages, measures, ranges, fractions and plain numbers in words."""

# ruff: noqa: RUF001 (its business are characters that look alike)

from __future__ import annotations

import re

from mars5.text.rules import Rule
from mars5.text.words import INTEGER, NUMBER, cardinal, counted, digits, ordinal, parted, plural

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
    "kcal": "kilocalorie", "kJ": "kilojoule", "tbsp": "tablespoon",
    "tsp": "teaspoon", "fl oz": "fluid ounce", "¢": "cent",
    "mΩ": "milliohm", "Ω": "ohm", "kΩ": "kilohm", "MΩ": "megohm", "GΩ": "gigohm",
    "μΩ": "microohm", "μm": "micrometre", "μm²": "square micrometre", "μs": "microsecond",
    "μg": "microgram", "μl": "microlitre", "μL": "microlitre", "μA": "microampere",
    "μV": "microvolt", "μW": "microwatt", "μF": "microfarad", "μmol": "micromole",
    "μSv": "microsievert",
}  # fmt: skip
_IRREGULAR = {
    "ft": ("foot", "feet"), "sq ft": ("square foot", "square feet"), "in.": ("inch", "inches"),
    "Hz": ("hertz", "hertz"), "kHz": ("kilohertz", "kilohertz"), "MHz": ("megahertz", "megahertz"),
    "GHz": ("gigahertz", "gigahertz"), "kWh": ("kilowatt-hour", "kilowatt-hours"),
    "dB": ("decibel", "decibels"), "%": ("percent", "percent"), "‰": ("per mille", "per mille"),
    "μH": ("microhenry", "microhenries"),
}  # fmt: skip
_POWERS = {
    "100": "hundreds", "1000": "thousands", "10000": "tens of thousands",
    "100000": "hundreds of thousands", "1000000": "millions",
}  # fmt: skip
_FRACTIONS = {"2": ("half", "halves"), "4": ("quarter", "quarters")}
_PAIRS = {
    "24/7": "twenty-four seven", "24/7/365": "twenty-four seven three sixty-five",
    "9/11": "nine eleven", "20/20": "twenty twenty", "4/4": "four four",
}  # fmt: skip
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
    if written in _IRREGULAR:
        return _IRREGULAR[written][not one]
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


def _alone(match: re.Match[str]) -> str:
    """ "per μm", "in kΩ"."""
    return (match["one"] or "") + _unit(match["unit"], match["one"] is not None)


def _with_dash(match: re.Match[str]) -> str:
    """ "5%-10%" as "5-10%", but "$1.50-$2.50" and "5 m-1 km" as "$1.50 to $2.50", "5 m to 1 km"."""
    sign, low, unit, dash, other_sign, high, other_unit = match.groups(default="")
    unit, other_unit = unit.strip(), other_unit.strip()
    both = (sign and other_sign) or (unit and other_unit)
    if not both and (not unit or dash.strip() != dash):
        return match[0]
    alike = sign == other_sign and (unit == other_unit or (unit == "°" and other_unit[:1] == "°"))
    if alike and not (sign and "." in low + high):
        return f"{sign}{low}-"
    return f"{sign}{low}{unit} to {other_sign}"


def _plural(match: re.Match[str]) -> str:
    """ "1,000s", "100s of", "$100s"; other numbers without a comma or sign are seconds."""
    number = match["number"].replace(",", "")
    powers = {**_POWERS, "10": "tens"} if match["tens"] else _POWERS
    counted_by = match["sign"] or "," in match["number"]
    if not counted_by and not (match["of"] and number in powers):
        return match[0]
    many = powers.get(number)
    if match["sign"] and many:
        many += f" of {_CURRENCIES[match['sign']][1]}"
    return (many or plural(cardinal(number))) + (match["of"] or "")


def _pair(match: re.Match[str]) -> str:
    """What is no fraction though written like one: "50/50", "24/7", "8/10", "120/80"."""
    above, below = match["above"], match["below"]
    if match[0] in _PAIRS or int(above) + int(below) == 100:
        return _PAIRS.get(match[0], f"{cardinal(above)} {cardinal(below)}")
    of_ten = below in ("10", "100") and above != "1" and not match["part"]
    if (above == below and above != "4") or of_ten:  # "4/4 of it" is four quarters
        return f"{cardinal(above)} out of {cardinal(below)}{match['part'] or ''}"
    if int(above) > int(below) > 10:
        return f"{cardinal(above)} over {cardinal(below)}{match['part'] or ''}"
    return match[0]


def _fraction(match: re.Match[str]) -> str:
    whole, above, below = match["whole"], match["above"], match["below"]
    if below in ("0", "1") or below.startswith("0"):
        return match[0]
    if int(below) > 100:
        said = f"{cardinal(above)} over {cardinal(below)}"
    else:
        one, many = _FRACTIONS.get(below) or (ordinal(below), ordinal(below) + "s")
        said = f"{cardinal(above)} {one if above == '1' else many}"
    unit = f" {_unit(match['unit'], not whole)}" if match["unit"] else ""
    if not whole:
        return said + unit
    return f"{cardinal(whole)} and {'a ' + said[4:] if above == '1' else said}{unit}"


def _feet(match: re.Match[str]) -> str:
    return f"{cardinal(match[1])} foot {cardinal(match[2])}"


def _operator(match: re.Match[str]) -> str:
    return f" {_OPERATORS[match[1]]} "


def _version(match: re.Match[str]) -> str:
    return " point ".join(cardinal(part[:15]) for part in match[0].split("."))


def _any_of(names: object) -> str:
    return "|".join(sorted(map(re.escape, names), key=len, reverse=True))  # type: ignore[call-overload]


_UNIT = _any_of([*_UNITS, *(unit for unit in _IRREGULAR if unit != "in.")])
_GREEK_UNIT = _any_of(u for u in [*_UNITS, *_IRREGULAR] if len(u) > 1 and re.search("[μΩ]", u))
_SIGN = _any_of([s for s in _CURRENCIES if not s.isalpha()])
_CODE = _any_of([s for s in _CURRENCIES if s != "US$"])
_SCALE = r"(?P<scale>(?i:thousand|million|billion|trillion|bn|mn|[kmb])\b)"
_PER = re.compile(r"\s?/\s?(hour|hr|day|night|week|month|year|person|minute|second|kg|km)\b")

SIGN_RULES: list[Rule] = [
    # "€12,50" and "12,50 €"
    (re.compile(r"([€£$]\s?[0-9]{1,3}),(?=[0-9]{2}(?!\w|[.,][0-9]))"), lambda m: f"{m[1]}."),
    (re.compile(r"(?<![\w.,])([0-9]{1,3}),(?=[0-9]{2}\s?€)"), lambda m: f"{m[1]}."),
    (re.compile(r"(?<=[0-9])(?<!\b0)x(?=[0-9])"), lambda _: " by "),
    (re.compile(r"(?<![\w.,+-])[1-9][0-9]{0,2}(?: [0-9]{3}){0,3} 000(?!\w| [0-9])"),
     lambda m: m[0].replace(" ", "")),
    (
        re.compile(
            rf"(?<![\w.])({_SIGN})?({NUMBER})(\s?(?:{_UNIT}|[kKMB]|bn|mn))?(\s?[-–‒−]\s?)"
            rf"({_SIGN})?(?=({NUMBER})(\s?(?:{_UNIT}|[kKMB]|bn|mn)(?![\w²³']))?)"
        ),
        _with_dash,
    ),
    (re.compile(rf"(?<![\w.,)%°])(?<!\d\s)[-−](?=(?:{_SIGN})?\.?[0-9])"), lambda _: "minus "),
    (re.compile(rf"(?<![\w)])(~|(?<!\d\s)[≈±<>≤≥+])\s?(?=(?:{_SIGN})?\.?[0-9])"),
     lambda m: _BEFORE[m[1]]),
]  # fmt: skip

RULES: list[Rule] = [
    (
        re.compile(
            rf"(?<![\w.])(?P<sign>{_SIGN})?(?P<number>{INTEGER})'?s\b"
            r"(?P<of>(?P<tens>\sof\s(?=(?:thou|mill|bill|trill)[a-z]{2,4}s\b))|\sof\b)?"
        ),
        _plural,
    ),
    (re.compile(rf"(?P<sign>{_SIGN})\s?{_RANGE}(?:\s?{_SCALE})?(?![0-9])"), _money),
    (re.compile(rf"(?<![\w.]){_RANGE}(?:\s?{_SCALE})?\s?(?P<sign>{_CODE})(?!\w)"), _money),
    (
        re.compile(
            r"(?<![\w.])([0-9])(?:'|\s?ft\.?\s)([0-9]|1[01])(?:\"|\s?in\b(?:\.(?=,|\s[a-z]))?)"
        ),
        _feet,
    ),
    # The full stop of "6 ft. tall" goes.
    (
        re.compile(
            rf"(?<![\w/⁄]){_RANGE}\s?-?(?P<unit>(?:{_UNIT})(?![\w²³'])|in\.(?=\s[a-z]))"
            r"(?:(?<=[a-z])\.(?=,|\s[a-z]))?"
        ),
        _measure,
    ),
    (
        re.compile(r"(?<![\w./,])([0-9]{1,3}\.[0-9])/([0-9]{1,3})(?![\w/]|\.[0-9])"),
        lambda m: f"{cardinal(m[1])} out of {cardinal(m[2])}",
    ),
    (re.compile(r"(?<![\w.,/-])50-50(?![\w/-])"), lambda _: "fifty fifty"),
    (re.compile(r"(?<=[0-9])\s?(bn|mn)\b"), lambda m: " " + _SCALES[m[1]]),
    (
        re.compile(
            r"(?<![\w./,])(?<![0-9]\s)(?P<above>[0-9]{1,3})/(?P<below>[1-9][0-9]{0,2})(?:(?<=24/7)/365)?"
            r"(?![\w/]|\.[0-9])(?P<part>\s(?:of|inch|inches|miles?|seconds?)\b)?"
        ),
        _pair,
    ),
    (
        re.compile(
            r"(?<![\w./,])(?:(?P<whole>[0-9]{1,6})\s)?(?P<above>[0-9]{1,4})[/⁄](?P<below>[0-9]{1,4})"
            rf"(?:\s?(?P<unit>{_UNIT})(?![\w²³'])(?:(?<=[a-z])\.(?=,|\s[a-z]))?|(?![\w/]|\.[0-9]))"
        ),
        _fraction,
    ),
    (re.compile(rf"({INTEGER})(?:st|nd|rd|th)\b", re.IGNORECASE), lambda m: ordinal(m[1])),
    (re.compile(r"\b[vV]\.?\s?(?=[0-9]{1,4}\.[0-9])"), lambda _: "version "),
    (re.compile(r"(?<![\w.])[0-9]{1,15}(?:\.[0-9]{1,15}){2,8}(?![\w])"), _version),
    (re.compile(r"(?<=[0-9])\s?([+=×*÷−<>≤≥±≈^])\s?(?=[0-9])"), _operator),
    (re.compile(r"(?<=[0-9])\s-\s(?=[0-9])"), lambda _: " minus "),
    (re.compile(r"(?<=[0-9]):(?=[0-9])"), lambda _: " to "),
    (re.compile(r"(?<![\w])(?<![0-9]-)(?P<low>[0-9]{1,15})-(?=[0-9])"), lambda m: f"{m[1]} to "),
    (re.compile(r"(?<=[0-9])\s?[–—‒]\s?(?=[0-9])"), lambda _: " to "),
    (re.compile(r"(?<!\w)#\s?(?=[0-9])"), lambda _: "number "),
    (re.compile(r"(?<!\w)(?:N[oº°]|№)\s?(?=[0-9])"), lambda _: "number "),
]

LAST_RULES: list[Rule] = [
    (re.compile(NUMBER), lambda m: parted(m, cardinal(m[0]))),
    (re.compile(r"[0-9]+"), lambda m: parted(m, digits(m[0]))),
    (_PER, lambda m: f" per {_UNITS.get(m[1], m[1])}"),
    (
        re.compile(rf"(?<!\w)(?P<one>(?:an?|one|per)\s)?(?P<unit>{_GREEK_UNIT})(?![\w²³'])"),
        _alone,
    ),
]

"""Characters without a sound: signs, markup, emoji; the names of symbols and Greek letters."""

# ruff: noqa: RUF001 (its business are characters that look alike)

from __future__ import annotations

import html
import re
import unicodedata
from html.entities import html5

from mars5.text.rules import Rule
from mars5.text.words import parted

_SAME = str.maketrans(
    {
        "‘": "'", "’": "'", "‚": "'", "‛": "'", "“": '"', "”": '"', "„": '"', "«": '"',
        "»": '"', "…": "...", "\u00ad": "", "\u200b": "", "\u2060": "", "\ufeff": "",
        "\u00a0": " ", "\u202f": " ", "\u2009": " ", "\u2011": "-", "\u2010": "-",
        "\u2126": "Ω", "\u00b5": "μ", "\u2206": "Δ",  # ohm, micro and increment: Greek letters
    }
)  # fmt: skip
APOSTROPHES = "'" + "".join(chr(sign) for sign, plain in _SAME.items() if plain == "'")
_VULGAR = {
    "½": "1/2", "⅓": "1/3", "⅔": "2/3", "¼": "1/4", "¾": "3/4", "⅕": "1/5", "⅖": "2/5",
    "⅗": "3/5", "⅘": "4/5", "⅙": "1/6", "⅛": "1/8", "⅜": "3/8", "⅝": "5/8", "⅞": "7/8",
}  # fmt: skip
# Said where they stand alone, as in formulas. Those that look like Latin letters are left out,
# but for nu.
_GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "epsilon", "ϵ": "epsilon",
    "ζ": "zeta", "η": "eta", "θ": "theta", "ϑ": "theta", "ι": "iota", "κ": "kappa",
    "λ": "lambda", "μ": "mu", "ν": "nu", "ξ": "xi", "π": "pi", "ρ": "rho", "σ": "sigma",
    "τ": "tau", "υ": "upsilon", "φ": "phi", "ϕ": "phi", "χ": "chi", "ψ": "psi", "ω": "omega",
    "Γ": "gamma", "Δ": "delta", "Θ": "theta", "Λ": "lambda", "Ξ": "xi", "Π": "pi", "Σ": "sigma",
    "Φ": "phi", "Ψ": "psi", "Ω": "omega",
}  # fmt: skip
_ANY_GREEK = "\u0300-\u03ff\u1f00-\u1fff"  # and accents
_EMOJI = "\U0001f000-\U0001faff\u2600-\u27bf\u2b00-\u2bff\ufe0e\ufe0f\U000e0020-\U000e007f"


def _fraction(match: re.Match[str]) -> str:
    text = match.string
    before = " " if match.start() and text[match.start() - 1].isalnum() else ""
    after = " " if text[match.end() : match.end() + 1].isalnum() else ""
    return before + _VULGAR[match[0]] + after


def plain_characters(text: str) -> str:
    """`text` with typographic quotes, blanks and digits as on a keyboard, and without HTML's names.

    It holds no control character that was not there.
    """
    text = _ENTITY.sub(_character, text).translate(_SAME)
    return _OTHER_DIGIT.sub(lambda m: str(unicodedata.decimal(m[0])), text)


def _character(match: re.Match[str]) -> str:
    """What "&amp;" stands for, and what is no name as it is: "Q&As;"."""
    name = match[1] + ";"
    if name[0] != "#" and name not in html5:
        return match[0]
    characters = html.unescape("&" + name)
    kept = [" " if c.isspace() else c for c in characters if c.isspace() or c.isprintable()]
    return "".join(kept)


# Written twice, "&amp;nbsp;" is a blank, too.
_ENTITY = re.compile(r"&(?:amp;)*(#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_OTHER_DIGIT = re.compile(r"(?![0-9])\d")

_ALONE = f"(?<![{_ANY_GREEK}])"
_LETTER = f"[{''.join(_GREEK)}](?![{_ANY_GREEK}])"

FIRST_RULES: list[Rule] = [
    (re.compile("[" + "".join(_VULGAR) + "]"), _fraction),
    (re.compile(rf"[ \t]?[{_EMOJI}]+\u200d?"), lambda _: ""),
    (re.compile(r"^[ \t]{0,8}#{1,6}[ \t]+", re.MULTILINE), lambda _: ""),
    (re.compile(r"^[ \t]{0,8}(?:[-*•‣◦▪·+–—][ \t]+)+", re.MULTILINE), lambda _: ""),
    (re.compile(r"\*{1,3}(?=[^\W\d_\"'])|(?<=[^\W\d_.,!?\"'])\*{1,3}|(?<=[.,!?\"'])\*{1,3}|`+"),
     lambda _: ""),
    (re.compile(rf"{_ALONE}({_LETTER})/(?=[0-9])"), lambda m: f"{m[1]} over "),
]  # fmt: skip

LAST_RULES: list[Rule] = [
    # Of two the first is said if it is a delta: "Δθ"; else they may be a word: "το".
    (re.compile(rf"{_ALONE}(?:{_LETTER}|Δ(?={_LETTER}))"), lambda m: parted(m, _GREEK[m[0]])),
    (re.compile(r"(?<=[^\W_])\s?²"), lambda _: " squared"),
    (re.compile(r"(?<=[^\W_])\s?³"), lambda _: " cubed"),
    (re.compile(r"(?<=[^\W_])\+(?![\w+])"), lambda _: " plus"),  # "18+", "A+", but "C++"
    (re.compile(r"(?<=\w)&(?=\w)"), lambda _: " and "),
    (re.compile(r"&"), lambda _: "and"),
    (re.compile(r"(?<=\w)@(?=\w)"), lambda _: " at "),
    (re.compile(r"@(?=\w)"), lambda _: "at "),
    (re.compile(r"@"), lambda _: "at"),
    (re.compile(r"(?<=\w)\s?%"), lambda _: " percent"),
    (re.compile(r"(?<=\w)\s?°"), lambda _: " degrees"),
    (re.compile(r"(?<=\w)\s?[€]"), lambda _: " euros"),
    (re.compile(r"(?<=\w)\s[+=]\s(?=\w)"), lambda m: " plus " if "+" in m[0] else " equals "),
    (re.compile(r"(?<=\w)\s?[–—]\s?(?=\w)"), lambda _: " - "),
]

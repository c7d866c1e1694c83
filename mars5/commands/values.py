"""Values on the command line: text that is taken, or refused by argparse."""

from __future__ import annotations

import argparse
from contextlib import suppress
from typing import Any

from mars5.config import MAX_BATCH, SEEDS


def count(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 up, got {text!r}")
    return int(text)


def seed(text: str) -> int:
    if count(text) >= SEEDS:
        raise argparse.ArgumentTypeError(f"expected a seed from 0 to 2**63 - 1, got {text!r}")
    return int(text)


def share(text: str) -> float:
    with suppress(ValueError):
        if 0 <= float(text) <= 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"expected a number from 0 to 1, got {text!r}")


def weighted(text: str) -> tuple[str, float]:
    """FILE:WEIGHT; a colon before what is no number is part of the path."""
    path, colon, weight = text.rpartition(":")
    with suppress(ValueError):
        if colon:
            return path, float(weight)
    return text, 1.0


def positive(text: str) -> int:
    if count(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 up, got {text!r}")
    return int(text)


def batch_size(text: str) -> int:
    if not 1 <= count(text) <= MAX_BATCH:
        raise argparse.ArgumentTypeError(f"expected 1 to {MAX_BATCH} texts, got {text!r}")
    return int(text)


def pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    return name, value


def named_setting(text: str) -> tuple[str, Any]:
    return setting(*pair(text))


def setting(name: str, text: str) -> tuple[str, Any]:
    """A setting and its value; what is no truth value or number stays text, to be refused."""
    if text.lower() in ("true", "false"):
        return name, text.lower() == "true"
    for kind in (int, float):
        with suppress(ValueError):
            return name, kind(text)
    return name, text


def shard(text: str) -> tuple[int, int]:
    share, slash, shares = text.partition("/")
    if not (slash and share.isdecimal() and shares.isdecimal()):
        raise argparse.ArgumentTypeError(f"expected I/N, such as 1/4, got {text!r}")
    if not 1 <= int(share) <= int(shares):
        raise argparse.ArgumentTypeError(f"I must lie in 1..N, got {text!r}")
    return int(share), int(shares)

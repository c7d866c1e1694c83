"""What the commands write: facts to standard output, all else to standard error."""

from __future__ import annotations

import argparse
import sys


def print_fact(name: str, value: object) -> None:
    print(f"{name:<15} {value}")


def shows_progress(args: argparse.Namespace) -> bool:
    """Whether bars are drawn: where somebody sees them, and did not ask for quiet."""
    return not args.quiet and sys.stderr.isatty()


def tell(message: str) -> None:
    print(f"mars5: {message}", file=sys.stderr, flush=True)

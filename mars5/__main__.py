"""`python -m mars5`: the command line."""

from __future__ import annotations

from mars5.cli import main

if __name__ == "__main__":
    raise SystemExit(main())

"""Files that appear whole under their name, or not at all; texts that are names of files."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from mars5.errors import ConfigError


def is_file_name(text: str) -> bool:
    """Whether there is a file of this name; any text may be asked about."""
    return os.path.isfile(text)  # noqa: PTH113 - a Path raises OSError for long texts


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a new empty file beside `path`; when the block ends well, it becomes `path`.

    It is on disk before it gets its name. If the block fails, `path` is as it was. A link stays,
    and the file that it names is replaced.

    Raises:
        OSError, ValueError: the place will not do; ValueError for a zero byte in the path.
    """
    path = Path(os.path.realpath(path))  # Path.resolve() has an error of its own for endless links
    if path.exists() and not (path.is_file() or path.is_dir()):  # a folder refuses by itself
        # root may replace /dev/null, and the whole system would miss it
        raise OSError(errno.EINVAL, "it is a device or a pipe, not a file", os.fspath(path))
    temporary = path.with_name(f".mars5-{secrets.token_hex(8)}.tmp")
    try:
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # some writers keep the file to its owner
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError, ValueError):  # in place already, or never there
            temporary.unlink()


def write_text(path: Path, text: str) -> None:
    """A whole file or none.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot write {path}: {error}: give a file in an existing folder"
        ) from error

"""How files are opened and written here: one clear error, never a half-written result."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeAlias

from cfr_fast.errors import CFRError, InputError, OutputError

PathLike: TypeAlias = str | os.PathLike[str]

MAX_PIXELS = 2**26
"""Larger images and clouds (67 million pixels) are taken for corrupt headers and refused unread."""


@contextmanager
def reading(path: PathLike, kind: str) -> Iterator[None]:
    """Turn whatever a decoder raises into an InputError that names the file.

    Decoders raise a great many types on corrupt files (OSError, ValueError, struct.error, zlib.error,
    SyntaxError, MemoryError, …), hence the broad net.

    Args:
        path: the file being read.
        kind: what it should have been, for example "image" or "point cloud".
    """
    try:
        yield
    except CFRError:
        raise
    except FileNotFoundError as error:
        raise InputError(str(path), f"an existing {kind} file", "nothing at this path") from error
    except IsADirectoryError as error:
        raise InputError(str(path), f"a {kind} file", "a folder") from error
    except PermissionError as error:
        raise InputError(str(path), f"a readable {kind} file", "permission denied") from error
    except Exception as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise InputError(
            str(path), f"an intact {kind} file", f"one that cannot be decoded ({reason})"
        ) from error


def require_plausible_size(path: PathLike, *shape: int) -> None:
    """Refuse sizes that only a corrupt header gives, before anything is allocated."""
    pixels = 1
    for length in shape:
        pixels *= int(length)
    if min(shape) < 1 or pixels > MAX_PIXELS:
        size = "×".join(str(length) for length in shape)
        raise InputError(str(path), f"between 1 and {MAX_PIXELS:,} pixels", f"a header that says {size}")


def write_atomically(path: PathLike, data: bytes) -> None:
    """Write `data` to a temporary file beside `path`, then move it there; missing folders are made.

    Raises:
        OutputError: the place cannot be written; what was at `path` before is untouched.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            file.write(data)
        os.replace(temporary, target)
    except OSError as error:
        raise OutputError(f"{target}: cannot be written ({error.strerror or error})") from error
    finally:
        with suppress(OSError):
            temporary.unlink()

"""Whether a dataset is still the one that it was: a hash that reads little of it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from cfr_fast.data.sample import Category

END = 4096  # bytes read of both ends of every file


def fingerprint(category: Category) -> str:
    """A hash of the category's training and test samples, independent of where they lie.

    It covers names and defect types, and of every file its name, size and first and last 4,096 bytes: what is
    replaced, cut, swapped or encoded anew shows; a byte changed in the middle of a large file need not.
    Samples that are made, not read, count by name and defect type alone.

    Returns:
        16 hexadecimal digits of SHA-256. A file that cannot be read counts as such.
    """
    digest = hashlib.sha256()
    for split, sources in (("train", category.train), ("test", category.test)):
        for source in sources:
            digest.update(f"{split}\0{source.name}\0{source.defect}\0".encode())
            for path in source.files:
                digest.update(f"{path.name}\0".encode() + _ends(path))
    return digest.hexdigest()[:16]


def _ends(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(END)
            file.seek(max(0, size - END))
            return f"{size}\0".encode() + head + file.read(END)
    except OSError:
        return b"unreadable"  # to be reported, or skipped, where the sample is read

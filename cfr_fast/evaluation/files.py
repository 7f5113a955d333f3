"""Tables and pictures as files; every writer is atomic and makes missing folders."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tifffile import imwrite

from cfr_fast.data.files import write_atomically
from cfr_fast.errors import InputError


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text.

    Raises:
        OutputError: the file cannot be written; so in all writers here.
    """
    write_atomically(path, text.encode())


def write_json(path: Path | str, content: Any) -> None:
    """Write JSON, indented; NaN is refused (ValueError), JSON having none."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(path: Path | str, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a table with a header line, quoted where needed (RFC 4180); a missing value stays empty."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def write_png(path: Path | str, image: NDArray[np.uint8] | NDArray[np.bool_]) -> None:
    """Write an image: uint8 [H, W, 3] or [H, W], or a bool mask [H, W] as 0 and 255.

    Raises:
        InputError: another shape or dtype.
    """
    pixels = image.astype(np.uint8) * 255 if image.dtype == np.bool_ else image
    color = pixels.ndim == 3 and pixels.shape[2] == 3
    if pixels.dtype != np.uint8 or pixels.size == 0 or not (color or image.ndim == 2):
        raise InputError(
            f"image for {path}", "uint8 [H, W, 3] or [H, W], or bool [H, W]", f"{image.dtype} {image.shape}"
        )
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="PNG")
    write_atomically(path, content.getvalue())


def write_map(path: Path | str, anomaly_map: NDArray[np.float32]) -> None:
    """Write a raw score map [H, W], float32, without loss; ``.npy`` or ``.tiff`` (``.tif``) decides.

    Raises:
        InputError: another ending.
    """
    values = np.asarray(anomaly_map, dtype=np.float32)
    ending = Path(path).suffix.lower()
    if ending not in (".npy", ".tiff", ".tif"):
        raise InputError(f"map file {path}", "the ending .npy, .tiff or .tif", repr(ending))
    content = io.BytesIO()
    if ending == ".npy":
        np.save(content, values)
    else:
        imwrite(content, values, compression="zlib", metadata=None, software=False)
    write_atomically(path, content.getvalue())

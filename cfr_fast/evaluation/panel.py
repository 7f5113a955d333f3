"""Pictures of a result: the overlay on the photo, the panel with everything, the sheet of many."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from cfr_fast.data.sample import Sample
from cfr_fast.errors import InputError
from cfr_fast.evaluation.colors import RGB, depth_image, draw_contour, heat, heat_over, truth_image
from cfr_fast.evaluation.detector import Prediction

_PAPER, _INK, _FOUND, _FAINT = (18, 19, 23), (235, 235, 235), (255, 150, 90), (150, 153, 160)
_GAP = 4
Pixels = TypeVar("Pixels", NDArray[np.uint8], NDArray[np.float32])


def overlay(
    rgb: RGB,
    anomaly_map: NDArray[np.float32],
    mask: NDArray[np.bool_] | None = None,
    threshold: float = math.nan,
) -> RGB:
    """Heat over the photo at its own resolution, with the outline of what was found.

    Args:
        rgb: uint8 [H, W, 3].
        anomaly_map: [H, W].
        mask: bool [H, W], outlined; None outlines nothing.
        threshold: level of the map above which pixels are marked (a result's `pixel_threshold`); it anchors
            the colours, see `colors.heat`, so that all pictures of a model share one scale.

    Returns:
        uint8 [H, W, 3].

    Raises:
        InputError: map or mask of another size than the photo.
    """
    for name, array in (("anomaly_map", anomaly_map), ("mask", mask)):
        if array is not None and array.shape != rgb.shape[:2]:
            raise InputError(name, f"the photo's shape {list(rgb.shape[:2])}", f"{list(array.shape)}")
    image = heat_over(rgb, heat(anomaly_map, threshold))
    return image if mask is None or not mask.any() else draw_contour(image, mask)


def panel(sample: Sample, result: Prediction, side: int = 320) -> RGB:
    """RGB | depth | ground truth | map of one sample, with a caption: name, defect, score and label.

    Args:
        sample: what was judged.
        result: of the same sample; its pixel threshold anchors the colours of the map.
        side: longest side of each of the four pictures, in pixels; smaller samples are not enlarged.

    Returns:
        uint8 [h, 4·w + gaps, 3]; the same size for all samples of one shape.
    """
    height, width = sample.shape
    scale = min(1.0, side / max(height, width))
    h, w = max(1, round(height * scale)), max(1, round(width * scale))
    photo = _resized(sample.rgb, h, w)
    rows, columns = ((np.arange(n) + 0.5) * (size / n) for n, size in ((h, height), (w, width)))
    pick = np.ix_(rows.astype(np.intp), columns.astype(np.intp))
    truth = None if sample.ground_truth is None else sample.ground_truth[pick]
    score_map = _resized(result.anomaly_map.astype(np.float32), h, w)
    tiles = {
        "RGB": photo,
        "depth": depth_image(sample.xyz[pick]),
        "ground truth" if truth is not None or sample.defect == "good" else "ground truth unknown": (
            truth_image(photo, truth)
        ),
        "map": overlay(photo, score_map, result.mask[pick], result.pixel_threshold),
    }
    text = max(10, w // 18)
    head, foot = round(text * 1.8), round(text * 1.6)
    image = Image.new("RGB", (4 * w + 3 * _GAP, head + h + foot), _PAPER)
    draw = ImageDraw.Draw(image)
    verdict = f"{'anomalous' if result.label else 'normal'} · score {result.score:.3g}"
    verdict += f" (threshold {result.threshold:.3g})"
    left = image.width - _GAP - draw.textlength(verdict, _font(text))
    truly = "" if sample.defect is None or f"/{sample.defect}/" in sample.name else f" · {sample.defect}"
    name = _shortened(sample.name + truly, left - 3 * _GAP, text)
    draw.text((_GAP, head // 2), name, _INK, _font(text), anchor="lm")
    draw.text((left, head // 2), verdict, _FOUND if result.label else _INK, _font(text), anchor="lm")
    for index, (title, tile) in enumerate(tiles.items()):
        x = index * (w + _GAP)
        image.paste(Image.fromarray(tile), (x, head))
        title = _shortened(title, w, text)
        draw.text((x + w // 2, head + h + foot // 2), title, _FAINT, _font(text), anchor="mm")
    return np.asarray(image)


def contact_sheet(panels: Sequence[RGB], columns: int | None = None) -> RGB:
    """Many pictures on one page, in order, row by row.

    Args:
        panels: at least one, uint8 [h, w, 3], of any sizes.
        columns: None makes the page about as high as wide.

    Raises:
        InputError: no picture.
    """
    if not panels:
        raise InputError("panels", "at least one picture", "none")
    h, w = max(panel.shape[0] for panel in panels), max(panel.shape[1] for panel in panels)
    if columns is None:
        columns = max(1, round(math.sqrt(len(panels) * h / w)))
    columns = min(columns, len(panels))
    rows, gap = math.ceil(len(panels) / columns), 2 * _GAP
    sheet = np.empty((rows * (h + gap) - gap, columns * (w + gap) - gap, 3), dtype=np.uint8)
    sheet[:] = _PAPER
    for index, picture in enumerate(panels):
        y, x = (index // columns) * (h + gap), (index % columns) * (w + gap)
        sheet[y : y + picture.shape[0], x : x + picture.shape[1]] = picture
    return sheet


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _shortened(text: str, room: float, size: int) -> str:
    """The end of `text` that fits: with names that are paths, the end is what tells them apart."""
    font, kept = _font(size), text
    while kept and font.getlength(kept if kept == text else "…" + kept) > room:
        kept = kept[1:]
    return text if kept == text else "…" + kept


def _resized(image: Pixels, h: int, w: int) -> Pixels:
    if image.shape[:2] == (h, w):
        return image
    small = Image.fromarray(image).resize((w, h), Image.Resampling.BOX)
    return np.asarray(small, dtype=image.dtype)

"""The pinhole camera that turns depth images and unorganized clouds into organized ones."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cfr_fast.data.files import PathLike, reading
from cfr_fast.data.units import Unit, require_unit
from cfr_fast.errors import InputError

_REQUIRED = ("fx", "fy", "cx", "cy")
_OPTIONAL = ("width", "height", "depth_scale", "unit")


@dataclass(frozen=True)
class Camera:
    """Pinhole intrinsics and what the numbers in depth and cloud files mean.

    Lens distortion is not modelled: images and depth are expected rectified.

    Args:
        fx, fy: focal lengths, pixels.
        cx, cy: principal point, pixels; the centre of the top left pixel is (0, 0).
        width, height: image size these hold for, pixels; None takes the size of the photo.
        depth_scale: metres per step of an integer depth image.
        unit: of clouds and floating-point depth, "m" or "mm".

    Raises:
        InputError: a value that no camera has.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    width: int | None = None
    height: int | None = None
    depth_scale: float = 0.001
    unit: Unit = "m"

    def __post_init__(self) -> None:
        for name in (*_REQUIRED, "depth_scale"):
            if not _is_finite_number(getattr(self, name)):
                raise InputError(f"camera {name}", "a finite number", repr(getattr(self, name)))
        for name in ("fx", "fy", "depth_scale"):
            if getattr(self, name) <= 0:
                raise InputError(f"camera {name}", "a positive number", repr(getattr(self, name)))
        if (self.width is None) != (self.height is None):
            raise InputError("camera width and height", "both or neither", "one of them")
        for name in ("width", "height"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise InputError(f"camera {name}", "a positive whole number", repr(value))
        require_unit(self.unit)


def read_camera(path: PathLike) -> Camera:
    """Read ``camera.json`` (or ``.yaml``, ``.yml``): fx, fy, cx, cy, and optionally the rest of `Camera`.

    Raises:
        InputError: missing or malformed file, missing or unknown keys, impossible values.
    """
    with reading(path, "camera"):
        text = Path(path).read_text(encoding="utf-8")
        content: Any = json.loads(text) if Path(path).suffix.lower() == ".json" else yaml.safe_load(text)
    if not isinstance(content, dict):
        raise InputError(str(path), f"a mapping with {', '.join(_REQUIRED)}", type(content).__name__)
    missing = [key for key in _REQUIRED if key not in content]
    # A misspelt or unsupported entry (a distortion, say) must not be passed over in silence.
    unknown = [str(key) for key in content if key not in _REQUIRED + _OPTIONAL]
    if missing or unknown:
        got = " and ".join(
            f"{word} {', '.join(keys)}" for word, keys in (("missing", missing), ("unknown", unknown)) if keys
        )
        raise InputError(
            str(path), f"the keys {', '.join(_REQUIRED)} (optional: {', '.join(_OPTIONAL)})", got
        )
    try:
        return Camera(**content)
    except InputError as error:
        raise InputError(str(path), "a pinhole camera", f"one whose {error}") from error


def _is_finite_number(value: object) -> bool:
    # A comparison, since JSON's integers can be too large for math.isfinite.
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e12

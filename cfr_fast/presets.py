"""Settings by name: the paper's two protocols, and the defaults that need no download."""

from __future__ import annotations

from typing import Any

from cfr_fast.errors import InputError

DEFAULT = "embedded"
"""The preset that ``CFR()`` is: the network that comes with the package, for photo and normal map."""

# The map and the level of the paper.
_AS_PUBLISHED: dict[str, Any] = {"score": "discrepancy", "turns": False, "false_alarm": None}
_PAPER: dict[str, Any] = {
    "rgb": "dino_vitb8",
    "xyz": "point_mae",
    "size": 224,
    "crop": False,
    "expanded_distances": True,
    "shot_views": 0,
    "mapper_epochs": 100,
    "mapper_lr": 1e-3,
    "mapper_pixels": None,
    "coreset": 0.1,
    "bank_background": True,
    "candidates": 3,
    "bank_rows": 20_000,
    "attention_epochs": 100,
    "attention_lr": 1e-4,
    "attention_width": 128,
    "attention_queries": 20_000,
    "seed": 115,
    **_AS_PUBLISHED,
}

# The first stages of a CNN on the object alone; all else is the default. See the README's tables.
_NETWORK: dict[str, Any] = {"layers": "local", "input_size": 448, "balanced": False}
_PRETRAINED: dict[str, Any] = {
    "rgb": "timm:mobilenetv2_100",
    "xyz": "normals:mobilenetv2_100",
    "rgb_options": _NETWORK,
}

# Hand-made features: weaker, but nothing about them was learned. The calibrated score does not suit them.
_CLASSIC: dict[str, Any] = {
    "rgb": "classic",
    "xyz": "classic",
    "crop": False,
    "shot_views": 4,
    "mapper_epochs": 40,
    "attention_epochs": 40,
    "attention_lr": 1e-4,
    **_AS_PUBLISHED,
}

PRESETS: dict[str, dict[str, Any]] = {
    DEFAULT: {},
    "paper-mvtec3d": {**_PAPER, "theta": 0.4},
    "paper-eyecandies": {**_PAPER, "theta": 0.2},
    "pretrained": _PRETRAINED,
    "classic": _CLASSIC,
}


def preset_settings(name: str, overrides: dict[str, Any]) -> dict[str, Any]:
    """Settings of a preset with some of them replaced.

    The paper has no image threshold: its presets calibrate one on augmented views, as every model does.
    ``pretrained`` uses the network of the RGB extractor for normal maps too, unless told otherwise; its
    options are replaced one by one. Expanded distances belong to `point_mae`: with another 3D extractor they
    are off unless asked for.

    Raises:
        InputError: no preset of this name.
    """
    if name not in PRESETS:
        raise InputError("preset", f"one of {', '.join(PRESETS)}", repr(name))
    found = PRESETS[name] | overrides
    if name == "pretrained":
        found["rgb_options"] = _NETWORK | overrides.get("rgb_options", {})
        if "xyz" not in overrides and found["rgb"].startswith("timm:"):
            found["xyz"] = "normals:" + found["rgb"].removeprefix("timm:")
    if found.get("xyz") != "point_mae" and "expanded_distances" not in overrides:
        found["expanded_distances"] = False
    return found

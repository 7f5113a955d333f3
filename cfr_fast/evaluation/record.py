"""What a folder of results was made with, and whether a further run may add to it."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import cfr_fast
from cfr_fast.errors import InputError

FORMAT = "cfr_fast.run/1"

_EXACT = ("format", "dataset", "rule", "samples", "preset", "settings")
_UNITED = ("categories", "methods", "shots", "seeds")


def versions() -> dict[str, str | None]:
    """Of what computes: Python, cfr_fast, torch, numpy, scipy, and the device's name where it is a GPU."""
    import torch  # metrics alone do without it

    found: dict[str, str | None] = {"python": platform.python_version(), "cfr-fast": cfr_fast.__version__}
    found |= {package: _version(package) for package in ("torch", "numpy", "scipy")}
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def united(folder: str, earlier: Mapping[str, Any] | None, now: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a folder after another run, `now`, added to what is there.

    Categories, methods, numbers of shots and seeds may grow; everything else that decides figures must be
    the same: format, dataset, rule, preset, settings, what a method's name means, and the categories' data.

    Raises:
        InputError: something differs; the message says what, and what to do.
    """
    plain: dict[str, Any] = json.loads(json.dumps(dict(now)))
    if earlier is None:
        return plain
    differing = [
        difference for name in _EXACT for difference in _differences(name, earlier.get(name), plain.get(name))
    ]
    for name, what in (("definitions", "definition of"), ("fingerprints", "data of")):
        old, new = earlier.get(name, {}), plain[name]
        differing += [f"{what} {key}" for key in new if key in old and old[key] != new[key]]
    if differing:
        raise InputError(
            folder,
            "a new folder, or one of the same settings and data (give another --out, or remove this one)",
            f"results of an earlier run with other {'; '.join(differing)}",
        )
    for name in _UNITED:
        old, new = earlier.get(name, []), plain[name]
        plain[name] = [*old, *(entry for entry in new if entry not in old)]
    for name in ("definitions", "fingerprints"):
        plain[name] = {**earlier.get(name, {}), **plain[name]}
    return plain


def _differences(name: str, old: Any, new: Any) -> list[str]:
    """In words: what was, and what is asked for."""
    if old == new:
        return []
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            f"{key} ({json.dumps(old.get(key))}, now {json.dumps(new.get(key))})"
            for key in dict.fromkeys((*old, *new))
            if old.get(key) != new.get(key)
        ]
    return [f"{name} ({json.dumps(old)}, now {json.dumps(new)})"]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

"""Extractors by name: what exists, what each needs, and how to make one or bring a saved one back."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor

from cfr_fast.errors import InputError
from cfr_fast.extractors.backbone import Backbone, TimmExtractor
from cfr_fast.extractors.base import Extractor
from cfr_fast.extractors.classic_rgb import ClassicRGB
from cfr_fast.extractors.classic_xyz import ClassicXYZ
from cfr_fast.extractors.dino import DinoRGB
from cfr_fast.extractors.embedded import EmbeddedBackbone, EmbeddedNormals, EmbeddedRGB
from cfr_fast.extractors.normals import NormalsExtractor, TimmNormals
from cfr_fast.extractors.point_mae import PointMAE

ROLES = ("rgb", "xyz")


@dataclass(frozen=True)
class ExtractorInfo:
    """What a table says of an extractor; `name` may contain a placeholder, as in ``timm:<model>``."""

    name: str
    role: str
    needs: str
    description: str


@dataclass(frozen=True)
class _Entry:
    info: ExtractorInfo
    kind: type
    options: frozenset[str]
    takes_model: bool
    has_state: bool


def _entry(
    name: str, role: str, kind: type, needs: str, description: str, more: type | None = None
) -> _Entry:
    options = _keywords(kind) | (_keywords(more) if more is not None else frozenset())
    info = ExtractorInfo(name, role, needs, description)
    return _Entry(info, kind, options - {"state"}, name.endswith(":<model>"), "state" in options)


def _keywords(kind: type) -> frozenset[str]:
    parameters = inspect.signature(kind).parameters.values()
    return frozenset(p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY)


_ENTRIES = (
    _entry("classic", "rgb", ClassicRGB, "nothing", "colour, gradient and texture statistics"),
    _entry("classic", "xyz", ClassicXYZ, "nothing", "FPFH-like histograms of normals, and heights"),
    _entry(
        "timm:<model>",
        "rgb",
        TimmExtractor,
        "timm, and weights (hub or file)",
        "chosen layers of a frozen CNN or ViT",
        Backbone,
    ),
    _entry("dino_vitb8", "rgb", DinoRGB, "timm, and weights (hub or file)", "DINO ViT-B/8, as in the paper"),
    _entry(
        "normals:<model>",
        "xyz",
        TimmNormals,
        "timm, and weights (hub or file)",
        "a frozen CNN or ViT on the rendered normal map",
        Backbone,
    ),
    _entry(
        "point_mae", "xyz", PointMAE, "weights (download or file)", "Point-MAE's encoder, as in the paper"
    ),
    _entry(
        "embedded",
        "rgb",
        EmbeddedRGB,
        "nothing",
        "a small CNN of the project's own, trained by tools/train_embedded.py",
        EmbeddedBackbone,
    ),
    _entry(
        "normals:embedded",
        "xyz",
        EmbeddedNormals,
        "nothing",
        "the same CNN on the rendered normal map",
        EmbeddedBackbone,
    ),
)


def available_extractors() -> list[ExtractorInfo]:
    """Every extractor there is, for tables."""
    return [entry.info for entry in _ENTRIES]


def describe(name: str, role: str) -> str:
    """One line: what the extractor computes, and what it needs.

    Raises:
        InputError: no extractor of this name and role.
    """
    info = _find(name, role)[0].info
    return f"{name}: {info.description} (needs {info.needs})"


def create_extractor(name: str, role: str, **options: Any) -> Extractor:
    """The extractor of this name.

    Args:
        name: ``classic``; for RGB ``dino_vitb8`` or ``timm:<model>``, for 3D ``point_mae`` or
            ``normals:<model>``, with a model name of timm.
        role: ``rgb`` or ``xyz``.
        options: of the extractor: see `ClassicRGB`, `ClassicXYZ`, `DinoRGB`, `PointMAE`, `Backbone` and
            `NormalsExtractor`.

    Raises:
        InputError: no such name, role or option, or an option out of its range; weights that cannot be had.
    """
    return _build(name, role, options, None)


def create_pair(
    rgb: str, xyz: str, rgb_options: Mapping[str, Any], xyz_options: Mapping[str, Any]
) -> tuple[Extractor, Extractor]:
    """Both extractors of a model; those of photos and normal maps share a network where nothing forbids it.

    That are ``timm:X`` and ``normals:X``, and ``embedded`` and ``normals:embedded``. What `xyz_options` leave
    open is then as `rgb_options` say; if they name another value, there are two networks.

    Raises:
        InputError: as `create_extractor`.
    """
    first = create_extractor(rgb, "rgb", **rgb_options)
    network = first.backbone.model if isinstance(first, TimmExtractor) else rgb
    if isinstance(first, TimmExtractor | EmbeddedRGB) and xyz == f"normals:{network}":
        own = dict(xyz_options)
        window = own.pop("window", None)
        if own.items() <= dict(rgb_options).items():
            more = {} if window is None else {"window": window}
            return first, NormalsExtractor(xyz, first.backbone, **more)
        return first, create_extractor(xyz, "xyz", **{**rgb_options, **xyz_options})
    return first, create_extractor(xyz, "xyz", **xyz_options)


def restore_extractor(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> Extractor:
    """The extractor that gave `config` and `state`, without any download.

    Raises:
        InputError: a config or state that is not complete, or not of this version.
    """
    try:
        name, role, options = str(config["name"]), str(config["role"]), dict(config["options"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError("config", "an extractor's name, role and options", str(dict(config))) from error
    return _build(name, role, options, dict(state))


def _build(name: str, role: str, options: dict[str, Any], state: dict[str, Tensor] | None) -> Extractor:
    entry, model = _find(name, role)
    unknown = sorted(options.keys() - entry.options)
    if unknown:
        known = ", ".join(sorted(entry.options))
        raise InputError(f"options of extractor {name!r}", f"some of {known}", ", ".join(unknown))
    if entry.has_state and state is not None:
        options = {**options, "state": state}
    arguments = (model,) if entry.takes_model else ()
    return cast(Extractor, entry.kind(*arguments, **options))


def _find(name: str, role: str) -> tuple[_Entry, str]:
    """The entry of a name, and the model in it ("" where it takes none)."""
    if role not in ROLES:
        raise InputError("role", "'rgb' or 'xyz'", repr(role))
    entries = [entry for entry in _ENTRIES if entry.info.role == role]
    for entry in entries:  # whole names first: "normals:embedded" is no model of timm
        if name == entry.info.name and not entry.takes_model:
            return entry, ""
    for entry in entries:
        prefix = entry.info.name.removesuffix("<model>")
        if entry.takes_model and name.startswith(prefix) and len(name) > len(prefix):
            return entry, name[len(prefix) :]
    names = [entry.info.name for entry in entries]
    near = difflib.get_close_matches(name.split(":")[0], [n.split(":")[0] for n in names], n=1)
    hint = f" (did you mean {next(n for n in names if n.startswith(near[0]))!r}?)" if near else ""
    raise InputError(f"{role} extractor", f"one of {', '.join(names)}{hint}", repr(name))

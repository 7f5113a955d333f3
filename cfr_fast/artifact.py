"""The model file: one safetensors file with settings, thresholds, banks and networks; never pickle."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from cfr_fast.calibrated import Calibrated, cells_per_row
from cfr_fast.data.files import write_atomically
from cfr_fast.errors import InputError
from cfr_fast.extractors import Extractor, restore_extractor
from cfr_fast.learned import Learned
from cfr_fast.mappers import MAPPERS, CyclicMappers
from cfr_fast.memory import KeyValueBank
from cfr_fast.retriever import AttentionRetriever
from cfr_fast.settings import Settings

FORMAT = 4  # raised whenever older code could no longer read what newer code writes
READABLE = (1, 2, 3, FORMAT)
# 2 adds the kind of mapper, models without frozen networks; 3 the calibrated score; 4 self-similarity, flips.
ABSENT: dict[str, Any] = {
    "score": "discrepancy",
    "turns": False,
    "false_alarm": None,
    "self_similarity": False,
}
"""What settings that older files do not name were before they could be set."""

LEVELS = ("theta", "threshold", "pixel_threshold")


def write(
    path: str | Path, settings: Settings, learned: Learned, extractors: tuple[Extractor, Extractor] | None
) -> None:
    """Write a model; without its extractors where it has not needed any yet.

    Raises:
        OutputError: the file cannot be written; what was there before stays.
    """
    tensors = _prefixed("mappers.", learned.mappers.state_dict())
    if learned.pairs is not None:
        tensors |= {"pairs.keys": learned.pairs.keys, "pairs.values": learned.pairs.values}
    if learned.rgb_bank is not None:
        tensors |= {"rgb_bank": learned.rgb_bank}
    if learned.retriever is not None:
        tensors |= _prefixed("retriever.", learned.retriever.state_dict())
    if learned.calibrated is not None:
        tensors |= _prefixed("calibrated.", learned.calibrated.tensors())
    described = []
    for extractor in extractors or ():  # a network that serves both kinds is stored once
        state = extractor.state()
        network = _fingerprint(state) if state else ""
        tensors |= _prefixed(f"network.{network}.", state)
        described.append({"config": extractor.config(), "network": network})
    header = {
        "format": FORMAT,
        "settings": settings.to_dict(),
        "levels": {name: getattr(learned, name) for name in LEVELS},
        "extractors": None if extractors is None else described,
    }
    stored = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    write_atomically(path, save(stored, {"cfr_fast": json.dumps(header)}))


def read(
    path: str | Path, device: torch.device
) -> tuple[Settings, Learned, tuple[Extractor, Extractor] | None]:
    """Read a model: its settings, what it learned, and its extractors where the file has them.

    Raises:
        InputError: no such file, not a model, cut short, or from a version that this one cannot read.
    """
    header, tensors = _load(Path(path), device)
    try:
        settings = Settings.create(**{**ABSENT, **header["settings"]})
        learned = _learned(settings, tensors)
        for name in LEVELS:
            setattr(learned, name, float(header["levels"][name]))
        described = header["extractors"]
        if described is None:
            return settings, learned, None
        rgb, xyz = (
            restore_extractor(entry["config"], _part(tensors, f"network.{entry['network']}.")).to(device)
            for entry in described
        )
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            str(path), "a complete CFR model", f"one with a missing or wrong part ({error})"
        ) from error
    return settings, learned, (rgb, xyz)


def _load(path: Path, device: torch.device) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not path.is_file():
        raise InputError("model", "an existing model file", f"{str(path)!r}")
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            header = json.loads((file.metadata() or {}).get("cfr_fast", "null"))
            # Cloned: a matrix product may round otherwise where memory begins at an odd place of the file.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(
            str(path), "an intact safetensors file", f"one that is cut short or foreign ({error})"
        ) from error
    if not isinstance(header, dict) or "format" not in header:
        raise InputError(str(path), "a CFR model", "a safetensors file of something else")
    if header["format"] not in READABLE:
        raise InputError(
            str(path),
            f"model format {' or '.join(map(str, READABLE))}",
            f"format {header['format']}, from another version of cfr_fast",
        )
    return header, tensors


def _learned(settings: Settings, tensors: dict[str, Tensor]) -> Learned:
    mappers = _part(tensors, "mappers.")
    last = f"{MAPPERS[settings.mapper].OUTPUT}.bias"
    xyz_dim, rgb_dim = (mappers[f"{name}.{last}"].numel() for name in ("rgb_to_xyz", "xyz_to_rgb"))
    pair = CyclicMappers(rgb_dim, xyz_dim, settings.mapper)
    pair.load_state_dict(mappers)
    device = next(iter(mappers.values())).device
    learned = Learned(pair.to(device).eval().requires_grad_(False))
    if "rgb_bank" in tensors:
        learned.rgb_bank = tensors["rgb_bank"]
    if "pairs.keys" in tensors:
        learned.pairs = KeyValueBank(tensors["pairs.keys"], tensors["pairs.values"])
    state = _part(tensors, "retriever.")
    if state:
        retriever = AttentionRetriever(xyz_dim, rgb_dim, settings.attention_width, settings.normalize_qk)
        retriever.load_state_dict(state)
        learned.retriever = retriever.to(device).eval().requires_grad_(False)
    score = _part(tensors, "calibrated.")
    if settings.score == "calibrated":
        learned.calibrated = Calibrated.of(score, cells_per_row(settings))
    return learned


def _prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": value for name, value in tensors.items()}


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _fingerprint(state: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(
            name.encode()
            + state[name].detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()[:16]

"""Checkpoints of the authors' scripts, and of CFM's: found, read and checked against each other."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from cfr_fast.errors import InputError
from cfr_fast.learned import Learned
from cfr_fast.mappers import MAPPERS, CyclicMappers
from cfr_fast.memory import KeyValueBank
from cfr_fast.retriever import AttentionRetriever

# File names as the scripts give them; CFM's mappers begin with CFM_ instead of CFR_.
PATTERNS = {
    "mapper_2d_to_3d": "*2Dto3D*.pth",
    "mapper_3d_to_2d": "*3Dto2D*.pth",
    "attention": "ATTN*.pth",
    "bank": "memory_bank*.pt",
    "kv_bank": "memory_bank_kv*.pt",
}
NEEDED = ("mapper_2d_to_3d", "mapper_3d_to_2d")

Network = TypeVar("Network", bound=nn.Module)


def find_files(folder: str | Path) -> dict[str, Path]:
    """The authors' files in a folder, by the argument of `read` that each is for.

    Raises:
        InputError: no such folder, a mapper missing, or several files for one argument.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError("folder", "an existing folder of checkpoints", repr(str(folder)))
    found = {name: sorted(folder.glob(pattern)) for name, pattern in PATTERNS.items()}
    found["bank"] = [path for path in found["bank"] if path not in found["kv_bank"]]
    for name, paths in found.items():
        wanted = f"one file {PATTERNS[name]} in {folder}"
        if len(paths) > 1:
            raise InputError(name, wanted, ", ".join(path.name for path in paths))
        if not paths and name in NEEDED:
            raise InputError(name, wanted, "none")
    return {name: paths[0] for name, paths in found.items() if paths}


def read(
    mapper_2d_to_3d: str | Path,
    mapper_3d_to_2d: str | Path,
    attention: str | Path | None = None,
    bank: str | Path | None = None,
    kv_bank: str | Path | None = None,
    normalize_qk: bool = False,
    theta: float = 0.2,
    score_threshold: float = float("inf"),
) -> tuple[Learned, dict[str, Any]]:
    """Everything the files hold, and the settings that follow from them.

    Args:
        mapper_2d_to_3d, mapper_3d_to_2d: state dicts of CFR's GeGLU or of CFM's MLP mappers.
        attention: state dict of the retriever; needs both banks.
        bank: the RGB bank, float32 [M, Dr]; None replaces nothing. Without `attention`, its nearest row
            replaces unreliable predictions.
        kv_bank: dict of ``keys`` [M, Dx] and ``values`` [M, Dr]; needs `attention`.
        normalize_qk: whether the retriever was trained with normalised queries and keys; no file says.
        theta: cosine distance from which a prediction is unreliable.
        score_threshold: image score above which a sample is anomalous, and level at which pixels are marked.

    Raises:
        InputError: a file missing, foreign, or one that does not fit the others; a threshold below 0.
    """
    for name, value in (("threshold", theta), ("score_threshold", score_threshold)):
        if not value >= 0:
            raise InputError(name, "a number of at least 0", repr(value))
    for name, path, others in (("attention", attention, (bank, kv_bank)), ("kv_bank", kv_bank, (attention,))):
        if path is not None and None in others:
            needs = "bank and kv_bank" if name == "attention" else "attention"
            raise InputError(name, f"{needs} beside it", "none")
    mappers, kind = _mappers(mapper_2d_to_3d, mapper_3d_to_2d)
    learned = Learned(mappers, theta=theta, threshold=score_threshold, pixel_threshold=score_threshold)
    rgb_dim, xyz_dim = learned.widths
    settings: dict[str, Any] = {"mapper": kind, "replacement": "none", "cycle": kind == "geglu"}
    if bank is not None:
        rows = _load("bank", bank)
        _check("bank", bank, {"": rows}, {"": (None, rgb_dim)})
        learned.rgb_bank, settings["replacement"] = rows.contiguous(), "nearest"
    if attention is not None and kv_bank is not None:
        pairs, state = _load("kv_bank", kv_bank), _load("attention", attention)
        _check("kv_bank", kv_bank, pairs, {"keys": (None, xyz_dim), "values": (None, rgb_dim)})
        if len(pairs["keys"]) != len(pairs["values"]):
            raise _foreign("kv_bank", kv_bank, "as many keys as values", _describe(pairs))
        width = _rows(state, "q_proj.weight")
        retriever = AttentionRetriever(xyz_dim, rgb_dim, width, normalize_qk)
        learned.retriever = _filled("attention", attention, retriever, state)
        learned.pairs = KeyValueBank(pairs["keys"].contiguous(), pairs["values"].contiguous())
        settings |= {"replacement": "attention", "attention_width": width, "normalize_qk": normalize_qk}
    return learned, settings


def _mappers(there: str | Path, back: str | Path) -> tuple[CyclicMappers, str]:
    """Both mappers, and their kind; widths are those of the first file, which the second must mirror."""
    states = {"mapper_2d_to_3d": (there, _load("mapper_2d_to_3d", there))}
    states["mapper_3d_to_2d"] = (back, _load("mapper_3d_to_2d", back))
    (path, first), (_, second) = states.values()
    kinds = [name for name, kind in MAPPERS.items() if _rows(first, f"{kind.OUTPUT}.weight", default=0)]
    if not kinds:
        known = " or of ".join(f"{kind.INPUT}, …, {kind.OUTPUT}" for kind in MAPPERS.values())
        raise _foreign("mapper_2d_to_3d", path, f"a mapper's state dict, of {known}", _describe(first))
    (name,) = kinds
    xyz_dim = _rows(first, f"{MAPPERS[name].OUTPUT}.weight")
    weight = first.get(f"{MAPPERS[name].INPUT}.weight")
    rgb_dim = weight.shape[1] if isinstance(weight, Tensor) and weight.dim() == 2 else 1
    pair = CyclicMappers(rgb_dim, xyz_dim, name)
    _filled("mapper_2d_to_3d", there, pair.rgb_to_xyz, first)
    _filled("mapper_3d_to_2d", back, pair.xyz_to_rgb, second)
    return pair.eval().requires_grad_(False), name


def _load(argument: str, path: str | Path) -> Any:
    if not Path(path).is_file():
        raise InputError(argument, "an existing file", repr(str(path)))
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise _foreign(argument, path, "a file of tensors alone, written by torch.save", reason) from error


def _rows(state: Any, name: str, default: int = 1) -> int:
    """Length of a matrix's first axis; `default` where it is none (`_check` says so with all the rest)."""
    found = state.get(name) if isinstance(state, Mapping) else None
    return int(found.shape[0]) if isinstance(found, Tensor) and found.dim() == 2 else default


def _filled(argument: str, path: str | Path, network: Network, state: Any) -> Network:
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    _check(argument, path, state, wanted)
    network.load_state_dict(state)
    return network.eval().requires_grad_(False)


def _check(argument: str, path: str | Path, found: Any, wanted: Mapping[str, tuple[int | None, ...]]) -> None:
    """Names, dtypes (float32), shapes (None: any length of at least 1) and finite values."""
    parts = [f"{name} [{', '.join('M' if n is None else str(n) for n in s)}]" for name, s in wanted.items()]
    expected = "float32 " + ", ".join(part.strip() for part in parts)
    fits = isinstance(found, Mapping) and found.keys() == wanted.keys()
    for name, shape in wanted.items() if fits else ():
        tensor = found[name]
        fits = fits and isinstance(tensor, Tensor) and tensor.dtype == torch.float32
        fits = fits and tensor.dim() == len(shape) and 0 not in tensor.shape
        fits = fits and all(n is None or n == got for n, got in zip(shape, tensor.shape, strict=True))
    if not fits:
        raise _foreign(argument, path, expected, _describe(found))
    for name, tensor in found.items():
        if not torch.isfinite(tensor).all():
            raise _foreign(argument, path, "finite numbers", f"NaN or infinity in {name or 'the tensor'}")


def _describe(found: Any) -> str:
    if isinstance(found, Tensor):
        return f"{str(found.dtype).removeprefix('torch.')} {list(found.shape)}"
    if not isinstance(found, Mapping):
        return f"a {type(found).__name__}"
    parts = [f"{name} {_describe(part)}".strip() for name, part in list(found.items())[:8]]
    return ", ".join(parts + ["…"] * (len(found) > 8)) or "nothing"


def _foreign(argument: str, path: str | Path, expected: str, got: str) -> InputError:
    return InputError(f"{argument} ({path})", expected, got)

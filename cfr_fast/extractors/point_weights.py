"""Where the weights of Point-MAE's encoder come from: a file, a saved model, or the published release."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from cfr_fast.errors import InputError
from cfr_fast.extractors.weights import load_weights, read_weights

URL = "https://github.com/Pang-Yatian/Point-MAE/releases/download/main/pretrain.pth"
SHA256 = "27ded932bb0a2625d5a8eb006df199b2578598c774aee6d86b985300b6a5fd20"
FILE = "pointmae_pretrain.pth"
ENCODER = "MAE_encoder."


def load_point_weights(network: nn.Module, weights: Path | dict[str, Tensor], source: str = "") -> None:
    """Load a checkpoint's encoder into `network`; what else is in it (decoder, mask token) is ignored.

    Args:
        network: a `PointEncoder`.
        weights: a .pth or .safetensors file, or named tensors; names may begin with ``module.`` and
            ``MAE_encoder.``.
        source: what errors call named tensors; a file is called by its path.

    Raises:
        InputError: the file is missing or cannot be read; an entry is missing or of another shape.
    """
    if isinstance(weights, Path):
        source = str(weights)
        if not weights.is_file():
            expected = "'random', None (the published file), or an existing .pth or .safetensors file"
            raise InputError("weights", expected, source)
        weights = read_weights(weights)
    state = {name.removeprefix("module."): value for name, value in weights.items()}
    if any(name.startswith(ENCODER) for name in state):
        state = {name.removeprefix(ENCODER): v for name, v in state.items() if name.startswith(ENCODER)}
    wanted = network.state_dict()
    known = {name: value for name, value in state.items() if name in wanted}
    load_weights(network, known, source, "Point-MAE's encoder")


def published_weights() -> Path:
    """The published checkpoint in torch's hub cache, downloaded when it is not there yet.

    Raises:
        InputError: it cannot be downloaded, or the file there is another one; the message says which file
            belongs where.
    """
    path = Path(torch.hub.get_dir()) / "checkpoints" / FILE
    advice = f"{URL} (SHA-256 {SHA256}) as {path}, or weights=PATH"
    if path.is_file():
        found = _sha256(path)
        if found != SHA256:
            raise InputError("weights", advice, f"a file with SHA-256 {found} there; remove it")
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Writes beside the file, checks the sum, and only then moves it to its place.
        torch.hub.download_url_to_file(URL, str(path), hash_prefix=SHA256, progress=sys.stderr.isatty())
    except (OSError, RuntimeError) as error:  # no network; a wrong sum
        raise InputError("weights", advice, f"no download ({type(error).__name__}: {error})") from error
    return path


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()

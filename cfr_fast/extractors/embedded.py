"""Features of the project's small network: ``embedded`` on photos, ``normals:embedded`` on normal maps."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, pad

from cfr_fast.errors import InputError
from cfr_fast.extractors.backbone import resized
from cfr_fast.extractors.embedded_network import STRIDES, EmbeddedNetwork
from cfr_fast.extractors.normals import NormalsExtractor
from cfr_fast.extractors.photos import PhotoExtractor
from cfr_fast.extractors.precision import precision
from cfr_fast.extractors.weights import load_weights, read_weights

PACKAGED = "embedded.safetensors"
"""Where the trained network lies, beside this file."""


class EmbeddedBackbone:
    """The network with its preprocessing; both maps of features as one grid of tokens.

    Args:
        weights: a file that ``tools/train_embedded.py`` wrote; None: the one that comes with the package.
        input_size: side of the images that the network sees, pixels, a multiple of 16.
        autocast: on CUDA devices, run the network in bfloat16; features stay float32.
        state: saved weights, instead of `weights`.

    Raises:
        InputError: a file that does not exist or fit; a size out of range.
    """

    def __init__(
        self,
        *,
        weights: str | None = None,
        input_size: int = 448,
        autocast: bool = True,
        state: dict[str, Tensor] | None = None,
    ) -> None:
        whole = isinstance(input_size, int) and not isinstance(input_size, bool)
        if not whole or input_size < 32 or input_size % STRIDES[1]:
            raise InputError("input_size", f"a multiple of {STRIDES[1]}, at least 32", repr(input_size))
        self.input_size, self.autocast = input_size, bool(autocast)
        self.network = EmbeddedNetwork().requires_grad_(False).eval()
        found = _packaged_or(weights) if state is None else state
        source = "of the saved model" if state is not None else str(weights or PACKAGED)
        load_weights(self.network, found, source, "the embedded network")
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.device = torch.device("cpu")

    def tokens(self, images: Sequence[Tensor]) -> Tensor:
        """Tokens of images in one forward pass.

        Both strides have the same weight in a cosine: 32 and 64 standardised features, each divided by the
        root of their number; tokens have a norm of about √96.

        Args:
            images: float32 [3, h, w] each, in 0 … 1; resized with antialiasing (bicubic).

        Returns:
            float32 [B, s/8, s/8, 96] for an input size of s, tokens centred in their cells.
        """
        batch = torch.cat([resized(image.to(self.device), self.input_size) for image in images]) * 2 - 1
        # A stride of 8 is centred on pixel 8i + 7, the middle of the cell being 8i + 3.5: 4 pixels of margin.
        side = self.input_size
        batch = pad(batch, (4, 0, 4, 0), mode="replicate")[:, :, :side, :side]
        with precision(self.device, self.autocast):
            fine, coarse = self.network(batch.contiguous(memory_format=torch.channels_last))
        fine, coarse = fine.float(), coarse.float()
        maps = [fine, _aligned(coarse, fine.shape[2], offset=(15 - 4 - 7.5) / STRIDES[1])]
        share = (sum(map.shape[1] for map in maps) / len(maps)) ** 0.5
        tokens = torch.cat([map * (share / map.shape[1] ** 0.5) for map in maps], dim=1)
        return tokens.permute(0, 2, 3, 1).contiguous()

    def options(self) -> dict[str, Any]:
        """Everything but the weights, JSON-able."""
        return {"input_size": self.input_size, "autocast": self.autocast}

    def state(self) -> dict[str, Tensor]:
        """The network's weights, float32."""
        return {name: value.cpu().contiguous() for name, value in self.network.state_dict().items()}

    def to(self, device: torch.device | str) -> EmbeddedBackbone:
        """Move the weights; returns self."""
        self.device = torch.device(device)
        self.network.to(self.device)
        return self


class EmbeddedRGB(PhotoExtractor[EmbeddedBackbone]):
    """RGB features of the embedded network: ``embedded``. Options: those of `EmbeddedBackbone`."""

    def __init__(self, **options: Any) -> None:
        super().__init__("embedded", EmbeddedBackbone(**options))


class EmbeddedNormals(NormalsExtractor[EmbeddedBackbone]):
    """3D features of the embedded network: ``normals:embedded``.

    Args:
        window: as in `NormalsExtractor`.
        options: those of `EmbeddedBackbone`.
    """

    def __init__(self, *, window: float = 5.0, **options: Any) -> None:
        super().__init__("normals:embedded", EmbeddedBackbone(**options), window)


def _packaged_or(weights: str | None) -> dict[str, Tensor]:
    if weights is not None:
        return read_weights(Path(str(weights)))
    packaged = files("cfr_fast.extractors").joinpath(PACKAGED)
    if not packaged.is_file():
        expected = f"a file that tools/train_embedded.py wrote, as this installation lacks its {PACKAGED}"
        raise InputError("weights", expected, "nothing")
    with as_file(packaged) as path:
        return read_weights(path)


def _aligned(map: Tensor, side: int, offset: float) -> Tensor:
    """A map [B, C, h, h], its cells `offset` cells too far right and down, on side×side cells, bilinear."""
    shift = -2 * offset / map.shape[2]
    matrix = torch.tensor([[1.0, 0.0, shift], [0.0, 1.0, shift]], device=map.device)
    where = affine_grid(
        matrix.expand(len(map), 2, 3), [len(map), map.shape[1], side, side], align_corners=False
    )
    return grid_sample(map, where, mode="bilinear", padding_mode="border", align_corners=False)

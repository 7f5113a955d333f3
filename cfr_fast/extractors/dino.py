"""Features of DINO's frozen ViT-B/8 on the photo: ``dino_vitb8``."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from cfr_fast.extractors.backbone import TimmExtractor

MODEL = "vit_base_patch8_224.dino"


class DinoRGB(TimmExtractor):
    """RGB features of DINO ViT-B/8 (Caron et al. 2021), as the paper's protocol uses it.

    All patch tokens after the twelfth block and the final norm: 28×28 of 768 numbers, from the photo at
    224×224 (bicubic, ImageNet's mean and standard deviation).

    Args:
        weights: ``"random"``, a .pth file with the published names (``dino_vitbase8_pretrain.pth``), a
            .safetensors file, or None for timm's hub.
        autocast, compile: as in `Backbone`.
        seed: of random weights.
        state: saved weights, instead of `weights`.

    Raises:
        InputError: timm is not installed; weights that cannot be had, read, or are another network's.
    """

    def __init__(
        self,
        *,
        weights: str | None = None,
        autocast: bool = True,
        compile: bool = False,
        seed: int = 0,
        state: dict[str, Tensor] | None = None,
    ) -> None:
        source = "hub" if weights is None else weights
        speed = {"autocast": autocast, "compile": compile}
        super().__init__(MODEL, weights=source, layers=["blocks.11"], seed=seed, state=state, **speed)
        self.name = "dino_vitb8"

    def config(self) -> dict[str, Any]:
        """Registry name, role and options, weights apart."""
        options = {"autocast": self.backbone.autocast, "compile": self.backbone.compile}
        return {"name": self.name, "role": self.role, "options": options}

"""Features of a frozen timm network on the photo: ``timm:<model>``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from cfr_fast.errors import InputError
from cfr_fast.extractors.compiled import CompiledStages
from cfr_fast.extractors.layers import LayerTap
from cfr_fast.extractors.photos import PhotoExtractor
from cfr_fast.extractors.precision import precision
from cfr_fast.extractors.weights import create_network, load_weights

CNN_INPUT = 448
"""Pixels that convolutional networks see by default: a stride of 16 then gives 28×28 tokens."""


class Backbone:
    """A frozen network of timm, with its preprocessing.

    Args:
        model: a timm model name, with its tag where one is meant (``vit_base_patch8_224.dino``).
        weights: ``"hub"`` (timm's pretrained weights), ``"random"``, or a .safetensors or .pth file.
        layers: modules by name (``blocks.3``), stages and blocks by number, or ``"local"``; see `LayerTap`.
        input_size: side of the images that the network sees, pixels; None: a transformer's own size, 448 for
            everything else.
        mean, std: normalisation of pixels in 0 … 1, three numbers or one; None: those that timm states.
        balanced: whether several layers are given equal norms at every position; conditioning makes that
            needless (`Settings.score`).
        autocast: on CUDA devices, run the network in bfloat16 where that is safe; features stay float32.
            Otherwise all of it is float32.
        compile: run its stages through ``torch.compile``. The first image waits for the compiler; without a
            working one a warning says so, and the network runs as it is.
        seed: of random weights.
        model_kwargs: further arguments of ``timm.create_model``, for example ``{"pad_type": "same"}``.
        state: saved weights, instead of `weights`.

    Raises:
        InputError: timm is not installed; a model, layer or weights file that does not exist or fit.
    """

    def __init__(
        self,
        model: str,
        *,
        weights: str = "hub",
        layers: Sequence[str | int] | str | None = None,
        input_size: int | None = None,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        balanced: bool = True,
        autocast: bool = True,
        compile: bool = False,
        seed: int = 0,
        model_kwargs: dict[str, Any] | None = None,
        state: dict[str, Tensor] | None = None,
    ) -> None:
        self.model = model
        self.autocast, self.compile = bool(autocast), bool(compile)
        self.model_kwargs = dict(model_kwargs or {})
        if input_size is not None and (isinstance(input_size, bool) or int(input_size) < 8):
            raise InputError("input_size", "at least 8 pixels", str(input_size))
        network = create_network(
            model, None if state is not None else str(weights), seed, self.model_kwargs, input_size
        )
        cfg: dict[str, Any] = network.pretrained_cfg  # type: ignore[assignment]
        own = int(cfg["input_size"][-1]) if cfg.get("fixed_input_size") else CNN_INPUT
        self.input_size = own if input_size is None else int(input_size)
        self.mean = _triple("mean", cfg["mean"] if mean is None else mean)
        self.std = _triple("std", cfg["std"] if std is None else std)
        self.tap = LayerTap(network, layers, self.input_size, bool(balanced))
        if state is not None:
            load_weights(network, state, "of the saved model", f"timm's {model!r}")
        self.tap.fold(self.input_size)
        self._compiled = (
            CompiledStages(self.tap.running, self.tap.stages, self.tap.layers) if compile else None
        )
        self.device = torch.device("cpu")

    def tokens(self, images: Sequence[Tensor]) -> Tensor:
        """Tokens of images in one forward pass.

        Args:
            images: float32 [3, h, w] each, in 0 … 1; resized with antialiasing (bicubic).

        Returns:
            float32 [B, h0, w0, D].
        """
        batch = torch.cat([resized(image.to(self.device), self.input_size) for image in images])
        mean, std = (torch.tensor(v, device=self.device).view(1, 3, 1, 1) for v in (self.mean, self.std))
        batch = (batch - mean) / std
        with precision(self.device, self.autocast):
            if self._compiled is None:
                return self.tap(batch).float()
            found: Tensor = self._compiled.run(lambda: self.tap(batch))
            return found.float()

    def options(self) -> dict[str, Any]:
        """Everything but the weights, JSON-able."""
        return {
            "layers": list(self.tap.layers),
            "input_size": self.input_size,
            "mean": list(self.mean),
            "std": list(self.std),
            "balanced": self.tap.balanced,
            "autocast": self.autocast,
            "compile": self.compile,
            "model_kwargs": self.model_kwargs,
        }

    def state(self) -> dict[str, Tensor]:
        """The weights that the chosen layers depend on."""
        return {name: value.cpu().contiguous() for name, value in self.tap.network.state_dict().items()}

    def to(self, device: torch.device | str) -> Backbone:
        """Move the weights; returns self."""
        self.device = torch.device(device)
        self.tap.to(self.device)
        return self


class TimmExtractor(PhotoExtractor[Backbone]):
    """RGB features of a frozen timm network: ``timm:<model>``. Options: those of `Backbone`."""

    def __init__(self, model: str, **options: Any) -> None:
        super().__init__(f"timm:{model}", Backbone(model, **options))


def resized(image: Tensor, side: int) -> Tensor:
    """An image float32 [3, h, w] in 0 … 1 as [1, 3, side, side], bicubic with antialiasing."""
    if image.shape[1:] == (side, side):
        return image[None]
    return interpolate(image[None], (side, side), mode="bicubic", antialias=True).clamp(0, 1)


def _triple(name: str, value: float | Sequence[float]) -> tuple[float, float, float]:
    values = [float(value)] * 3 if isinstance(value, int | float) else [float(v) for v in value]
    if len(values) != 3 or (name == "std" and min(values) <= 0):
        raise InputError(name, "three numbers (std above 0)", str(value))
    return values[0], values[1], values[2]

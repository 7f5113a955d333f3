"""What the pipeline asks of a frozen extractor."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from cfr_fast.data.frame import Frame
from cfr_fast.extractors.field import FeatureField


class Extractor(Protocol):
    """A frozen map from a frame to pixel features; deterministic, without training.

    `name` is its registry name, for example ``classic`` or ``timm:resnet18``; `role` says which of the two
    modalities it describes, ``rgb`` or ``xyz``.
    """

    name: str
    role: str

    def extract(self, frame: Frame, size: int) -> FeatureField:
        """Features of `frame` on a size×size grid of pixels (raster order)."""
        ...

    def extract_many(self, frames: Sequence[Frame], size: int) -> list[FeatureField]:
        """The same of several frames; a frozen network sees those of equal size in one forward pass.

        Memory grows with their number. Features are those of `extract` up to the rounding of larger products.
        """
        ...

    def config(self) -> dict[str, Any]:
        """What builds the same extractor again, weights apart; JSON-able.

        ``{"name": registry name, "role": "rgb" or "xyz", "options": {...}}``.
        """
        ...

    def state(self) -> dict[str, Tensor]:
        """The frozen weights (empty where there are none)."""
        ...

    def to(self, device: torch.device | str) -> Extractor:
        """Move the weights; returns self."""
        ...


class Network(Protocol):
    """A frozen network with its preprocessing, which photos and normal maps can share."""

    def tokens(self, images: Sequence[Tensor]) -> Tensor:
        """Features float32 [B, h0, w0, D] of images float32 [3, h, w] in 0 … 1, in one forward pass."""
        ...

    def options(self) -> dict[str, Any]:
        """Everything but the weights, JSON-able."""
        ...

    def state(self) -> dict[str, Tensor]:
        """The weights."""
        ...

    def to(self, device: torch.device | str) -> Network:
        """Move the weights; returns self."""
        ...


N = TypeVar("N", bound=Network)


class Batched(ABC):
    """For extractors that see several frames at once: one frame is a batch of one."""

    @abstractmethod
    def extract_many(self, frames: Sequence[Frame], size: int) -> list[FeatureField]:
        """Features of every frame on its size×size pixels."""

    def extract(self, frame: Frame, size: int) -> FeatureField:
        """Features of `frame` on size×size pixels."""
        return self.extract_many([frame], size)[0]


class OfNetwork(Batched, Generic[N]):
    """What extractors of a frozen network have in common, whatever pictures it sees.

    Args:
        name: in the registry.
        backbone: the network; another extractor may use it too.
    """

    role: str

    def __init__(self, name: str, backbone: N) -> None:
        self.name, self.backbone = name, backbone

    def config(self) -> dict[str, Any]:
        """Registry name, role and options, weights apart."""
        return {"name": self.name, "role": self.role, "options": self.backbone.options()}

    def state(self) -> dict[str, Tensor]:
        """The network's weights."""
        return self.backbone.state()

    def to(self, device: torch.device | str) -> OfNetwork[N]:
        """Move the weights; returns self."""
        self.backbone.to(device)
        return self


class OneByOne(ABC):
    """For extractors that gain nothing from seeing several frames at once."""

    @abstractmethod
    def extract(self, frame: Frame, size: int) -> FeatureField:
        """Features of `frame` on size×size pixels."""

    def extract_many(self, frames: Sequence[Frame], size: int) -> list[FeatureField]:
        """Features of every frame, one after the other."""
        return [self.extract(frame, size) for frame in frames]

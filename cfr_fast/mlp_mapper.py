"""The mapper of CFM, the baseline that CFR grew out of: three linear layers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear

from cfr_fast.ops import Interpolated

CHUNK = 2048  # pixels whose hidden layers exist at a time: they stay in cache, and their memory is used again


class MLPMapper(nn.Module):
    """W3 GELU(W2 GELU(W1 x + b1) + b2) + b3 (Costanzino et al. 2024); hidden widths (inputs + outputs) // 2.

    Args:
        inputs: width of x.
        outputs: width of the output.
    """

    INPUT, OUTPUT = "input", "output"  # its first and last layer

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        hidden = (inputs + outputs) // 2
        self.input = nn.Linear(inputs, hidden)
        self.projection = nn.Linear(hidden, hidden)
        self.output = nn.Linear(hidden, outputs)

    @property
    def first(self) -> Tensor:
        """Weight of the first layer, [H, inputs]: all that has to see the features themselves."""
        return self.input.weight

    def forward(self, features: Tensor) -> Tensor:
        """Map [N, inputs] to [N, outputs]."""
        return self.finish(linear(features, self.first))

    def finish(self, projected: Tensor) -> Tensor:
        """The rest of the way from W1 x [N, H] to the output [N, outputs]."""
        mapped: Tensor = self.output(gelu(self.projection(gelu(projected + self.input.bias))))
        return mapped

    @torch.no_grad()
    def map(self, features: Interpolated) -> Tensor:
        """Map P pixels to [P, outputs], the first layer taken on their tokens; no gradient."""
        projected = features.project(self.first)
        mapped = projected.tokens.new_empty(projected.pixels, self.output.out_features)
        for start in range(0, projected.pixels, CHUNK):
            pixel = torch.arange(start, min(start + CHUNK, projected.pixels), device=mapped.device)
            mapped[pixel] = self.finish(projected.select(pixel).dense())
        return mapped

"""The cyclic pair of mappers that predicts each modality's features from the other's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, gelu, linear

from cfr_fast import ops
from cfr_fast.mlp_mapper import CHUNK, MLPMapper
from cfr_fast.ops import Interpolated
from cfr_fast.progress import track


class GeGLUMapper(nn.Module):
    """h = GELU(gate) ⊙ value with [gate, value] = W12 x + b12; output W3 h + b3 (Shazeer 2020).

    Args:
        inputs: width of x.
        outputs: width of the output.
        hidden: width of h; None takes (inputs + outputs) / 2.
    """

    INPUT, OUTPUT = "w12", "w3"  # its first and last layer

    def __init__(self, inputs: int, outputs: int, hidden: int | None = None) -> None:
        super().__init__()
        hidden = (inputs + outputs) // 2 if hidden is None else hidden
        self.w12 = nn.Linear(inputs, 2 * hidden)
        self.w3 = nn.Linear(hidden, outputs)

    @property
    def first(self) -> Tensor:
        """Weight of the first layer, [2H, inputs]: all that has to see the features themselves."""
        return self.w12.weight

    def forward(self, features: Tensor) -> Tensor:
        """Map [N, inputs] to [N, outputs]."""
        return self.finish(linear(features, self.first))

    def finish(self, projected: Tensor) -> Tensor:
        """The rest of the way from W12 x [N, 2H] to the output [N, outputs]."""
        gate, value = (projected + self.w12.bias).chunk(2, dim=1)
        mapped: Tensor = self.w3(gelu(gate) * value)
        return mapped

    def map(self, features: Interpolated, count: Tensor | None = None) -> Tensor:
        """Map P pixels to [P, outputs] in one pass, the first layer taken on their tokens; no gradient.

        `count` (int64 [1]) says how many pixels are real, None that all are; zeros come for the others.
        """
        projected = features.project(self.first)
        return ops.geglu_map(projected, self.w12.bias, self.w3.weight, self.w3.bias, count)


MAPPERS: dict[str, type[GeGLUMapper] | type[MLPMapper]] = {"geglu": GeGLUMapper, "mlp": MLPMapper}


class CyclicMappers(nn.Module):
    """RGB → 3D and 3D → RGB, trained so that each predicts and each cycle returns.

    Args:
        rgb_dim: width of RGB features.
        xyz_dim: of 3D features.
        kind: of both networks, ``geglu`` or ``mlp``.
    """

    def __init__(self, rgb_dim: int, xyz_dim: int, kind: str = "geglu") -> None:
        super().__init__()
        self.rgb_to_xyz = MAPPERS[kind](rgb_dim, xyz_dim)
        self.xyz_to_rgb = MAPPERS[kind](xyz_dim, rgb_dim)

    def accumulate(self, rgb: Interpolated, xyz: Interpolated, cycle: bool = True) -> Tensor:
        """Add the loss's gradient to the parameters'; the loss is the sum of its terms 1 − mean cosine.

        Pixels go through in chunks whose gradients add up; where tokens are fewer than pixels, the first
        layers and their gradients are taken on tokens.

        Args:
            rgb: features of N valid pixels.
            xyz: of the same pixels.
            cycle: False leaves out the terms of both cycles.

        Returns:
            The terms 2D→3D, 3D→2D and, with cycles, 2D→3D→2D, 3D→2D→3D; float [4] or [2], without a graph.
        """
        first = _FirstLayer(self.rgb_to_xyz, rgb), _FirstLayer(self.xyz_to_rgb, xyz)
        total = torch.zeros(4 if cycle else 2, dtype=rgb.tokens.dtype, device=rgb.tokens.device)
        for start in range(0, rgb.pixels, CHUNK):
            pixel = torch.arange(start, min(start + CHUNK, rgb.pixels), device=rgb.offset.device)
            (observed_rgb, rgb_projected), (observed_xyz, xyz_projected) = (
                layer.chunk(pixel) for layer in first
            )
            predicted_xyz = self.rgb_to_xyz.finish(rgb_projected)
            predicted_rgb = self.xyz_to_rgb.finish(xyz_projected)
            pairs = [(predicted_xyz, observed_xyz), (predicted_rgb, observed_rgb)]
            if cycle:
                pairs.append((self.xyz_to_rgb(predicted_xyz), observed_rgb))
                pairs.append((self.rgb_to_xyz(predicted_rgb), observed_xyz))
            sums = torch.stack([(1 - cosine_similarity(a, b, dim=1, eps=1e-6)).sum() for a, b in pairs])
            losses = sums / rgb.pixels
            losses.sum().backward()  # type: ignore[no-untyped-call]
            total += losses.detach()
        for layer in first:
            layer.backward()
        return total


class _FirstLayer:
    """The first layer's W x for chunks of pixels, on tokens where those are fewer, and its gradient."""

    def __init__(self, mapper: GeGLUMapper | MLPMapper, features: Interpolated) -> None:
        self.features, self.weight = features, mapper.first
        self.on_tokens = features.tokens.shape[0] < features.pixels
        if self.on_tokens:
            self.projected = features.tokens @ self.weight.T
            self.leaf = self.projected.detach().requires_grad_()

    def chunk(self, pixel: Tensor) -> tuple[Tensor, Tensor]:
        """Features of the listed pixels, and W times them."""
        chosen = self.features.select(pixel)
        dense = chosen.dense()
        if self.on_tokens:
            return dense, chosen._replace(tokens=self.leaf).dense()
        return dense, linear(dense, self.weight)

    def backward(self) -> None:
        """Carry the gradient that chunks left on the tokens to the weight."""
        if self.on_tokens:
            self.projected.backward(self.leaf.grad)  # type: ignore[no-untyped-call]


def seeded(build: type[nn.Module], *arguments: Any, seed: int) -> nn.Module:
    """Build a module with torch's default initialisation from `seed`, leaving the global generator alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(*arguments)


def train_mappers(
    shots: Sequence[tuple[Interpolated, Interpolated]],
    *,
    epochs: int,
    learning_rate: float,
    seed: int,
    most_pixels: int | None = None,
    kind: str = "geglu",
    cycle: bool = True,
) -> CyclicMappers:
    """Train the pair with Adam, one shot a step, in an order drawn anew every epoch.

    Args:
        shots: per normal sample the features of its valid pixels, (rgb, xyz).
        epochs: passes over the shots.
        learning_rate: of Adam, otherwise at its defaults.
        seed: of the initialisation and the order.
        most_pixels: pixels of a shot in one step, drawn anew every time; None takes all.
        kind: of both networks, ``geglu`` or ``mlp``.
        cycle: False leaves the terms of both cycles out of the loss.

    Returns:
        The pair in eval mode, without gradients, on the device of the features.
    """
    pair = seeded(CyclicMappers, shots[0][0].dim, shots[0][1].dim, kind, seed=seed)
    assert isinstance(pair, CyclicMappers)
    pair.to(shots[0][0].tokens.device)
    optimizer = torch.optim.Adam(pair.parameters(), lr=learning_rate)
    generator = torch.Generator().manual_seed(seed)
    for _ in track(range(epochs), "Training mappers"):
        for shot in torch.randperm(len(shots), generator=generator).tolist():
            rgb, xyz = shots[shot]
            if most_pixels is not None and most_pixels < rgb.pixels:
                drawn = torch.randperm(rgb.pixels, generator=generator)[:most_pixels].to(rgb.offset.device)
                rgb, xyz = rgb.select(drawn), xyz.select(drawn)
            optimizer.zero_grad()
            pair.accumulate(rgb, xyz, cycle)
            optimizer.step()
    return pair.eval().requires_grad_(False)

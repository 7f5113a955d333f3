"""The cyclic pair of mappers that predicts each modality's features from the other's."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, gelu

from cfr_fast.progress import track


class GeGLUMapper(nn.Module):
    """h = GELU(gate) ⊙ value with [gate, value] = W12 x + b12; output W3 h + b3 (Shazeer 2020).

    Args:
        inputs: width of x.
        outputs: width of the output.
        hidden: width of h; None takes (inputs + outputs) / 2.
    """

    def __init__(self, inputs: int, outputs: int, hidden: int | None = None) -> None:
        super().__init__()
        hidden = (inputs + outputs) // 2 if hidden is None else hidden
        self.w12 = nn.Linear(inputs, 2 * hidden)
        self.w3 = nn.Linear(hidden, outputs)

    def forward(self, features: Tensor) -> Tensor:
        """Map [N, inputs] to [N, outputs]."""
        gate, value = self.w12(features).chunk(2, dim=1)
        mapped: Tensor = self.w3(gelu(gate) * value)
        return mapped


class CyclicMappers(nn.Module):
    """RGB → 3D and 3D → RGB, trained so that each predicts and each cycle returns."""

    def __init__(self, rgb_dim: int, xyz_dim: int) -> None:
        super().__init__()
        self.rgb_to_xyz = GeGLUMapper(rgb_dim, xyz_dim)
        self.xyz_to_rgb = GeGLUMapper(xyz_dim, rgb_dim)

    def losses(self, rgb: Tensor, xyz: Tensor) -> Tensor:
        """The four terms 1 − mean cosine: 2D→3D, 3D→2D, 2D→3D→2D, 3D→2D→3D.

        Args:
            rgb: float [N, Dr], features of valid pixels.
            xyz: float [N, Dx], of the same pixels.

        Returns:
            float [4].
        """
        predicted_xyz, predicted_rgb = self.rgb_to_xyz(rgb), self.xyz_to_rgb(xyz)
        pairs = (
            (predicted_xyz, xyz),
            (predicted_rgb, rgb),
            (self.xyz_to_rgb(predicted_xyz), rgb),
            (self.rgb_to_xyz(predicted_rgb), xyz),
        )
        return torch.stack([1 - cosine_similarity(a, b, dim=1, eps=1e-6).mean() for a, b in pairs])


def seeded(build: type[nn.Module], *arguments: int, seed: int) -> nn.Module:
    """Build a module with torch's default initialisation from `seed`, leaving the global generator alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(*arguments)


def train_mappers(
    shots: Sequence[tuple[Tensor, Tensor]], *, epochs: int, learning_rate: float, seed: int
) -> CyclicMappers:
    """Train the pair with Adam, one shot a step, in an order drawn anew every epoch.

    Args:
        shots: per normal sample the features of its valid pixels, (rgb [N, Dr], xyz [N, Dx]).
        epochs: passes over the shots.
        learning_rate: of Adam, otherwise at its defaults.
        seed: of the initialisation and the order.

    Returns:
        The pair in eval mode, without gradients, on the device of the features.
    """
    rgb_dim, xyz_dim = shots[0][0].shape[1], shots[0][1].shape[1]
    pair = seeded(CyclicMappers, rgb_dim, xyz_dim, seed=seed)
    assert isinstance(pair, CyclicMappers)
    pair.to(shots[0][0].device)
    optimizer = torch.optim.Adam(pair.parameters(), lr=learning_rate)
    generator = torch.Generator().manual_seed(seed)
    for _ in track(range(epochs), "Training mappers"):
        for shot in torch.randperm(len(shots), generator=generator).tolist():
            optimizer.zero_grad()
            pair.losses(*shots[shot]).sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return pair.eval().requires_grad_(False)

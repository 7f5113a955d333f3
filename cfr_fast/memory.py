"""Memory banks of normal features and the greedy coreset that keeps them small."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cfr_fast import ops
from cfr_fast.errors import InputError
from cfr_fast.ops import Interpolated

PROJECTED = 128  # width in which coreset distances are taken
STARTS = 10  # random rows whose mean distance starts the anchors


@dataclass(frozen=True, eq=False)
class KeyValueBank:
    """Pairs of normal features seen at the same pixel.

    Args:
        keys: 3D features, float [M, Dx].
        values: RGB features, float [M, Dr].
    """

    keys: Tensor
    values: Tensor


def greedy_coreset(features: Interpolated, ratio: float, seed: int) -> Tensor:
    """Approximate greedy k-center selection of PatchCore (Roth et al. 2022).

    Rows wider than 128 are first projected to 128 dimensions by a random bias-free linear layer with
    torch's default initialisation. The anchor distance of a row starts as its mean Euclidean distance to 10
    random rows; then the farthest row is picked again and again.

    Args:
        features: N rows.
        ratio: share of rows to keep, in (0, 1]; at least one row is kept.
        seed: of the projection and the starting rows.

    Returns:
        int64 [max(1, ⌊ratio · N⌋)], in the order of picking.

    Raises:
        InputError: no rows, or a ratio outside (0, 1].
    """
    rows, dim = features.pixels, features.dim
    if rows == 0:
        raise InputError("features", "at least one row", "none")
    if not 0 < ratio <= 1:
        raise InputError("ratio", "a share in (0, 1]", str(ratio))
    generator = torch.Generator().manual_seed(seed)
    if dim > PROJECTED:
        bound = dim**-0.5  # nn.Linear: uniform in ±1/√fan_in
        weight = torch.empty(PROJECTED, dim).uniform_(-bound, bound, generator=generator)
        features = features.project(weight.to(features.tokens))
    starts = torch.randperm(rows, generator=generator)[:STARTS].to(features.offset.device)
    return coreset_from(features.dense(), starts, max(1, int(ratio * rows)))


def coreset_from(features: Tensor, starts: Tensor, count: int) -> Tensor:
    """The coreset's picks, given projected features [N, d] and the starting rows (int64 [S])."""
    anchor = torch.zeros_like(features[:, 0])
    for start in starts:
        anchor += (features - features[start]).square().sum(dim=1).sqrt()
    return ops.farthest_point_sample(features, count, anchor / starts.numel())


def build_banks(
    rgb: Sequence[Interpolated], xyz: Sequence[Interpolated], ratio: float, seed: int
) -> tuple[KeyValueBank, Tensor]:
    """The key-value bank, selected on its 3D keys, and the RGB bank, selected on itself.

    Args:
        rgb: per shot the features of its pixels.
        xyz: of the same pixels.
        ratio: share of rows that each bank keeps.
        seed: of both selections.

    Returns:
        The pair bank, and the RGB bank, float [M, Dr].
    """
    colors, shapes = Interpolated.joined(rgb), Interpolated.joined(xyz)
    pairs = greedy_coreset(shapes, ratio, seed)
    alone = greedy_coreset(colors, ratio, seed + 1)
    bank = KeyValueBank(shapes.select(pairs).dense(), colors.select(pairs).dense())
    return bank, colors.select(alone).dense()


def draw_rows(bank: KeyValueBank, most: int, seed: int) -> KeyValueBank:
    """At most `most` rows of the bank, drawn without replacement, in ascending order."""
    rows = bank.keys.shape[0]
    if rows <= most:
        return bank
    drawn = torch.randperm(rows, generator=torch.Generator().manual_seed(seed))[:most].sort().values
    drawn = drawn.to(bank.keys.device)
    return KeyValueBank(bank.keys[drawn], bank.values[drawn])

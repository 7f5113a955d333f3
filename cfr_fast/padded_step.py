"""The step from features to maps in shapes that do not depend on the data, so that it can be recorded.

Rows, tokens and entries stand in buffers of a fixed size. How many rows are real, and how many of them are
unreliable, are numbers beside them that only the device reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from cfr_fast import ops
from cfr_fast.learned import Learned
from cfr_fast.mappers import GeGLUMapper
from cfr_fast.ops import Interpolated

HEADROOM = 1.25  # beyond what the first batch needs, so that few others ask for larger buffers
STEP = 256  # sizes are whole multiples of it


class Sizes(NamedTuple):
    """How much a batch needs, or how much buffers hold; `rows` counts the pixels of all images."""

    height: int
    width: int
    images: int
    rows: int
    rgb_tokens: int
    rgb_entries: int
    xyz_tokens: int
    xyz_entries: int

    @staticmethod
    def of(rgb: Sequence[Interpolated], xyz: Sequence[Interpolated], valid: Sequence[Tensor]) -> Sizes:
        """Of a batch: features of the valid pixels per image, and masks [h, w]. Reads shapes alone."""
        counts = [
            sum(int(tensor.shape[0]) for tensor in tensors)
            for side in (rgb, xyz)
            for tensors in ([part.tokens for part in side], [part.source for part in side])
        ]
        height, width = valid[0].shape
        return Sizes(height, width, len(valid), sum(part.pixels for part in rgb), *counts)

    def hold(self, needed: Sizes) -> bool:
        """Whether a batch finds room."""
        return self[:2] == needed[:2] and all(has >= wants for has, wants in zip(self, needed, strict=True))

    def grown(self, before: Sizes | None = None) -> Sizes:
        """Sizes with headroom, none smaller than those before."""
        roomy = [-(-int(HEADROOM * max(1, size)) // STEP) * STEP for size in self[3:]]
        roomy[0] = min(roomy[0], self.images * self.height * self.width)
        sizes = Sizes(*self[:3], *roomy)
        if before is None:
            return sizes
        return Sizes(*self[:2], *(max(pair) for pair in zip(sizes[2:], before[2:], strict=True)))


class Results(NamedTuple):
    """What the step finds.

    Args:
        maps: s of every image, float [B, h, w].
        replaced: int64 [N], the replaced rows, ascending; zeros behind the first `number`.
        number: int64 [1].
    """

    maps: Tensor
    replaced: Tensor
    number: Tensor


class PaddedBatch:
    """Buffers for the features of several images, one image's rows after the other's.

    Args:
        sizes: of the buffers.
        widths: of RGB and 3D features.
        device: where they lie.
    """

    def __init__(self, sizes: Sizes, widths: tuple[int, int], device: torch.device) -> None:
        def numbers(count: int) -> Tensor:
            return torch.zeros(count, dtype=torch.int64, device=device)

        def side(tokens: int, entries: int, width: int) -> Interpolated:
            features = torch.zeros(tokens, width, device=device)
            weight = torch.zeros(entries, device=device)
            return Interpolated(features, numbers(sizes.rows + 1), numbers(entries), weight)

        self.sizes = sizes
        self.rgb = side(sizes.rgb_tokens, sizes.rgb_entries, widths[0])
        self.xyz = side(sizes.xyz_tokens, sizes.xyz_entries, widths[1])
        shape = sizes.images, sizes.height, sizes.width
        self.valid = torch.zeros(shape, dtype=torch.bool, device=device)
        self.count = numbers(1)

    def fill(self, rgb: Sequence[Interpolated], xyz: Sequence[Interpolated], valid: Sequence[Tensor]) -> None:
        """Copy a batch that finds room in, every entry of which belongs to a row; waits for nothing."""
        for buffer, parts in ((self.rgb, rgb), (self.xyz, xyz)):
            _fill(buffer, parts)
        torch.stack(list(valid), out=self.valid[: len(valid)])
        self.valid[len(valid) :].zero_()
        self.count.fill_(sum(part.pixels for part in rgb))


def _fill(buffer: Interpolated, parts: Sequence[Interpolated]) -> None:
    tokens = entries = rows = 0
    for part in parts:
        next_token, next_entry = tokens + part.tokens.shape[0], entries + part.source.shape[0]
        next_row = rows + part.pixels
        buffer.tokens[tokens:next_token].copy_(part.tokens)
        torch.add(part.source, tokens, out=buffer.source[entries:next_entry])
        buffer.weight[entries:next_entry].copy_(part.weight)
        torch.add(part.offset[1:], entries, out=buffer.offset[rows + 1 : next_row + 1])
        tokens, entries, rows = next_token, next_entry, next_row
    buffer.offset[rows + 1 :].fill_(entries)  # rows behind the last have no entries


def padded_discrepancy(learned: Learned, batch: PaddedBatch, candidates: int) -> Results:
    """As `Learned.discrepancy` with attention over `candidates` rows; no op waits for the device."""
    to_rgb, to_xyz = learned.mappers.xyz_to_rgb, learned.mappers.rgb_to_xyz
    assert isinstance(to_rgb, GeGLUMapper)
    assert isinstance(to_xyz, GeGLUMapper)
    assert learned.rgb_bank is not None
    predicted_rgb = to_rgb.map(batch.xyz, batch.count)
    real = torch.arange(batch.sizes.rows, device=batch.count.device) < batch.count
    replaced, number = ops.confidence_filter_padded(predicted_rgb, learned.rgb_bank, learned.theta, real)
    replacement = learned.attended(batch.xyz, replaced, candidates, number)
    predicted_xyz = to_xyz.map(batch.rgb, batch.count)
    maps = ops.replace_and_score(
        predicted_rgb, batch.rgb, predicted_xyz, batch.xyz, replacement, replaced, batch.valid, number
    )
    return Results(maps, replaced, number)

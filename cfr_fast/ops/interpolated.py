"""Features of pixels as sparse linear combinations of tokens: what several ops take and one makes dense."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from cfr_fast.errors import InputError
from cfr_fast.ops import loader, reference, registry
from cfr_fast.ops.checks import check_index, check_matrix, check_real_rows, check_same, describe


class Interpolated(NamedTuple):
    """Row p is Σ_j weight[j] · tokens[source[j]] for j from offset[p] to offset[p + 1] − 1.

    A sparse matrix in compressed-row form times `tokens`; weights need not sum to one, and a row without
    entries is zero. Entries from offset[P] on belong to no row: they fill a buffer.

    Args:
        tokens: float [T, D].
        offset: int64 [P + 1], ascending from 0 to at most nnz.
        source: int64 [nnz], the token of every entry, 0 ≤ source < T.
        weight: float [nnz], dtype of the tokens.
    """

    tokens: Tensor
    offset: Tensor
    source: Tensor
    weight: Tensor

    @property
    def pixels(self) -> int:
        """P."""
        return int(self.offset.shape[0]) - 1

    @staticmethod
    def of(features: Tensor) -> Interpolated:
        """Rows [P, D] that are their own tokens."""
        rows, device = features.shape[0], features.device
        return Interpolated(
            features,
            torch.arange(rows + 1, device=device),
            torch.arange(rows, device=device),
            torch.ones(rows, dtype=features.dtype, device=device),
        )

    @staticmethod
    def joined(parts: Sequence[Interpolated]) -> Interpolated:
        """All rows of at least one part one after the other, over all tokens.

        Every entry of a part must belong to one of its rows.
        """
        if len(parts) == 1:
            return parts[0]
        tokens = entries = 0
        offsets, sources = [parts[0].offset[:1]], []
        for part in parts:
            offsets.append(part.offset[1:] + entries)
            sources.append(part.source + tokens)
            tokens, entries = tokens + part.tokens.shape[0], entries + part.source.shape[0]
        return Interpolated(
            torch.cat([part.tokens for part in parts]),
            torch.cat(offsets),
            torch.cat(sources),
            torch.cat([part.weight for part in parts]),
        )

    @property
    def dim(self) -> int:
        """D."""
        return int(self.tokens.shape[1])

    def dense(self, rows: Tensor | None = None, count: Tensor | None = None) -> Tensor:
        """All rows, [P, D], or the listed ones; see `interpolate_tokens`."""
        return interpolate_tokens(self, rows, count)

    def project(self, weight: Tensor) -> Interpolated:
        """The same rows through a linear map: `weight` [C, D] is applied to the tokens."""
        return self._replace(tokens=self.tokens @ weight.T)

    def select(self, pixel: Tensor) -> Interpolated:
        """Only the rows listed in `pixel` (int64 [n]), over the same tokens."""
        start, count = self.offset[pixel], (self.offset[1:] - self.offset[:-1])[pixel]
        offset = torch.zeros(pixel.numel() + 1, dtype=torch.int64, device=pixel.device)
        torch.cumsum(count, 0, out=offset[1:])
        entry = torch.arange(int(offset[-1]), device=pixel.device)
        entry += torch.repeat_interleave(start - offset[:-1], count)
        return self._replace(offset=offset, source=self.source[entry], weight=self.weight[entry])

    def compact(self) -> Interpolated:
        """Equal rows over fewer tokens: without those that none uses; dense when that takes no more."""
        used = torch.zeros(self.tokens.shape[0], dtype=torch.bool, device=self.tokens.device)
        used[self.source] = True
        kept = used.nonzero()[:, 0]
        if kept.numel() >= self.pixels:
            return Interpolated.of(self.dense())
        number = used.cumsum(0) - 1
        return self._replace(tokens=self.tokens[kept], source=number[self.source])

    def check(self, name: str) -> None:
        """Raise InputError unless shapes, dtypes and devices fit; values are checked where they are used."""
        check_matrix(f"{name}.tokens", self.tokens)
        for part, tensor in (("offset", self.offset), ("source", self.source)):
            if tensor.dtype != torch.int64 or tensor.dim() != 1:
                raise InputError(f"{name}.{part}", "an int64 vector", describe(tensor))
            check_same(f"{name}.{part}", tensor, self.tokens, dtype=False)
        if self.offset.shape[0] == 0:
            raise InputError(f"{name}.offset", "one element more than pixels", describe(self.offset))
        if self.weight.shape != self.source.shape:
            raise InputError(f"{name}.weight", f"shape {list(self.source.shape)}", describe(self.weight))
        check_same(f"{name}.weight", self.weight, self.tokens)


def interpolate_tokens(
    features: Interpolated, rows: Tensor | None = None, count: Tensor | None = None
) -> Tensor:
    """The features of pixels as a dense matrix; differentiable in the tokens (not in the weights).

    Native kernels serve float32; other dtypes go through plain PyTorch.

    Args:
        features: P rows over tokens [T, D].
        rows: int64 [R], the pixels that are asked for, 0 ≤ rows < P; None: all.
        count: int64 [1], how many of them are real, 0 ≤ count ≤ R; None: all. What stands in `rows` behind
            them is ignored.

    Returns:
        float [P, D], or [R, D] where rows are listed; zeros from row `count` on.

    Raises:
        InputError: wrong shape, dtype or device.
        RuntimeError: a source, a listed row or the count out of range, or offsets that do not ascend from 0
            to at most nnz (looked at on the CPU alone: on a device that would wait for it).
    """
    features.check("features")
    check_list(features, rows, count)
    if features.tokens.dtype != torch.float32:
        return reference.interpolate_tokens(*features, rows, count)
    loader.ready()
    dense: Tensor = torch.ops.cfr_fast.interpolate_tokens(*features, rows, count)
    return dense


def check_list(features: Interpolated, rows: Tensor | None, count: Tensor | None) -> None:
    """Raise InputError unless the list of rows and the number of real ones fit in shape, dtype and device."""
    if rows is not None:
        check_index("rows", rows, (None,), features.tokens)
    check_real_rows(count, features.tokens)


def transposed(features: Interpolated, pixels: Tensor) -> Interpolated:
    """The transposed matrix, applied to `pixels` [P, C]: what every token receives, [T, C] when dense."""
    tokens, entries = features.tokens.shape[0], features.source.shape[0]
    ends = torch.cat([features.offset[1:], features.offset.new_full((1,), entries)])
    pixel = torch.repeat_interleave(ends - features.offset, output_size=entries)
    # Entries of no pixel go to the end, where they belong to no token.
    source = torch.where(pixel < features.pixels, features.source, tokens)
    order = source.argsort(stable=True)
    offset = torch.zeros(tokens + 1, dtype=torch.int64, device=order.device)
    offset[1:] = torch.bincount(source, minlength=tokens + 1)[:tokens].cumsum(0)
    pixel = pixel[order].clamp(max=max(features.pixels - 1, 0))
    return Interpolated(pixels, offset, pixel, features.weight[order].to(pixels.dtype))


def _fake(
    tokens: Tensor,
    offset: Tensor,
    source: Tensor,
    weight: Tensor,
    rows: Tensor | None = None,
    count: Tensor | None = None,
) -> Tensor:
    return tokens.new_empty(offset.shape[0] - 1 if rows is None else rows.shape[0], tokens.shape[1])


def _setup_context(ctx: Any, inputs: tuple[Tensor | None, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    *parts, rows, count = ctx.saved_tensors
    features = Interpolated(*parts)
    if features.pixels == 0:
        return torch.zeros_like(features.tokens), None, None, None, None, None
    # On CUDA, counting and gathering would wait for the device; there the op is not on a training path yet.
    back = transposed(features, _of_all_pixels(grad, features.pixels, rows, count))
    return torch.ops.cfr_fast.interpolate_tokens(*back), None, None, None, None, None


def _of_all_pixels(grad: Tensor, pixels: int, rows: Tensor | None, count: Tensor | None) -> Tensor:
    """The gradient of listed pixels as that of all of them."""
    if count is not None:
        real = torch.arange(grad.shape[0], device=grad.device) < count
        grad = torch.where(real[:, None], grad, 0)
        rows = None if rows is None else torch.where(real, rows, 0)
    if rows is not None:
        grad = grad.new_zeros(pixels, grad.shape[1]).index_add(0, rows, grad)
    return grad.contiguous()


registry.OPS.append(
    registry.NativeOp("interpolate_tokens", reference.interpolate_tokens, _fake, _setup_context, _backward)
)

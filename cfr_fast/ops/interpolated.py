"""Features of pixels as sparse linear combinations of tokens: what several ops take and one makes dense."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from cfr_fast.errors import InputError
from cfr_fast.ops import loader, reference, registry
from cfr_fast.ops.checks import check_matrix, check_same, describe


class Interpolated(NamedTuple):
    """Row p is Σ_j weight[j] · tokens[source[j]] for j from offset[p] to offset[p + 1] − 1.

    A sparse matrix in compressed-row form times `tokens`; weights need not sum to one, and a row without
    entries is zero.

    Args:
        tokens: float [T, D].
        offset: int64 [P + 1], ascending from 0 to nnz.
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

    @property
    def dim(self) -> int:
        """D."""
        return int(self.tokens.shape[1])

    def dense(self) -> Tensor:
        """All rows, [P, D]."""
        return interpolate_tokens(self)

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


def interpolate_tokens(features: Interpolated) -> Tensor:
    """The features of all pixels as a dense matrix; differentiable in the tokens (not in the weights).

    Native kernels serve float32; other dtypes go through plain PyTorch.

    Args:
        features: P rows over tokens [T, D].

    Returns:
        float [P, D].

    Raises:
        InputError: wrong shape, dtype or device.
        RuntimeError: a source out of range, or offsets that do not ascend from 0 to nnz (looked at on the
            CPU alone: on a device that would wait for it).
    """
    features.check("features")
    if features.tokens.dtype != torch.float32:
        return reference.interpolate_tokens(*features)
    loader.ready()
    dense: Tensor = torch.ops.cfr_fast.interpolate_tokens(*features)
    return dense


def transposed(features: Interpolated, pixels: Tensor) -> Interpolated:
    """The transposed matrix, applied to `pixels` [P, C]: what every token receives, [T, C] when dense."""
    order = features.source.argsort(stable=True)
    per_pixel = features.offset[1:] - features.offset[:-1]
    pixel = torch.repeat_interleave(per_pixel, output_size=order.shape[0])
    count = torch.zeros(features.tokens.shape[0] + 1, dtype=torch.int64, device=order.device)
    count[1:] = torch.bincount(features.source, minlength=features.tokens.shape[0])
    return Interpolated(pixels, count.cumsum(0), pixel[order], features.weight[order].to(pixels.dtype))


def _fake(tokens: Tensor, offset: Tensor, source: Tensor, weight: Tensor) -> Tensor:
    return tokens.new_empty(offset.shape[0] - 1, tokens.shape[1])


def _setup_context(ctx: object, inputs: tuple[Tensor, Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)  # type: ignore[attr-defined]


def _backward(ctx: object, grad: Tensor) -> tuple[Tensor | None, None, None, None]:
    features = Interpolated(*ctx.saved_tensors)  # type: ignore[attr-defined]
    # On CUDA, counting and gathering would wait for the device; there the op is not on a training path yet.
    back = transposed(features, grad.contiguous())
    return torch.ops.cfr_fast.interpolate_tokens(*back), None, None, None


registry.OPS.append(
    registry.NativeOp("interpolate_tokens", reference.interpolate_tokens, _fake, _setup_context, _backward)
)

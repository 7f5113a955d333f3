"""The last step of CFR: replacement, discrepancies of both modalities and their smoothed product."""

from __future__ import annotations

import torch
from torch import Tensor

from cfr_fast.errors import InputError
from cfr_fast.ops import loader, reference, registry
from cfr_fast.ops.checks import check_index, check_matrix, check_real_rows, check_same, describe
from cfr_fast.ops.interpolated import Interpolated


def replace_and_score(
    rgb_predicted: Tensor,
    rgb_observed: Tensor | Interpolated,
    xyz_predicted: Tensor,
    xyz_observed: Tensor | Interpolated,
    replacement: Tensor,
    replaced: Tensor,
    valid: Tensor,
    count: Tensor | None = None,
) -> Tensor:
    """Replace unreliable predictions and turn both modalities' discrepancies into a map.

    ‖n(R̂) − n(R)‖₂ · ‖n(X̂) − n(X)‖₂ with n the L2 normalisation, zero where invalid, then one 5×5 box
    filter (zero padding, divided by 25). Features come for valid pixels only, one row each in raster order,
    image after image where there are several; every image is filtered by itself.
    Observed features may come as tokens; they are interpolated as they are needed. A native kernel serves
    float32 in one pass over the predictions, without a gradient; other dtypes go through plain PyTorch.

    Args:
        rgb_predicted: R̂, float [V, Dr].
        rgb_observed: R, float [V, Dr], or V pixels over RGB tokens.
        xyz_predicted: X̂, float [V, Dx].
        xyz_observed: X, float [V, Dx], or V pixels over 3D tokens.
        replacement: float [U, Dr], put in place of the rows `replaced` of R̂.
        replaced: int64 [U], distinct rows of R̂, 0 ≤ replaced < V.
        valid: bool [h, w] or [B, h, w] with V True pixels.
        count: int64 [1], how many replacements are real, 0 ≤ count ≤ U; None: all. With it, `valid` may have
            fewer True pixels than there are rows, and what stands behind the last in all rows is ignored.

    Returns:
        float of the shape of `valid`.

    Raises:
        InputError: wrong shape, dtype or device.
        RuntimeError: the count or a number in `replaced` out of range.

    Values are looked at on the CPU alone, as reading them waits for a device. The CUDA kernel passes over
    numbers in `replaced` that are no rows, and pixels beyond the V-th are NaN there.
    """
    check_matrix("rgb_predicted", rgb_predicted)
    rows, rgb_dim = rgb_predicted.shape
    check_matrix("xyz_predicted", xyz_predicted, rows=rows)
    check_matrix("replacement", replacement, columns=rgb_dim)
    check_index("replaced", replaced, (replacement.shape[0],), rgb_predicted)
    rgb = _observed("rgb_observed", rgb_observed, rgb_predicted)
    xyz = _observed("xyz_observed", xyz_observed, xyz_predicted)
    check_same("xyz_predicted", xyz_predicted, rgb_predicted)
    check_same("replacement", replacement, rgb_predicted)
    check_real_rows(count, rgb_predicted)
    fits = valid.dtype == torch.bool and valid.dim() in (2, 3)
    if valid.device.type == "cpu" and not torch.compiler.is_compiling():  # there the op alone counts
        marked = int(valid.sum())
        fits = fits and (marked == rows or (count is not None and marked < rows))
    if not fits:
        most = "" if count is None else "at most "
        raise InputError("valid", f"bool [h, w] or [B, h, w] with {most}{rows} True pixels", describe(valid))
    check_same("valid", valid, rgb_predicted, dtype=False)
    if rgb_predicted.dtype != torch.float32:
        return _reference(rgb_predicted, *rgb, xyz_predicted, *xyz, replacement, replaced, valid, count)
    loader.ready()
    tensors = (rgb_predicted, *rgb, xyz_predicted, *xyz, replacement, replaced, valid)
    score: Tensor = torch.ops.cfr_fast.replace_and_score(*(tensor.detach() for tensor in tensors), count)
    return score


def _observed(name: str, observed: Tensor | Interpolated, predicted: Tensor) -> Interpolated:
    rows, columns = predicted.shape
    if isinstance(observed, Interpolated):
        observed.check(name)
        if observed.pixels != rows or observed.tokens.shape[1] != columns:
            got = f"{observed.pixels} pixels over tokens {list(observed.tokens.shape)}"
            raise InputError(name, f"{rows} pixels over tokens [T, {columns}]", got)
    else:
        check_matrix(name, observed, rows=rows, columns=columns)
        observed = Interpolated.of(observed)
    check_same(name, observed.tokens, predicted)
    return observed


def _reference(
    rgb_predicted: Tensor,
    rgb_tokens: Tensor,
    rgb_offset: Tensor,
    rgb_source: Tensor,
    rgb_weight: Tensor,
    xyz_predicted: Tensor,
    xyz_tokens: Tensor,
    xyz_offset: Tensor,
    xyz_source: Tensor,
    xyz_weight: Tensor,
    replacement: Tensor,
    replaced: Tensor,
    valid: Tensor,
    count: Tensor | None = None,
) -> Tensor:
    rgb = reference.interpolate_tokens(rgb_tokens, rgb_offset, rgb_source, rgb_weight)
    xyz = reference.interpolate_tokens(xyz_tokens, xyz_offset, xyz_source, xyz_weight)
    features = (rgb_predicted, rgb, xyz_predicted, xyz)
    return reference.replace_and_score(*features, replacement, replaced, valid, count)


def _fake(rgb_predicted: Tensor, *others: Tensor, count: Tensor | None = None) -> Tensor:
    return rgb_predicted.new_empty(others[11].shape)


registry.OPS.append(registry.NativeOp("replace_and_score", _reference, _fake))

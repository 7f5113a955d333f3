from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, interpolate

from cfr_fast.errors import InputError
from cfr_fast.extractors import FeatureField
from cfr_fast.extractors.groups import group_field


def grid_field(h0: int = 5, w0: int = 7, size: tuple[int, int] = (12, 16), dim: int = 3) -> FeatureField:
    tokens = torch.randn(h0, w0, dim, generator=torch.Generator().manual_seed(0))
    return FeatureField.from_grid(tokens, torch.ones(size[0] * size[1], dtype=torch.bool), size)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 24), st.integers(1, 24))
def test_grid_field_is_torchs_bilinear_interpolation(h0: int, w0: int, h: int, w: int) -> None:
    field = grid_field(h0, w0, (h, w))
    image = field.tokens.view(1, h0, w0, 3).permute(0, 3, 1, 2)
    expected = interpolate(image, (h, w), mode="bilinear", align_corners=False)
    torch.testing.assert_close(
        field.dense(), expected[0].permute(1, 2, 0).reshape(h * w, 3), atol=1e-5, rtol=0
    )


def test_selected_rows_are_slices_of_dense() -> None:
    field = grid_field()
    pixel = torch.tensor([191, 0, 17, 17])
    chosen = field.interpolated.select(pixel)
    assert torch.equal(chosen.dense(), field.dense()[pixel])
    assert torch.equal(chosen.select(torch.tensor([2])).dense(), field.dense()[17:18])
    assert field.interpolated.select(torch.empty(0, dtype=torch.int64)).dense().shape == (0, 3)


@pytest.mark.parametrize("count", [0, 2, 40, 192])
def test_compact_drops_unused_tokens_and_nothing_else(count: int) -> None:
    chosen = grid_field().interpolated.select(torch.arange(count))
    small = chosen.compact()
    assert small.tokens.shape[0] <= min(35, count)
    torch.testing.assert_close(small.dense(), chosen.dense(), rtol=0, atol=1e-7)


def test_projecting_tokens_projects_pixels() -> None:
    field = grid_field().interpolated
    weight = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(field.project(weight).dense(), field.dense() @ weight.T)


@pytest.mark.parametrize("shape", [(3, 3), (3, 8), (16, 11), (224, 224)])
def test_group_field_is_the_chain_of_dense_steps(shape: tuple[int, int]) -> None:
    draw = torch.Generator().manual_seed(2)
    measured = torch.rand(shape, generator=draw) < 0.3
    count = int(measured.sum())
    index = torch.randint(0, 9, (count, 3), generator=draw)
    weight, tokens = torch.rand(count, 3, generator=draw), torch.randn(9, 5, generator=draw)
    dense = torch.zeros(*shape, 5)
    dense[measured] = (tokens[index] * weight[..., None]).sum(dim=1)
    pooled = adaptive_avg_pool2d(avg_pool2d(dense.permute(2, 0, 1)[None], 3, stride=1), shape)
    field = group_field(tokens, index, weight, measured)
    expected = pooled[0].flatten(1).T
    torch.testing.assert_close(field.dense(), expected, rtol=0, atol=1e-5)
    assert torch.equal(field.valid, expected.abs().sum(dim=1) > 0)


def test_dense_field_is_its_own_tokens() -> None:
    features = torch.randn(6, 4)
    valid = torch.tensor([True, False, True, True, False, True])
    field = FeatureField.from_dense(features, valid, (2, 3))
    assert torch.equal(field.dense(), features)
    assert field.dim == 4
    assert field.pixels == 6
    assert torch.equal(field.to("cpu").valid, valid)


def test_unsupported_tokens_take_no_part() -> None:
    tokens = torch.ones(4, 4, 2)
    support = torch.zeros(4, 4, dtype=torch.bool)
    support[:2] = True
    tokens[~support] = torch.nan
    tokens = tokens.nan_to_num(1e6)
    field = FeatureField.from_grid(tokens, torch.ones(64, dtype=torch.bool), (8, 8), support)
    dense = field.dense().view(8, 8, 2)
    valid = field.valid.view(8, 8)
    assert valid[:5].all()
    assert not valid[5:].any()
    torch.testing.assert_close(dense[:5], torch.ones(5, 8, 2))
    assert not dense[5:].any()


@pytest.mark.parametrize("broken", ["offset", "valid", "weight"])
def test_fields_of_the_wrong_length_are_refused(broken: str) -> None:
    field = grid_field()
    parts = {name: getattr(field, name) for name in ("tokens", "offset", "index", "weight", "valid", "shape")}
    parts[broken] = parts[broken][:-1]
    with pytest.raises(InputError, match=f"{broken} of FeatureField"):
        FeatureField(**parts)

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import TOLERANCE
from torch import Tensor

from cfr_fast.ops import Interpolated, loader, reference, replace_and_score

CLOSE = TOLERANCE["replace_and_score"]


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def scene(
    height: int, width: int, dims: tuple[int, int], share: float = 0.6, error: float = 0.3
) -> list[Tensor]:
    """Arguments of the op: predictions near the observations, every third row replaced, in shuffled order."""
    valid = torch.rand(height, width, generator=torch.Generator().manual_seed(1)) < share
    rows = int(valid.sum())
    rgb, xyz = randn(rows, dims[0], seed=2), randn(rows, dims[1], seed=3)
    replaced = torch.randperm(rows, generator=torch.Generator().manual_seed(4))[: rows // 3]
    replacement = rgb[replaced] + error * randn(len(replaced), dims[0], seed=5)
    return [
        rgb + error * randn(*rgb.shape, seed=6),
        rgb,
        xyz + error * randn(*xyz.shape, seed=7),
        xyz,
        replacement,
        replaced,
        valid,
    ]


def exact(arguments: list[Tensor]) -> Tensor:
    double = [item.double() if item.is_floating_point() else item for item in arguments]
    return reference.replace_and_score(*double)


def assert_right(arguments: list[Tensor]) -> None:
    got = replace_and_score(*arguments)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), exact(arguments), **CLOSE)


@pytest.mark.parametrize(
    ("height", "width", "dims"),
    [
        (0, 0, (5, 7)),
        (0, 4, (5, 7)),
        (1, 1, (1, 1)),
        (1, 9, (33, 8)),
        (3, 2, (0, 3)),
        (4, 4, (15, 16)),
        (5, 5, (17, 31)),
        (7, 63, (768, 1152)),
        (65, 3, (9, 40)),
        (13, 64, (385, 33)),
    ],
)
@pytest.mark.parametrize("share", [0.0, 0.6, 1.0])
def test_sizes(kernels: str, height: int, width: int, dims: tuple[int, int], share: float) -> None:
    assert_right(scene(height, width, dims, share))


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(0, 20),
    width=st.integers(0, 20),
    dims=st.tuples(st.integers(1, 100), st.integers(1, 100)),
    share=st.floats(0, 1),
    error=st.sampled_from([0.0, 1e-6, 1e-3, 1.0]),
)
def test_any_size(height: int, width: int, dims: tuple[int, int], share: float, error: float) -> None:
    assert_right(scene(height, width, dims, share, error))


@pytest.mark.parametrize("error", [1e-5, 1e-4, 1e-3])
def test_small_discrepancies_keep_their_digits(kernels: str, error: float) -> None:
    """The colours' small discrepancy shows against opposite shapes, whose discrepancy is 2."""
    arguments = scene(9, 9, (768, 64), error=error)
    arguments[2] = -arguments[3]
    torch.testing.assert_close(
        replace_and_score(*arguments).double(), exact(arguments), rtol=5e-7 / error, atol=0
    )


def test_equal_features_score_next_to_zero(kernels: str) -> None:
    arguments = scene(6, 7, (40, 50), error=0.0)
    torch.testing.assert_close(replace_and_score(*arguments), torch.zeros(6, 7), rtol=0, atol=1e-14)


@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1e25])
def test_any_scale(kernels: str, scale: float) -> None:
    arguments = scene(5, 6, (40, 50))
    for item in arguments[:5]:
        item *= scale
    assert_right(arguments)


def test_zero_rows_and_nan(kernels: str) -> None:
    arguments = scene(9, 30, (40, 50))
    arguments[0][3], arguments[3][5] = 0, 0
    assert_right(arguments)
    arguments[3][50, 1] = torch.nan
    got, expected = replace_and_score(*arguments), reference.replace_and_score(*arguments)
    assert 0 < int(expected.isnan().sum()) <= 25
    assert torch.equal(got.isnan(), expected.isnan())


def test_strides_and_nothing_outside_the_views(kernels: str) -> None:
    arguments = scene(8, 9, (33, 50))
    expected = replace_and_score(*arguments)

    def inside_nan(matrix: Tensor) -> Tensor:
        padded = torch.full((matrix.shape[0] + 16, matrix.shape[1] + 16), torch.nan)
        view = padded[8:-8, 8:-8]
        view.copy_(matrix)
        return view

    assert torch.equal(replace_and_score(*map(inside_nan, arguments[:5]), *arguments[5:]), expected)
    transposed = [item.T.contiguous().T for item in arguments[:5]]
    replaced = arguments[5].repeat_interleave(2)[::2]
    assert torch.equal(replace_and_score(*transposed, replaced, arguments[6].T.contiguous().T), expected)


def test_same_bits_whatever_the_run_and_the_threads(kernels: str) -> None:
    arguments = scene(70, 40, (100, 50))
    before = [item.clone() for item in arguments]
    first = replace_and_score(*arguments)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            assert torch.equal(replace_and_score(*arguments), first)
    finally:
        torch.set_num_threads(threads)
    assert all(map(torch.equal, arguments, before))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_go_through_the_reference(dtype: torch.dtype) -> None:
    arguments = [item.to(dtype) if item.is_floating_point() else item for item in scene(5, 6, (40, 50))]
    assert torch.equal(replace_and_score(*arguments), reference.replace_and_score(*arguments))


def flat(arguments: list[Tensor]) -> list[Tensor]:
    """As the op itself takes them."""
    rgb, rgb_observed, xyz, xyz_observed, *others = arguments
    return [rgb, *Interpolated.of(rgb_observed), xyz, *Interpolated.of(xyz_observed), *others]


def test_observed_features_may_be_tokens(kernels: str) -> None:
    arguments = scene(8, 9, (33, 50), error=0.1)
    rows = len(arguments[0])
    expected = replace_and_score(*arguments)
    draw = torch.Generator().manual_seed(8)
    for position in (1, 3):
        source = torch.randint(0, 12, (3 * rows,), generator=draw)
        entries = torch.arange(0, 3 * rows + 1, 3), source, torch.rand(3 * rows, generator=draw)
        observed = Interpolated(randn(12, arguments[position].shape[1], seed=9), *entries)
        dense = list(arguments)
        dense[position], arguments[position] = observed.dense(), observed
        torch.testing.assert_close(replace_and_score(*arguments), replace_and_score(*dense), **CLOSE)
        arguments[position] = dense[position]
    assert not torch.allclose(replace_and_score(*arguments), expected)


def test_opcheck() -> None:
    loader.ready()
    torch.library.opcheck(torch.ops.cfr_fast.replace_and_score.default, tuple(flat(scene(5, 6, (40, 50)))))


def test_compiles_to_one_graph() -> None:
    arguments = scene(5, 6, (40, 50))
    compiled = torch.compile(
        lambda *items: replace_and_score(*items) * 2, fullgraph=True, backend="aot_eager"
    )
    assert torch.equal(compiled(*arguments), replace_and_score(*arguments) * 2)


@pytest.mark.parametrize(
    ("position", "bad", "message"),
    [
        (1, torch.zeros(2, 3), "rgb_tokens: expected as many columns as its counterpart"),
        (2, torch.arange(30), "rgb_offset: expected one pixel a predicted row, got 29"),
        (3, torch.full((30,), 30), "source: expected rows of tokens, got 30"),
        (4, torch.zeros(30, dtype=torch.float64), r"weight: expected float32 \[30\]"),
        (11, torch.full((10,), 30), "replaced: expected rows of rgb_predicted, got 30"),
        (11, torch.full((10,), -1), "replaced: expected rows of rgb_predicted, got -1"),
        (11, torch.zeros(9, dtype=torch.int64), r"replaced: expected int64 \[10\]"),
        (12, torch.zeros(5, 6, dtype=torch.bool), "valid: expected as many True pixels as rows, got 0"),
    ],
)
def test_the_op_itself_checks_its_arguments(position: int, bad: Tensor, message: str) -> None:
    if loader.load() is None:
        pytest.skip("no native library here")
    arguments = flat(scene(5, 6, (40, 50), share=1.0))
    arguments[position] = bad
    with pytest.raises(RuntimeError, match=f"replace_and_score: {message}"):
        torch.ops.cfr_fast.replace_and_score(*arguments)

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from tolerances import TOLERANCE
from torch import Tensor

from cfr_fast.errors import InputError
from cfr_fast.ops import loader, reference, topk_cosine

CLOSE = TOLERANCE["topk_cosine"]


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def assert_right(query: Tensor, keys: Tensor, k: int) -> None:
    """Against float64: similarities close, and every index a row of that similarity, none twice."""
    similarity, index = topk_cosine(query, keys, k)
    expected, _ = reference.topk_cosine(query.double(), keys.double(), k)
    unit = torch.nn.functional.normalize
    gathered = (unit(query.double(), dim=1)[:, None] * unit(keys.double(), dim=1)[index]).sum(dim=2)
    assert similarity.dtype == torch.float32
    assert index.dtype == torch.int64
    torch.testing.assert_close(similarity.double(), expected, **CLOSE)
    torch.testing.assert_close(gathered, expected, **CLOSE)
    assert (similarity.diff(dim=1) <= 0).all()
    assert all(len(row.unique()) == k for row in index)


@pytest.mark.parametrize(
    ("n", "m", "d", "k"),
    [
        (1, 1, 1, 1),
        (0, 5, 33, 3),
        (5, 0, 33, 0),
        (5, 7, 33, 0),
        (3, 7, 0, 2),
        (95, 191, 33, 3),  # below, at and above the tiles of 96 queries and 192 keys
        (96, 192, 384, 32),
        (97, 193, 385, 7),
        (7, 17, 1152, 17),
        (2, 3841, 65, 5),  # one more than a block of keys
        (193, 3839, 40, 1),
    ],
)
def test_sizes(kernels: str, n: int, m: int, d: int, k: int) -> None:
    assert_right(randn(n, d), randn(m, d, seed=1), k)


@pytest.mark.parametrize("n", range(1, 14))
@pytest.mark.parametrize("m", [8, 15, 16, 17])
def test_panel_edges(kernels: str, n: int, m: int) -> None:
    assert_right(randn(n, 35), randn(m, 35, seed=1), 3)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(0, 200),
    m=st.integers(1, 400),
    d=st.integers(1, 800),
    k=st.integers(0, 40),
    seed=st.integers(0),
)
def test_any_size(n: int, m: int, d: int, k: int, seed: int) -> None:
    seed %= 1 << 60
    assert_right(randn(n, d, seed=seed), randn(m, d, seed=seed + 1), min(k, m))


def test_strides_are_respected(kernels: str) -> None:
    query, keys = randn(37, 50), randn(61, 50, seed=1)
    expected = topk_cosine(query, keys, 3)
    columns = torch.stack([query, query + 1], dim=2)[:, :, 0]
    transposed = keys.T.contiguous().T
    backwards = keys.repeat_interleave(2, dim=0)[::2]
    assert all(map(torch.equal, topk_cosine(columns, transposed, 3), expected))
    assert all(map(torch.equal, topk_cosine(query, backwards, 3), expected))
    one = randn(1, 50)
    assert all(
        map(torch.equal, topk_cosine(one.expand(4, 50), keys, 3), topk_cosine(one.repeat(4, 1), keys, 3))
    )


@pytest.mark.parametrize(("n", "m", "d"), [(5, 9, 33), (97, 193, 385)])
def test_nothing_outside_the_views_is_read(kernels: str, n: int, m: int, d: int) -> None:
    def inside_nan(matrix: Tensor) -> Tensor:
        padded = torch.full((matrix.shape[0] + 16, matrix.shape[1] + 16), torch.nan)
        view = padded[8:-8, 8:-8]
        view.copy_(matrix)
        return view

    query, keys = randn(n, d), randn(m, d, seed=1)
    expected = topk_cosine(query, keys, 5)
    assert all(map(torch.equal, topk_cosine(inside_nan(query), inside_nan(keys), 5), expected))


@pytest.mark.parametrize("m", [5, 100, 2001])
def test_equal_keys_tie_exactly_and_the_lower_index_wins(kernels: str, m: int) -> None:
    keys, query = randn(m, 129), randn(50, 129, seed=1)
    _, alone = topk_cosine(query, keys, 1)
    similarity, index = topk_cosine(query, torch.cat([keys, keys, 4 * keys]), 3)
    assert (similarity == similarity[:, :1]).all()
    assert torch.equal(index, alone + torch.tensor([0, m, 2 * m]))


def test_zero_rows_have_similarity_zero(kernels: str) -> None:
    query, keys = randn(7, 40), -randn(7, 40).abs()
    query[3] = 0
    query[0], keys[5] = 1, 0
    similarity, index = topk_cosine(query, keys, 4)
    assert (similarity[3] == 0).all()
    assert index[3].tolist() == [0, 1, 2, 3]
    assert (similarity[0, 0], index[0, 0]) == (0, 5)


@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1e25, 1e30, 1e37])
def test_any_scale(kernels: str, scale: float) -> None:
    query, keys = randn(9, 40) * scale, randn(30, 40, seed=1) * 1e-5
    assert_right(query, keys, 3)


def test_nan_comes_first_as_in_the_reference(kernels: str) -> None:
    query, keys = randn(7, 40), randn(30, 40, seed=1)
    query[2], keys[11, 5] = torch.nan, torch.nan
    similarity, index = topk_cosine(query, keys, 3)
    expected, rows = reference.topk_cosine(query, keys, 3)
    assert torch.equal(similarity.isnan(), expected.isnan())
    assert torch.equal(index, rows)


def assert_exhaustive(query: Tensor, keys: Tensor, k: int) -> None:
    """Bit for bit what a sort of all similarities gives, each of them from a call with one key."""
    each = [topk_cosine(query, keys[row : row + 1], 1)[0] for row in range(len(keys))]
    ordered = torch.cat(each, dim=1).sort(dim=1, descending=True, stable=True)
    similarity, index = topk_cosine(query, keys, k)
    torch.testing.assert_close(similarity, ordered.values[:, :k], rtol=0, atol=0, equal_nan=True)
    assert torch.equal(index, ordered.indices[:, :k])


def close_keys(query: Tensor, m: int, spread: float) -> Tensor:
    """Rows whose similarities to a query are closer than one step of 16-bit fixed point."""
    return (query + 0.2 * randn(*query.shape, seed=2)).repeat(m, 1) * (
        1 + spread * randn(m, query.shape[1], seed=1)
    )


@pytest.mark.parametrize("d", [33, 64, 385, 768, 1152])
@pytest.mark.parametrize("spread", [1e-6, 1e-4, 1e-2])
def test_near_ties_are_ordered_exactly(kernels: str, d: int, spread: float) -> None:
    query = randn(1, d)
    keys = close_keys(query, 300, spread)
    many = torch.cat([query, query + 0.3 * randn(7, d, seed=4), randn(7, d, seed=5)])
    for k in (1, 5, 32):
        assert_exhaustive(many, keys, k)
    assert_exhaustive(many, keys[:3], 3)


@pytest.mark.parametrize("order", ["ascending", "descending", "blocks"])
@pytest.mark.parametrize("k", [1, 3, 32])
def test_orders_in_which_every_key_displaces_another(kernels: str, order: str, k: int) -> None:
    query, start = randn(1, 129), randn(1, 129, seed=1)
    share = torch.linspace(0, 1, 500)[:, None]
    share = {"ascending": share, "descending": share.flip(0), "blocks": share.roll(250, 0)}[order]
    assert_exhaustive(query, share * query + (1 - share) * start, k)


@pytest.mark.parametrize("m", [1, 127, 128, 129, 500])
def test_all_keys_equal(kernels: str, m: int) -> None:
    query, k = randn(9, 385), min(m, 32)
    similarity, index = topk_cosine(query, randn(1, 385, seed=1).expand(m, 385), k)
    assert (similarity == similarity[:, :1]).all()
    assert torch.equal(index, torch.arange(k).expand(9, k))


@pytest.mark.parametrize("huge", ["query", "keys", "both"])
def test_one_huge_element_makes_the_steps_coarse(kernels: str, huge: str) -> None:
    query, keys = randn(13, 200), randn(400, 200, seed=1)
    if huge != "keys":
        query[::2, 7] += 1e5
    if huge != "query":
        keys[::3, 7], keys[1, 8] = 1e5, -1e7
    assert_right(query, keys, 9)
    assert_exhaustive(query, keys, 9)


def test_rows_that_have_no_fixed_point(kernels: str) -> None:
    query, keys = randn(11, 70), randn(300, 70, seed=1)
    keys[40:80, 3], keys[100:103], keys[200, 1] = torch.nan, keys[100:103] * 1e37, torch.inf
    query[3, 1], query[5], query[6] = torch.inf, query[5] * 1e37, 0
    for k in (1, 7, 32):
        assert_exhaustive(query, keys, k)
    finite = ~keys.isnan().any(dim=1) & ~keys.isinf().any(dim=1)
    assert_right(query[4:], keys[finite], 5)
    keys[:] = torch.nan
    assert_exhaustive(query, keys, 32)


def test_same_bits_whatever_the_run_the_threads_and_the_tiling(kernels: str) -> None:
    query, keys = randn(205, 400), randn(500, 400, seed=1)
    first = topk_cosine(query, keys, 9)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            assert all(map(torch.equal, topk_cosine(query, keys, 9), first))
    finally:
        torch.set_num_threads(threads)
    rows = [topk_cosine(query[start : start + 41], keys, 9) for start in range(0, 205, 41)]
    assert all(
        torch.equal(torch.cat(parts), whole)
        for parts, whole in zip(zip(*rows, strict=True), first, strict=True)
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_dtypes_go_through_the_reference(dtype: torch.dtype) -> None:
    query, keys = randn(9, 40).to(dtype), randn(30, 40, seed=1).to(dtype)
    assert all(map(torch.equal, topk_cosine(query, keys, 3), reference.topk_cosine(query, keys, 3)))


def test_gradient() -> None:
    query, keys = randn(6, 40), randn(9, 40, seed=1)
    query[2] = 0
    weight = randn(6, 3, seed=2)

    def gradients(dtype: torch.dtype) -> tuple[Tensor, ...]:
        inputs = [query.to(dtype).requires_grad_(), keys.to(dtype).requires_grad_()]
        similarity, index = topk_cosine(*inputs, 3)
        assert not index.requires_grad
        return torch.autograd.grad((similarity * weight).sum(), inputs)

    for ours, exact in zip(gradients(torch.float32), gradients(torch.float64), strict=True):
        keep = query.abs().sum(dim=1) > 0 if len(ours) == 6 else slice(None)
        torch.testing.assert_close(ours[keep].double(), exact[keep], **TOLERANCE["topk_cosine.gradient"])
        assert ours.isfinite().all()


def test_opcheck() -> None:
    loader.ready()
    query, keys = randn(6, 40).requires_grad_(), randn(9, 40, seed=1).requires_grad_()
    for arguments in ((query, keys, 3), (query, keys, 3, "tf32")):
        torch.library.opcheck(torch.ops.cfr_fast.topk_cosine.default, arguments)


def test_compiles_to_one_graph() -> None:
    query, keys = randn(6, 40).requires_grad_(), randn(9, 40, seed=1)

    def loss(query: Tensor, keys: Tensor) -> Tensor:
        similarity, index = topk_cosine(query, keys, 3, precision="tf32")
        return (similarity * (index + 1)).sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    (expected,) = torch.autograd.grad(loss(query, keys), query)
    (got,) = torch.autograd.grad(compiled(query, keys), query)
    assert torch.equal(got, expected)


def test_agrees_with_the_authors(golden: Path, kernels: str) -> None:
    units = load_file(golden / "units.safetensors")
    query, keys = units["retrieve.query"], units["retrieve.keys"]
    similarity, index = topk_cosine(query, keys, 3)
    torch.testing.assert_close(similarity, units["retrieve.scores"], **CLOSE)
    torch.testing.assert_close(units["retrieve.values"][index], units["retrieve.topk_values"], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("argument", "query", "keys", "k"),
    [
        ("query", torch.zeros(3), torch.zeros(4, 3), 1),
        ("query", torch.zeros(3, 3, dtype=torch.int64), torch.zeros(4, 3), 1),
        ("keys", torch.zeros(2, 3), torch.zeros(4, 5), 1),
        ("keys", torch.zeros(2, 3), torch.zeros(4, 3, dtype=torch.float64), 1),
        ("k", torch.zeros(2, 3), torch.zeros(4, 3), 5),
        ("k", torch.zeros(2, 3), torch.zeros(4, 3), -1),
        ("k", torch.zeros(2, 3), torch.zeros(0, 3), 1),
    ],
)
def test_bad_input_names_the_argument(argument: str, query: Tensor, keys: Tensor, k: int) -> None:
    with pytest.raises(InputError, match=f"^{argument}: expected") as caught:
        topk_cosine(query, keys, k)
    assert caught.value.argument == argument


def test_precision_is_checked_and_changes_nothing_here() -> None:
    query, keys = randn(9, 40), randn(30, 40, seed=1)
    for dtype in (torch.float32, torch.float64):
        plain = topk_cosine(query.to(dtype), keys.to(dtype), 3)
        assert all(map(torch.equal, topk_cosine(query.to(dtype), keys.to(dtype), 3, precision="tf32"), plain))
    with pytest.raises(InputError, match=r"^precision: expected bf16 or tf32, got fp8"):
        topk_cosine(query, keys, 3, precision="fp8")


def test_the_op_itself_checks_its_arguments() -> None:
    if loader.load() is None:
        pytest.skip("no native library here")
    with pytest.raises(
        RuntimeError, match=r"topk_cosine: keys: expected as many columns as query, got shape \[4, 5\]"
    ):
        torch.ops.cfr_fast.topk_cosine(torch.zeros(2, 3), torch.zeros(4, 5), 1)
    with pytest.raises(RuntimeError, match="topk_cosine: precision: expected bf16 or tf32, got fp8"):
        torch.ops.cfr_fast.topk_cosine(torch.zeros(2, 3), torch.zeros(4, 3), 1, "fp8")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize(
    ("n", "m", "d", "k"), [(1, 1, 1, 1), (63, 65, 33, 3), (64, 64, 384, 32), (130, 3000, 1152, 5)]
)
def test_cuda(n: int, m: int, d: int, k: int) -> None:
    query, keys = randn(n, d).cuda(), randn(m, d, seed=1).cuda()
    assert_right(query, keys, k)
    with torch.cuda.stream(torch.cuda.Stream()):
        first, second = topk_cosine(query, keys, k), topk_cosine(query, keys, k)
        torch.cuda.current_stream().synchronize()
    assert all(map(torch.equal, first, second))

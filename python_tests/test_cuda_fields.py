"""CUDA kernels of pixels in token space: their sources run on the CPU, and on a GPU where there is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import emulated
import pytest
import torch
from tolerances import TOLERANCE
from torch import Tensor

from cfr_fast import ops
from cfr_fast.ops import Interpolated, reference

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pixels(tokens: int, count: int, dim: int, most: int = 9) -> Interpolated:
    """`count` pixels of 0 to `most` tokens each."""
    draw = torch.Generator().manual_seed(count)
    entries = torch.randint(0, most + 1 if tokens else 1, (count,), generator=draw)
    offset = torch.cat([torch.zeros(1, dtype=torch.int64), entries.cumsum(0)])
    source = torch.randint(0, max(1, tokens), (int(offset[-1]),), generator=draw)
    weight = torch.rand(len(source), generator=draw) * min(1, 12 / max(1, most))
    return Interpolated(randn(tokens, dim), offset, source, weight)


def mapper(hidden: int, outputs: int) -> tuple[Tensor, Tensor, Tensor]:
    """b12, W3 and b3."""
    scale = max(1, hidden) ** -0.5
    return randn(2 * hidden, seed=1), randn(outputs, hidden, seed=2) * scale, randn(outputs, seed=3)


def strided(matrix: Tensor) -> Tensor:
    """The same rows inside a larger matrix of NaN, off any alignment."""
    padded = torch.full((matrix.shape[0] + 2, matrix.shape[1] + 5), torch.nan, device=matrix.device)
    view = padded[1:-1, 3:-2]
    view.copy_(matrix)
    return view


def scene(
    height: int, width: int, dims: tuple[int, int], share: float = 0.6, most: int = 4, scale: float = 1.0
) -> list[Tensor]:
    """What the op replace_and_score takes: predictions near the observations, every third row replaced."""
    draw = torch.Generator().manual_seed(1)
    valid = torch.rand(height, width, generator=draw) < share
    rows = int(valid.sum())
    sides: list[Tensor] = []
    for seed, dim in enumerate(dims):
        observed = pixels(12, rows, dim, most)
        observed = observed._replace(tokens=observed.tokens * scale)
        predicted = observed.dense() + 0.3 * scale * randn(rows, dim, seed=seed)
        sides += [predicted, *observed]
    replaced = torch.randperm(rows, generator=draw)[: rows // 3]
    replacement = scale * randn(len(replaced), dims[0], seed=5)
    return [*sides, replacement, replaced, valid]


def score(*flat: Tensor) -> Tensor:
    """The definition of replace_and_score on the op's own arguments."""
    rgb, xyz = reference.interpolate_tokens(*flat[1:5]), reference.interpolate_tokens(*flat[6:10])
    return reference.replace_and_score(flat[0], rgb, flat[5], xyz, *flat[10:])


SIZES = [(0, 0, 4), (3, 0, 5), (0, 4, 5), (1, 1, 1), (5, 1, 33), (7, 63, 8), (97, 64, 66), (40, 65, 516)]
INTERPOLATED = [
    *(pixels(*size) for size in SIZES),
    pixels(40, 129, 0),
    pixels(30, 5, 1152),
    pixels(30, 5, 515),
    pixels(50, 9, 40, most=70),  # more entries than lanes
    pixels(50, 9, 41, most=70)._replace(tokens=strided(randn(50, 41))),
]
MAPPED = [
    (pixels(tokens, count, 2 * hidden, most), *mapper(hidden, outputs))
    for tokens, count, hidden, outputs, most in [
        (5, 0, 3, 4, 9), (0, 4, 3, 5, 9), (4, 5, 0, 3, 9), (1, 1, 1, 1, 9), (7, 63, 15, 17, 4),
        (20, 65, 16, 257, 9), (9, 64, 33, 255, 9), (50, 70, 17, 30, 70), (30, 20, 200, 256, 4),
    ]
]  # fmt: skip
SEARCHED = [
    (pixels(tokens, count, dim), randn(keys, dim, seed=5), k)
    for tokens, count, dim, keys, k in [
        (5, 0, 3, 4, 2), (5, 3, 3, 4, 0), (1, 1, 1, 1, 1), (64, 9, 33, 255, 3), (65, 17, 40, 257, 32),
        (20, 15, 16, 600, 5), (7, 8, 90, 129, 32),
    ]
]  # fmt: skip
SCORED = [
    scene(*size, share)
    for size in [(0, 4, (5, 7)), (1, 1, (1, 1)), (3, 2, (0, 3)), (4, 9, (33, 8)), (7, 12, (40, 1156))]
    for share in (0.0, 0.6, 1.0)
]
SCORED += [scene(21, 26, (3, 2)), scene(4, 5, (516, 36), most=40), scene(2, 3, (513, 36))]
SCORED += [scene(5, 6, (40, 50), scale=scale) for scale in (1e-30, 1e-8, 1e-6, 1e25)]
SCORED.append(scene(3, 20, (9, 12), share=1.0, most=60))  # more entries than a block has room for


def flat(arguments: tuple[Any, ...] | list[Any]) -> list[Any]:
    """The op's arguments: interpolated features as four tensors."""
    return [x for item in arguments for x in (item if isinstance(item, Interpolated) else [item])]


CASES = (
    [("interpolate_tokens", flat([item])) for item in INTERPOLATED]
    + [("geglu_map", flat(item)) for item in MAPPED]
    + [("topk_interpolated", flat(item)) for item in SEARCHED]
    + [("replace_and_score", item) for item in SCORED]
)
ARGUMENTS = {"interpolate_tokens": 6, "geglu_map": 8, "topk_interpolated": 8, "replace_and_score": 14}
DEFINITION: dict[str, Callable[..., Tensor]] = {
    "interpolate_tokens": reference.interpolate_tokens,
    "geglu_map": reference.geglu_map,
    "topk_interpolated": reference.topk_interpolated,
    "replace_and_score": score,
}


def run(name: str, arguments: list[Any]) -> Tensor:
    """The CUDA kernel's source on the CPU."""
    kernel: Callable[..., Tensor] = getattr(emulated.ops(), f"{name}_cuda")
    return kernel(*arguments, *[None] * (ARGUMENTS[name] - len(arguments)), 0)


def assert_right(name: str, got: Tensor, arguments: list[Any]) -> None:
    double = [x.double() if isinstance(x, Tensor) and x.is_floating_point() else x for x in arguments]
    expected = DEFINITION[name](*double)
    if name == "topk_interpolated":
        assert torch.equal(got, expected)
    else:
        torch.testing.assert_close(got.double(), expected, **TOLERANCE[name])


@pytest.mark.parametrize("case", range(len(CASES)))
def test_emulated(case: int) -> None:
    name, arguments = CASES[case]
    got = run(name, arguments)
    assert_right(name, got, arguments)
    assert torch.equal(run(name, arguments), got)


@pytest.mark.parametrize("case", [13 + 4, 22 + 5, 29 + 10])
def test_strides_and_nothing_outside_the_views(case: int) -> None:
    """NaN around every matrix does not show, and neither do rows that start off any alignment."""
    name, arguments = CASES[case]
    changed = [
        strided(x) if isinstance(x, Tensor) and x.dtype == torch.float32 and x.dim() == 2 else x
        for x in arguments
    ]
    assert_right(name, run(name, changed), arguments)


def test_equal_keys_prefer_the_lower_row_in_every_block() -> None:
    """More than 8,192 tokens make blocks of 256 keys, the least there is."""
    query, bank = pixels(30, 9, 5), randn(9, 5, seed=6).repeat(60, 1)
    wide = query._replace(tokens=torch.cat([query.tokens, torch.zeros(8_163, 5)]))
    best = reference.topk_interpolated(*query, bank[:9], 1)
    expected = best + 9 * torch.arange(12)
    expected[query.offset.diff() == 0] = torch.arange(12)
    for features in (query, wide):
        assert torch.equal(run("topk_interpolated", flat((features, bank, 12))), expected)


def test_nan_keys_come_first() -> None:
    query, bank = pixels(40, 20, 50), randn(90, 50, seed=6)
    bank[17, 3] = torch.nan
    found = run("topk_interpolated", flat((query, bank, 2)))
    some = query.offset.diff() > 0
    assert (found[some, 0] == 17).all()
    assert torch.equal(found[~some], torch.arange(2).expand(int((~some).sum()), 2))


def test_the_last_of_repeated_replacements_counts() -> None:
    arguments = scene(4, 9, (33, 8))
    once = run("replace_and_score", arguments)
    arguments[10] = torch.cat([randn(len(arguments[11]), 33, seed=9), arguments[10]])
    arguments[11] = arguments[11].repeat(2)
    assert torch.equal(run("replace_and_score", arguments), once)


def test_equal_features_score_nothing_and_small_differences_keep_their_digits() -> None:
    arguments = scene(5, 6, (96, 36), share=1.0)
    arguments[0], arguments[5] = (run("interpolate_tokens", arguments[i : i + 4]) for i in (1, 6))
    arguments[10], arguments[11] = arguments[10][:0], arguments[11][:0]
    assert torch.equal(run("replace_and_score", arguments), torch.zeros(5, 6))
    arguments[5] = -arguments[5]
    for error in (1e-5, 1e-3):
        near = [arguments[0] + error * randn(30, 96, seed=3), *arguments[1:]]
        expected = score(*(x.double() if x.is_floating_point() else x for x in near))
        got = run("replace_and_score", near).double()
        torch.testing.assert_close(got, expected, rtol=5e-7 / error, atol=0)


def test_zero_rows_and_nan() -> None:
    arguments = scene(9, 10, (40, 50))
    arguments[0][3], arguments[5][5] = 0, 0
    assert_right("replace_and_score", run("replace_and_score", arguments), arguments)
    arguments[5][30, 1] = torch.nan
    got, expected = run("replace_and_score", arguments), score(*arguments)
    assert 0 < int(expected.isnan().sum()) <= 25
    assert torch.equal(got.isnan(), expected.isnan())


def test_pixels_without_a_row_are_nan() -> None:
    """On a device nobody counts the valid pixels first."""
    arguments = scene(3, 40, (5, 6))
    some = run("replace_and_score", arguments).isnan()
    assert not some.any()
    arguments[12][:] = True
    assert run("replace_and_score", arguments)[:, -1].isnan().all()


@pytest.mark.parametrize(
    ("case", "position", "bad", "message"),
    [
        (5, 3, torch.ones(3), r"interpolate_tokens: weight: expected float32 \[257\]"),
        (17, 4, torch.zeros(3), r"geglu_map: bias: expected float32 \[30\]"),
        (25, 5, 256, "topk_interpolated: k: expected 0 to the number of keys, got 256"),
        (
            40,
            2,
            torch.arange(36),
            "replace_and_score: rgb_offset: expected one pixel a predicted row, got 35",
        ),
        (40, 11, torch.zeros(3, dtype=torch.int64), r"replace_and_score: replaced: expected int64 \[12\]"),
    ],
)
def test_arguments_that_do_not_fit(case: int, position: int, bad: Any, message: str) -> None:
    name, arguments = CASES[case]
    with pytest.raises(RuntimeError, match=message):
        run(name, [*arguments[:position], bad, *arguments[position + 1 :]])


@needs_gpu
@pytest.mark.parametrize("case", range(len(CASES)))
def test_on_a_gpu(case: int) -> None:
    name, arguments = CASES[case]
    there = [x.cuda() if isinstance(x, Tensor) else x for x in arguments]
    if name == "replace_and_score":
        rgb, xyz = Interpolated(*there[1:5]), Interpolated(*there[6:10])
        there = [there[0], rgb, there[5], xyz, *there[10:]]
    else:
        there = [Interpolated(*there[:4]), *there[4:]]
    op = getattr(ops, name)
    got = op(*there)
    assert_right(name, got.cpu(), arguments)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        again = op(*there)
    side.synchronize()
    assert torch.equal(again, got)

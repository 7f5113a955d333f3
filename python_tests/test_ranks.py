"""The native ranks of defect pixels against their definition in numpy, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from cfr_fast.evaluation import aupro, pixel_auroc, ranks
from cfr_fast.evaluation.ranks import DefectRanks, Pairs, defect_ranks, reference_defect_ranks
from cfr_fast.ops import loader

LIMITS = (0.30, 0.10, 0.05, 0.01)


@pytest.fixture(autouse=True, scope="module")
def native() -> None:
    if loader.load() is None:
        pytest.skip("no native library here")


def check(pairs: Pairs) -> DefectRanks:
    found, expected = defect_ranks(pairs), reference_defect_ranks(pairs)
    for name in ("count", "overlap", "below", "up_to"):
        mine, reference = getattr(found, name), getattr(expected, name)
        assert mine.dtype == reference.dtype
        assert mine.tobytes() == reference.tobytes(), name
    assert found.negatives == expected.negatives
    return found


@st.composite
def images(draw: st.DrawFn) -> Pairs:
    """Images of different sizes or none; with ties or not; any magnitude; masks from empty to full."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sizes = st.tuples(st.integers(0, 40), st.integers(0, 40))
    shapes = draw(st.lists(sizes, min_size=0, max_size=4))
    dtype = draw(st.sampled_from([np.float32, np.float64, "mixed"]))
    levels = draw(st.sampled_from([1, 5, 1000, None]))
    scale = 10.0 ** draw(st.integers(-36, 36))
    spread = draw(st.sampled_from([0, 1, 30]))
    pairs: Pairs = []
    for shape in shapes:
        scores = rng.standard_normal(shape)
        if spread == 30:
            scores = np.sign(scores) * np.exp(scores * 8)
        elif levels is not None:
            scores = np.round(scores * levels) / levels + spread
        kind = rng.choice([np.float32, np.float64]) if dtype == "mixed" else dtype
        density = rng.choice([0.0, 0.02, 0.3, 0.7, 1.0])
        scores = np.clip(scores * scale, -3e38, 3e38).astype(kind)
        pairs.append((scores, rng.random(shape) < density))
    return pairs


@settings(max_examples=300, deadline=None)
@given(images())
def test_native_ranks_are_the_definition(pairs: Pairs) -> None:
    check(pairs)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_many_pixels(dtype: type[np.floating]) -> None:
    """More than one block of scores and more than one digit of keys; smooth, as maps are."""
    rng = np.random.default_rng(5)
    ramp = np.add.outer(np.arange(300), np.arange(257)) / 64
    scores = np.maximum(ramp + rng.standard_normal((6, 300, 257)) - 3, 0).astype(dtype)
    masks = np.zeros(scores.shape, dtype=bool)
    masks[:5, 40:120, 30:90] = masks[2, 200:, 200:] = masks[3, ::2, ::2] = True
    found = check(list(zip(scores, masks, strict=True)))
    assert found.count.size > 10_000
    assert found.overlap.sum() == pytest.approx(1)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extremes(dtype: type[np.floating]) -> None:
    info = np.finfo(dtype)
    numbers = [info.max, info.min, info.tiny, info.smallest_subnormal, 0.0, -0.0, 1.0, -1.0]
    numbers += [-info.smallest_subnormal, np.nextafter(dtype(1), dtype(2))]
    scores = np.tile(np.array(numbers, dtype=dtype), (4, 1))
    masks = np.zeros(scores.shape, dtype=bool)
    masks[0] = True
    assert check([(scores, masks)]).count.size == len(numbers) - 1
    masks[0, 0] = masks[0, 2] = False
    check([(scores, masks)])


def test_negative_zero_ties_with_zero() -> None:
    scores = np.array([[0.0, -0.0, -0.0, 0.0, 1.0]], dtype=np.float32)
    found = check([(scores, np.array([[True, True, False, False, False]]))])
    assert (found.count.tolist(), found.below.tolist(), found.up_to.tolist()) == ([2], [0], [2])


@pytest.mark.parametrize("fill", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (5, 8), (0, 3), (3, 0)])
def test_constant_maps_and_masks(shape: tuple[int, int], fill: bool) -> None:
    check([(np.full(shape, 0.25, dtype=np.float32), np.full(shape, fill))])
    check([])


@pytest.mark.parametrize("at", [(0, 0), (0, 6), (4, 0), (4, 6), (2, 3)])
def test_one_defect_pixel(at: tuple[int, int]) -> None:
    scores, mask = np.arange(35.0).reshape(5, 7), np.zeros((5, 7), dtype=bool)
    mask[at] = True
    below = int(scores[at])
    found = check([(scores, mask)])
    assert (found.overlap.tolist(), found.below.tolist(), found.up_to.tolist()) == ([1.0], [below], [below])


@pytest.mark.parametrize(
    ("rows", "sizes"),
    [
        (("#.#", ".#.", "#.#"), [5]),  # corners join
        (("#.#.#", "#.#.#", "#####"), [11]),  # a comb joins only at its foot
        (("#####", ".....", "#####"), [5, 5]),
        (("#...#", ".#.#.", "..#..", "....."), [5]),
        (
            ("##..##", "......", "#....#"),
            [2, 2, 1, 1],
        ),  # the end of a row does not touch the next row's begin
        ((".#.#.#.#.#", "#.#.#.#.#."), [10]),
    ],
)
def test_regions(rows: tuple[str, ...], sizes: list[int]) -> None:
    mask = np.array([[letter == "#" for letter in row] for row in rows])
    scores = np.arange(mask.size, dtype=np.float32).reshape(mask.shape)
    found = check([(scores, mask)])
    expected = np.sort(np.concatenate([[1 / (size * len(sizes))] * size for size in sizes]))
    assert_array_equal(np.sort(found.overlap), expected)


def test_views_without_copies_of_the_caller() -> None:
    rng = np.random.default_rng(2)
    scores, masks = rng.random((3, 20, 30)).astype(np.float32), rng.random((3, 20, 30)) < 0.2
    before = scores.copy()
    expected = check(list(zip(scores, masks, strict=True)))
    swapped = scores.astype(">f4")
    turned = [(s.T.copy().T, m[:, ::-1].copy()[:, ::-1]) for s, m in zip(swapped, masks, strict=True)]
    assert check(turned).below.tolist() == expected.below.tolist()
    assert_array_equal(scores, before)


def test_metrics_without_the_library_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(7)
    maps, masks = rng.random((4, 30, 31)).astype(np.float32), rng.random((4, 30, 31)) < 0.1

    def figures() -> tuple[object, ...]:
        return aupro(maps, masks, LIMITS), aupro(maps, masks, LIMITS, 99), pixel_auroc(maps, masks)

    expected = figures()
    monkeypatch.setattr(loader, "load", lambda: None)
    assert figures() == expected


def test_chunks_do_not_change_the_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    pairs = [
        (rng.integers(0, 50, (20, 20)).astype(np.float32), rng.random((20, 20)) < 0.05) for _ in range(9)
    ]
    monkeypatch.setattr(ranks, "CHUNK", 500)
    check(pairs)


@pytest.mark.parametrize(
    ("scores", "mask", "message"),
    [
        (np.zeros((2, 2)), np.zeros((2, 2), dtype=bool), "map: expected"),
        (np.zeros((2, 4), dtype=np.float32)[:, ::2], np.zeros((2, 2), dtype=bool), "map: expected"),
        (np.zeros((2, 2), dtype=np.float32), np.zeros((2, 3), dtype=bool), "defect: expected"),
        (np.zeros((2, 2), dtype=np.float32), np.zeros((2, 2)), "defect: expected"),
    ],
)
def test_the_binding_refuses_what_it_would_misread(
    scores: np.ndarray, mask: np.ndarray, message: str
) -> None:
    library = loader.load()
    assert library is not None
    ranking = library.module.Ranking_float32(np.ones(1, np.float32), np.ones(1), 1)
    for call in (library.module.defects_float32, ranking.add):
        with pytest.raises(ValueError, match=message):
            call(scores, mask)


@pytest.mark.parametrize(("scores", "shares", "regions"), [([], [], 1), ([1], [], 1), ([1], [1], 0)])
def test_the_binding_refuses_to_rank_nothing(scores: list[float], shares: list[float], regions: int) -> None:
    library = loader.load()
    assert library is not None
    with pytest.raises(ValueError, match="scores: expected"):
        library.module.Ranking_float32(np.array(scores, np.float32), np.array(shares, float), regions)

"""The ops' references, against plain NumPy loops and against their own promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cfr_fast import InputError, ops

SMALL = settings(max_examples=25, deadline=None)


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / lengths) if lengths else 0.0


class TestFarthestPointSample:
    @SMALL
    @given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 2**31))
    def test_every_pick_is_the_farthest(self, rows: int, dim: int, seed: int) -> None:
        points = noise(rows, dim, seed=seed)
        picks = ops.farthest_point_sample(points, rows)
        assert picks[0] == 0
        distances = torch.cdist(points, points)
        for step in range(1, rows):
            nearest = distances[picks[:step]].amin(dim=0)
            assert nearest[picks[step]] == pytest.approx(float(nearest.max()))

    def test_initial_distance_decides_the_first_pick(self) -> None:
        points = torch.tensor([[0.0], [1.0], [5.0], [9.0]])
        picks = ops.farthest_point_sample(points, 2, torch.tensor([0.1, 3.0, 2.0, 2.5]))
        assert picks.tolist() == [1, 3]

    def test_ties_and_duplicates_go_to_the_lower_row(self) -> None:
        points = torch.tensor([[0.0], [1.0], [-1.0], [0.0]])
        assert ops.farthest_point_sample(points, 4).tolist() == [0, 1, 2, 0]

    @pytest.mark.parametrize("rows", [0, 1, 7])
    def test_none_wanted(self, rows: int) -> None:
        assert ops.farthest_point_sample(noise(rows, 3), 0).shape == (0,)

    @pytest.mark.parametrize("count", [-1, 6])
    def test_count_out_of_range(self, count: int) -> None:
        with pytest.raises(InputError, match="count: expected a number of rows between 0 and 5"):
            ops.farthest_point_sample(noise(5, 3), count)


class TestNeighbours:
    @SMALL
    @given(st.integers(1, 30), st.integers(0, 10), st.integers(0, 2**31))
    def test_knn_is_the_sorted_distance(self, rows: int, centers: int, seed: int) -> None:
        points, middle = noise(rows, 3, seed=seed).round(decimals=1), noise(centers, 3, seed=seed + 1)
        found = ops.knn(points, middle, min(4, rows))
        squared = ((middle[:, None] - points[None]) ** 2).sum(2).numpy()
        assert found.tolist() == np.argsort(squared, axis=1, kind="stable")[:, : min(4, rows)].tolist()

    def test_three_nn_weights(self) -> None:
        points, centers = noise(50, 3), noise(9, 3, seed=1)
        index, weight = ops.three_nn(points, centers)
        squared = ((points[:, None] - centers[None]) ** 2).sum(2)
        nearest = squared.sort(dim=1).values[:, :3]
        assert torch.equal(index, squared.argsort(dim=1, stable=True)[:, :3])
        inverse = 1 / (nearest + 1e-8)
        torch.testing.assert_close(weight, inverse / inverse.sum(1, keepdim=True))

    def test_three_nn_at_a_centre_takes_that_centre(self) -> None:
        centers = torch.eye(3, dtype=torch.float64)
        _, weight = ops.three_nn(centers, centers)
        assert (weight[:, 0] > 1 - 2e-8).all()

    def test_ties_go_to_the_lower_row(self) -> None:
        points = torch.zeros(5, 3)
        assert ops.knn(points, torch.ones(1, 3), 3).tolist() == [[0, 1, 2]]
        assert ops.three_nn(torch.ones(1, 3), points)[0].tolist() == [[0, 1, 2]]

    def test_too_few_centers(self) -> None:
        with pytest.raises(InputError, match="centers: expected at least 3 rows"):
            ops.three_nn(noise(5, 3), noise(2, 3))

    @pytest.mark.parametrize("k", [-1, 6])
    def test_k_out_of_range(self, k: int) -> None:
        with pytest.raises(InputError, match="k: expected"):
            ops.knn(noise(5, 3), noise(2, 3), k)


class TestConfidenceFilter:
    @SMALL
    @given(st.integers(0, 20), st.integers(0, 10), st.integers(1, 6), st.floats(0, 2), st.integers(0, 2**31))
    def test_against_loops(self, rows: int, bank_rows: int, dim: int, threshold: float, seed: int) -> None:
        query, bank = noise(rows, dim, seed=seed), noise(bank_rows, dim, seed=seed + 1)
        valid = noise(rows, seed=seed + 2) > -0.5
        wanted, margin = [], False
        for row in range(rows):
            nearest = min((1 - cosine(query[row].numpy(), b.numpy()) for b in bank), default=np.inf)
            margin |= abs(nearest - threshold) < 1e-9
            if valid[row] and nearest >= threshold:
                wanted.append(row)
        found = ops.confidence_filter(query, bank, threshold, valid)
        assert margin or found.tolist() == wanted

    def test_a_zero_row_is_at_distance_one(self) -> None:
        query, bank = torch.zeros(1, 4), noise(3, 4, dtype=torch.float32)
        assert ops.confidence_filter(query, bank, 1.0).tolist() == [0]
        assert ops.confidence_filter(query, bank, 1.001).tolist() == []

    def test_blocks_agree_with_one_piece(self, monkeypatch: pytest.MonkeyPatch) -> None:
        query, bank = noise(37, 5), noise(11, 5, seed=1)
        whole = ops.confidence_filter(query, bank, 0.3)
        monkeypatch.setattr("cfr_fast.ops.reference.BLOCK", 25)
        assert 0 < len(whole) < 37
        assert torch.equal(ops.confidence_filter(query, bank, 0.3), whole)

    def test_not_a_number(self) -> None:
        with pytest.raises(InputError, match="threshold: expected a cosine distance, got NaN"):
            ops.confidence_filter(noise(2, 2), noise(2, 2), float("nan"))


class TestReplaceAndScore:
    @SMALL
    @given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**31))
    def test_against_loops(self, height: int, width: int, seed: int) -> None:
        valid = noise(height, width, seed=seed) > 0
        rows = int(valid.sum())
        rgb, rgb_seen = noise(rows, 4, seed=seed + 1), noise(rows, 4, seed=seed + 2)
        xyz, xyz_seen = noise(rows, 3, seed=seed + 3), noise(rows, 3, seed=seed + 4)
        replaced = torch.arange(0, rows, 2)
        replacement = noise(len(replaced), 4, seed=seed + 5)
        found = ops.replace_and_score(rgb, rgb_seen, xyz, xyz_seen, replacement, replaced, valid)

        product = np.zeros((height + 4, width + 4))
        for row, (y, x) in enumerate(np.argwhere(valid.numpy())):
            a = replacement[row // 2] if row % 2 == 0 else rgb[row]
            first = a / a.norm() - rgb_seen[row] / rgb_seen[row].norm()
            second = xyz[row] / xyz[row].norm() - xyz_seen[row] / xyz_seen[row].norm()
            product[y + 2, x + 2] = float(first.norm() * second.norm())
        wanted = [[product[y : y + 5, x : x + 5].sum() / 25 for x in range(width)] for y in range(height)]
        np.testing.assert_allclose(found.numpy(), wanted, atol=1e-12)

    def test_nothing_valid_is_all_zero(self) -> None:
        none, valid = torch.zeros(0, 4), torch.zeros(6, 7, dtype=torch.bool)
        rows = torch.zeros(0, dtype=torch.int64)
        found = ops.replace_and_score(none, none, none, none, none, rows, valid)
        assert torch.equal(found, torch.zeros(6, 7))

    def test_rows_must_match_the_mask(self) -> None:
        a, rows = noise(3, 4), torch.zeros(0, dtype=torch.int64)
        with pytest.raises(InputError, match=r"valid: expected bool .* with 3 True pixels"):
            ops.replace_and_score(a, a, a, a, a[:0], rows, torch.ones(2, 2, dtype=torch.bool))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.knn(noise(5, 2), noise(5, 3), 1), r"points: expected a floating-point matrix \[N, 3\]"),
        (lambda: ops.knn(noise(5, 3), noise(5, 3).float(), 1), "centers: expected dtype float64"),
        (
            lambda: ops.knn(torch.zeros(5, 3, dtype=torch.int64), noise(5, 3), 1),
            "points: expected a floating",
        ),
        (lambda: ops.confidence_filter(noise(5, 3), noise(5, 4), 0.1), r"bank: expected .*\[N, 3\]"),
        (
            lambda: ops.confidence_filter(noise(5, 3), noise(5, 3), 0.1, torch.ones(4, dtype=torch.bool)),
            r"valid: expected bool of shape \[5\]",
        ),
        (lambda: ops.bank_attention([[1.0]], noise(1, 1), noise(1, 1), 1.0), "query: expected .* got list"),  # type: ignore[arg-type]
    ],
)
def test_clear_errors(call: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call()  # type: ignore[operator]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_runs_are_bit_equal(dtype: torch.dtype) -> None:
    query, bank = noise(200, 33, dtype=dtype), noise(101, 33, seed=1, dtype=dtype)
    assert torch.equal(ops.confidence_filter(query, bank, 0.6), ops.confidence_filter(query, bank, 0.6))
    assert torch.equal(ops.bank_attention(query, bank, bank, 0.2), ops.bank_attention(query, bank, bank, 0.2))
    assert torch.equal(ops.farthest_point_sample(bank, 50), ops.farthest_point_sample(bank, 50))

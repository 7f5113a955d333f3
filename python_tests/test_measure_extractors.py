"""The plain detector that networks are chosen by."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))
from cfr_fast.data.frame import Frame  # noqa: E402
from tools import measure_extractors  # noqa: E402
from tools.measure_extractors import CELLS, SIZE, Memory, Seen, table, turned  # noqa: E402


def view(seed: int, odd: int | None = None) -> Seen:
    """Cells of eight sorts in two kinds of features, the first rows off the part; one cell like no other."""
    rng = torch.Generator().manual_seed(seed)
    sorts = torch.randint(8, (CELLS * CELLS,), generator=rng)
    cells = {}
    for number, kind in enumerate(("rgb", "xyz")):
        prototypes = torch.randn(8, 12, generator=torch.Generator().manual_seed(number))
        cells[kind] = prototypes[sorts] + 0.05 * torch.randn(len(sorts), 12, generator=rng)
    valid = torch.arange(CELLS * CELLS) >= 10 * CELLS
    if odd is not None:
        cells["xyz"][odd] = -prototypes[sorts[odd]]
    return Seen(cells, valid)


def test_a_cell_like_no_other_stands_out() -> None:
    row, column = 30, 17
    map = Memory([view(0), view(1)], seed=0).map(view(2, row * CELLS + column))
    assert map.shape == (SIZE, SIZE)
    top, left = np.unravel_index(map.argmax(), map.shape)
    assert (top * CELLS // SIZE, left * CELLS // SIZE) == (row, column)
    assert (map[: 6 * SIZE // CELLS] == 0).all()  # beyond what is carried over the part's rim
    assert np.array_equal(map, Memory([view(0), view(1)], seed=0).map(view(2, row * CELLS + column)))


def test_four_quarters_are_a_whole_turn() -> None:
    rng = np.random.default_rng(0)
    frame = Frame(rng.integers(0, 256, (8, 8, 3), np.uint8), rng.random((8, 8, 3), np.float32), 0, 0, (8, 8))
    quarter, whole = turned(frame, 1), turned(frame, 4)
    assert np.array_equal(whole.rgb, frame.rgb)
    assert np.array_equal(whole.xyz, frame.xyz)
    assert np.array_equal(quarter.rgb, np.rot90(frame.rgb))
    x, y, z = frame.xyz[0, 7]  # the corner that comes first when turned
    assert quarter.xyz[0, 0].tolist() == [y, -x, z]


def test_sets_weigh_the_same_in_the_mean() -> None:
    one = {"subject": "a", "shots": 1, "AUPRO 30 %": 0.0, "AUPRO 1 %": 0.0}
    rows = [one | {"set": "few", "I-AUROC": 50.0}] + [one | {"set": "many", "I-AUROC": 80.0}] * 3
    assert table(rows)[-1] == "| a | 1 | 50.0 / 0.0 / 0.0 | 80.0 / 0.0 / 0.0 | 65.0 / 0.0 / 0.0 |"


def test_nothing_to_measure_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert measure_extractors.main(["--data", "nowhere"]) == 2
    assert "--embedded" in capsys.readouterr().err

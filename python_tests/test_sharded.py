"""A bank spread over two processes answers as one process does; who disagrees or dies ends the search."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_workers import Outcome, both
from tolerances import TOLERANCE
from torch import Tensor
from toy_shards import LATE, PATIENCE, Case, answers, cases

from cfr_fast import ops
from cfr_fast.errors import InputError
from cfr_fast.ops import loader, reference
from cfr_fast.sharded import ShardedBank, merged_topk, own_rows

HERE = Path(__file__).resolve().parent
CASES = cases()
SIMILARITY = TOLERANCE["topk_cosine"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Outcome]]:
    """The folder that both processes wrote into, and how they ended."""
    out = tmp_path_factory.mktemp("shards")
    outcomes = both([str(HERE / "toy_shards.py"), str(out)])
    assert (out / "1.json").exists(), outcomes
    return out, outcomes


def in_one_process(case: Case) -> list[Tensor]:
    found = [*ops.topk_cosine(case.query, case.keys, case.k)]
    found.append(ops.confidence_filter(case.query, case.keys, case.threshold, case.valid))
    if len(case.keys):
        found.append(ops.bank_attention(case.query, case.keys, case.values, case.scale))
    return found


@pytest.mark.parametrize("name", CASES)
def test_two_processes_answer_as_one(run: tuple[Path, list[Outcome]], name: str) -> None:
    case, (out, _) = CASES[name], run
    first, second = (torch.load(out / f"{rank}.pt", weights_only=True)[name] for rank in range(2))
    expected = in_one_process(case)
    assert len(first) == len(second) == len(expected)
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)
    (similarity, index, rows, *attended), (similar, place, far, *whole) = first, expected
    exact = loader.load() is not None and case.query.dtype == torch.float32 and case.k <= 32
    close = {"rtol": 0, "atol": 0} if exact else SIMILARITY
    torch.testing.assert_close(similarity, similar, **close, equal_nan=True)
    assert torch.equal(index, place)
    assert torch.equal(rows, far)
    for part, entire in zip(attended, whole, strict=True):
        torch.testing.assert_close(part, entire, **TOLERANCE["sharded.bank_attention"], equal_nan=True)


def test_the_cases_are_not_trivial() -> None:
    unreliable = {
        name: len(in_one_process(case)[2]) / max(1, len(case.query)) for name, case in CASES.items()
    }
    assert 0.1 < unreliable["fair"] < 0.9
    assert 0.1 < unreliable["ties and zeros"] < 0.9
    assert unreliable["no rows at all"] == 1
    similarity, index, *_ = in_one_process(CASES["ties and zeros"])
    assert ((similarity[:, 0] == similarity[:, 1]) & (index[:, 0] < 120) & (index[:, 1] >= 120)).any()
    assert in_one_process(CASES["not a number"])[0].isnan().any()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "other queries",
            "InputError: query: expected the same on every rank, got another on rank {} than here",
        ),
        ("other order", "InputError: query: "),
        ("fewer queries", "InputError: rows of query: "),
        ("other k", "InputError: k: "),
        ("other threshold", "InputError: threshold: "),
        ("other mask", "InputError: valid: "),
        ("other method", "InputError: call: "),
        ("k beyond all rows", "InputError: k: expected a number of keys between 0 and 10, got 11"),
        ("no values", "InputError: values: expected those of the rows"),
        ("other widths", "InputError: keys: "),
        ("other dtypes", "InputError: dtype: "),
        ("values on one rank", "InputError: values: "),
        ("empty bank", "InputError: keys: expected at least one row on any rank"),
    ],
)
def test_who_disagrees_is_told_on_every_rank(run: tuple[Path, list[Outcome]], name: str, words: str) -> None:
    for rank in range(2):
        told = json.loads((run[0] / f"{rank}.json").read_text())["told"][name]
        assert told.startswith(words.format(1 - rank)), told


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("bad on one rank", "InputError: query: expected"),
        ("keys that are none", "InputError: keys: expected"),
    ],
)
def test_what_one_rank_refuses_ends_the_call_of_the_others(
    run: tuple[Path, list[Outcome]], name: str, words: str
) -> None:
    here, there = (json.loads((run[0] / f"{rank}.json").read_text())["told"][name] for rank in range(2))
    assert here == "WorkersError: rank 1 of 2 refused its arguments; its own error says why"
    assert there.startswith(words)


def test_nobody_waits_longer_than_the_timeout(run: tuple[Path, list[Outcome]]) -> None:
    found = json.loads((run[0] / "0.json").read_text())
    assert re.match(r"WorkersError: rank 0 of 2: another rank has died, failed, or not come", found["late"])
    assert 0.9 * PATIENCE < found["seconds"] < LATE


def test_one_that_dies_ends_the_search(run: tuple[Path, list[Outcome]]) -> None:
    (code, _, error), (other, _, _) = run[1]
    assert (code, other) == (2, 7)
    (line,) = [line for line in error.splitlines() if line.startswith("cfr:")]
    assert line.startswith("cfr: rank 0 of 2: another rank has died, failed, or not come within the timeout")
    assert "Traceback" not in error


def test_a_process_alone_needs_no_others() -> None:
    case = CASES["ties and zeros"]
    bank = ShardedBank(case.keys, case.values)
    assert (len(bank), bank.sizes, bank.first) == (201, (201,), 0)
    assert own_rows(7) == slice(0, 7)
    *search, attended = answers(bank, case)
    *expected, whole = in_one_process(case)
    for one, other in zip(search, expected, strict=True):
        assert torch.equal(one, other)
    torch.testing.assert_close(attended, whole, rtol=0, atol=0)
    with pytest.raises(InputError, match="threshold"):
        bank.confidence_filter(case.query, float("nan"))
    with pytest.raises(InputError, match="valid"):
        bank.confidence_filter(case.query, 0.5, torch.ones(3, dtype=torch.bool))
    with pytest.raises(InputError, match="values"):
        ShardedBank(case.keys, case.values[1:])


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 999),
    cuts=st.lists(st.integers(0, 60), max_size=5),
    share=st.floats(0, 1),
    distinct=st.integers(1, 60),
)
def test_lists_of_any_parts_merge(seed: int, cuts: list[int], share: float, distinct: int) -> None:
    """As in one process, with equal rows, zero rows and rows that are not numbers."""
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randn(distinct, 5, generator=generator)[torch.randint(distinct, (60,), generator=generator)]
    keys[torch.randint(60, (4,), generator=generator)] = 0
    keys[torch.randint(60, (2,), generator=generator)] = torch.nan
    query = torch.cat([torch.randn(6, 5, generator=generator), keys[:5], torch.zeros(1, 5)])
    k = min(32, round(share * 60))  # as far as the kernels serve
    ends = [0, *sorted(cuts), 60]
    lists = []
    for start, stop in pairwise(ends):
        similarity, index = ops.topk_cosine(query, keys[start:stop], min(k, stop - start))
        lists.append((similarity, index + start))
    similarity, index = merged_topk(*zip(*lists, strict=True), k)
    expected, rows = ops.topk_cosine(query, keys, k)
    torch.testing.assert_close(similarity, expected, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(index, rows)


def test_attention_is_as_near_to_float64_as_in_one_process(run: tuple[Path, list[Outcome]]) -> None:
    for name in ("fair", "ties and zeros", "wide", "nothing on rank 0"):
        case = CASES[name]
        exact = reference.bank_attention(
            case.query.double(), case.keys.double(), case.values.double(), case.scale
        )
        found = torch.load(run[0] / "0.pt", weights_only=True)[name][3]
        torch.testing.assert_close(found.double(), exact, **TOLERANCE["sharded.bank_attention"])

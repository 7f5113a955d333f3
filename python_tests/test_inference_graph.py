"""The step in fixed shapes: it finds what the step in shapes of the data finds, and can be recorded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import emulated
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from cfr_fast.inference_graph import InferenceGraph, Recorder, Replayable, Step
from cfr_fast.learned import Learned
from cfr_fast.mappers import CyclicMappers, seeded
from cfr_fast.memory import KeyValueBank
from cfr_fast.ops import Interpolated, loader
from cfr_fast.padded_step import PaddedBatch, Results, Sizes, padded_discrepancy
from cfr_fast.retriever import AttentionRetriever
from cfr_fast.settings import Settings

RGB, XYZ, SIDE, CANDIDATES = 20, 28, 24, 3
SETTINGS = Settings(candidates=CANDIDATES)
Input = tuple[Interpolated, Interpolated, Tensor]
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def learned(normalize_qk: bool = False, device: str = "cpu") -> Learned:
    """An untrained model; half of the predictions for the samples below are unreliable."""
    mappers = seeded(CyclicMappers, RGB, XYZ, seed=0)
    retriever = seeded(AttentionRetriever, XYZ, RGB, 16, normalize_qk, seed=1)
    assert isinstance(mappers, CyclicMappers)
    assert isinstance(retriever, AttentionRetriever)
    bank = randn(40, RGB, seed=3)
    model = Learned(mappers, KeyValueBank(randn(60, XYZ, seed=2), randn(60, RGB, seed=4)), bank, retriever)
    for network in (mappers, retriever):
        network.eval().requires_grad_(False)
    predicted = torch.cat([mappers.xyz_to_rgb.map(sample(seed)[1]) for seed in (0, 1)]).double()
    ordered = (1 - normalize(predicted, dim=1) @ normalize(bank.double(), dim=1).T).amin(dim=1).sort().values
    around = ordered[len(ordered) // 2 :][:20]
    gap = int(around.diff().argmax())
    model.theta = float(around[gap : gap + 2].mean())
    return model.to(device)


@cache
def sample(seed: int, share: float = 0.6) -> Input:
    """Pixels of 1 to 4 entries over tokens of both kinds."""
    draw = torch.Generator().manual_seed(seed)
    valid = torch.rand(SIDE, SIDE, generator=draw) < share
    rows = int(valid.sum())

    def side(tokens: int, dim: int) -> Interpolated:
        offset = torch.cat([torch.zeros(1, dtype=torch.int64), torch.randint(1, 5, (rows,), generator=draw)])
        offset = offset.cumsum(0)
        entries = int(offset[-1])
        source = torch.randint(0, tokens, (entries,), generator=draw)
        weight = torch.rand(entries, generator=draw)
        return Interpolated(torch.randn(tokens, dim, generator=draw), offset, source, weight)

    return side(30 + seed, RGB), side(25, XYZ), valid


def turned(samples: list[Input]) -> tuple[list[Interpolated], list[Interpolated], list[Tensor]]:
    rgb, xyz, valid = zip(*samples, strict=True)
    return list(rgb), list(xyz), list(valid)


class Again:
    """A recording for the CPU: runs the step over the same buffers, into the same results."""

    def __init__(self, step: Step) -> None:
        self.step, self.results = step, step()

    def replay(self) -> None:
        for kept, new in zip(self.results, self.step(), strict=True):
            kept.copy_(new)


def recorder(made: list[Again]) -> Recorder:
    def record(step: Step) -> tuple[Replayable, Results]:
        made.append(Again(step))
        return made[-1], made[-1].results

    return record


def assert_same(got: list[tuple[Tensor, Tensor]], model: Learned, samples: list[Input]) -> None:
    """Maps and replaced rows of every sample by itself. Products of joint tokens may round otherwise."""
    for found, one in zip(got, samples, strict=True):
        maps, rows = model.discrepancy(*one, SETTINGS)
        assert torch.equal(found[1], rows)
        torch.testing.assert_close(found[0], maps, rtol=2e-6, atol=1e-6)


SAMPLES = [sample(0), sample(1), sample(2, 0.0), sample(3, 1.0)]


@pytest.mark.parametrize("normalize_qk", [False, True])
@pytest.mark.parametrize("chosen", [[0], [2], [3], [0, 1], [2, 0, 3], [1, 2], [2, 2]])
def test_fixed_shapes_find_the_same(chosen: list[int], normalize_qk: bool) -> None:
    model, samples = learned(normalize_qk), [SAMPLES[number] for number in chosen]
    got = InferenceGraph(model, CANDIDATES).run(*turned(samples))
    assert_same(got, model, samples)
    assert_same(model.discrepancy_many(*turned(samples), SETTINGS), model, samples)
    if 0 in chosen:
        assert 0 < len(got[chosen.index(0)][1]) < len(SAMPLES[0][0].offset) - 1


@pytest.mark.parametrize("theta", [-1.0, 3.0])
def test_everything_or_nothing_is_replaced(theta: float) -> None:
    model, samples = replace(learned(), theta=theta), SAMPLES[:2]
    got = InferenceGraph(model, CANDIDATES).run(*turned(samples))
    assert [len(rows) for _, rows in got] == [one[0].pixels if theta < 0 else 0 for one in samples]
    assert_same(got, model, samples)


@pytest.mark.parametrize("replacement", ["bank", "nearest", "none"])
def test_batches_of_other_settings(replacement: str) -> None:
    model = learned()
    model.retriever = model.retriever if replacement == "bank" else None
    model.rgb_bank = None if replacement == "none" else model.rgb_bank
    settings = Settings(replacement=replacement)
    got = model.discrepancy_many(*turned(SAMPLES), settings)
    for found, one in zip(got, SAMPLES, strict=True):
        maps, rows = model.discrepancy(*one, settings)
        assert torch.equal(found[1], rows)
        torch.testing.assert_close(found[0], maps, rtol=2e-6, atol=1e-6)
    assert not InferenceGraph.serves(model, settings)


def test_what_an_earlier_batch_left_does_not_show() -> None:
    model, (rgb, xyz, valid) = learned(), turned(SAMPLES[:2])
    sizes = Sizes.of(rgb, xyz, valid).grown()
    fresh, used = (PaddedBatch(sizes, model.widths, torch.device("cpu")) for _ in range(2))
    for side in (used.rgb, used.xyz):
        side.tokens.fill_(torch.nan)
        side.weight.fill_(torch.nan)
        side.source.fill_(10**12)
        side.offset[1:].fill_(-5)
    used.valid.fill_(True)
    found = []
    for batch in (fresh, used):
        batch.fill(rgb, xyz, valid)
        found.append(padded_discrepancy(model, batch, CANDIDATES))
    assert all(map(torch.equal, *found))


def test_a_recorded_step_serves_all_that_fits_and_grows_for_what_does_not() -> None:
    made: list[Again] = []
    model = learned()
    graph = InferenceGraph(model, CANDIDATES, recorder(made))
    assert not graph.recorded
    first = graph.run(*turned(SAMPLES[:1]))
    kept = [item.clone() for item in first[0]]
    for number in (1, 2, 0):
        assert_same(graph.run(*turned(SAMPLES[number : number + 1])), model, SAMPLES[number : number + 1])
    assert len(made) == 1
    assert all(map(torch.equal, first[0], kept))  # results are the caller's own
    assert_same(graph.run(*turned(SAMPLES[3:])), model, SAMPLES[3:])
    assert len(made) == 2
    for batch in (SAMPLES[1:], SAMPLES[:2], SAMPLES[:1]):  # batches have buffers of their own
        assert_same(graph.run(*turned(batch)), model, batch)
    assert len(made) == 3
    assert_same(graph.run(*turned(SAMPLES)), model, SAMPLES)
    assert len(made) == 4
    assert graph.recorded


def test_another_threshold_is_recorded_anew() -> None:
    made: list[Again] = []
    model = learned()
    graph = InferenceGraph(model, CANDIDATES, recorder(made))
    graph.run(*turned(SAMPLES[:1]))
    model.theta = -1.0
    assert len(graph.run(*turned(SAMPLES[:1]))[0][1]) == SAMPLES[0][0].pixels
    assert len(made) == 2


def test_where_recording_fails_the_step_runs_op_by_op() -> None:
    def refuse(step: Step) -> tuple[Replayable, Results]:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    model = learned()
    graph = InferenceGraph(model, CANDIDATES, refuse)
    with pytest.warns(UserWarning, match="recording it failed: operation not permitted when stream is"):
        assert_same(graph.run(*turned(SAMPLES[:2])), model, SAMPLES[:2])
    assert_same(graph.run(*turned(SAMPLES[:1])), model, SAMPLES[:1])
    assert not graph.recorded


def test_sizes() -> None:
    needed = Sizes.of(*turned(SAMPLES[:2]))
    assert needed[:3] == (SIDE, SIDE, 2)
    assert needed.rows == int(SAMPLES[0][2].sum() + SAMPLES[1][2].sum())
    assert (needed.rgb_tokens, needed.xyz_tokens) == (61, 50)
    grown = needed.grown()
    assert grown.hold(needed)
    assert not needed.hold(grown)
    assert grown.rows <= 2 * SIDE * SIDE
    assert not grown.hold(needed._replace(height=SIDE + 1))
    larger = needed._replace(rows=1, images=7, xyz_entries=10**5).grown(grown)
    assert larger.rows == grown.rows
    assert larger.images == 7
    assert larger.xyz_entries > 10**5


def flat_step(model: Learned, sizes: Sizes) -> Callable[..., Results]:
    """The step as a function of the tensors of its batch."""

    def step(*tensors: Tensor) -> Results:
        batch = PaddedBatch.__new__(PaddedBatch)
        batch.sizes = sizes
        batch.rgb, batch.xyz = Interpolated(*tensors[:4]), Interpolated(*tensors[4:8])
        batch.valid, batch.count = tensors[8:]
        return padded_discrepancy(model, batch, CANDIDATES)

    return step


def test_no_value_is_looked_at() -> None:
    """A full graph of torch.compile has no room for one: reading a number would break it."""
    model, inputs = learned(), turned(SAMPLES[:2])
    batch = PaddedBatch(Sizes.of(*inputs).grown(), model.widths, torch.device("cpu"))
    batch.fill(*inputs)
    tensors = *batch.rgb, *batch.xyz, batch.valid, batch.count
    expected = padded_discrepancy(model, batch, CANDIDATES)
    compiled = torch.compile(flat_step(model, batch.sizes), fullgraph=True, backend="aot_eager")
    assert all(map(torch.equal, compiled(*tensors), expected))


def through_cuda_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ops of the step run the CUDA kernels' sources, on a stream that refuses to be waited for."""
    loader.ready()
    monkeypatch.setenv("CFR_EMULATED_CAPTURE", "1")
    counts = {"interpolate_tokens": 6, "geglu_map": 8, "topk_interpolated": 8, "topk_attention": 6}
    for name, wanted in (counts | {"replace_and_score": 14, "confidence_filter_padded": 4}).items():
        kernel = getattr(emulated.ops(), f"{name}_cuda")

        def run(*arguments: Any, kernel: Any = kernel, wanted: int = wanted) -> Any:
            return kernel(*arguments, *[None] * (wanted - len(arguments)), 0)

        monkeypatch.setattr(torch.ops.cfr_fast, name, run)


@pytest.mark.parametrize("chosen", [[0], [2], [0, 2, 1]])
def test_the_cuda_sources_find_the_same_and_wait_for_nothing(
    chosen: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, samples = learned(), [SAMPLES[number] for number in chosen]
    expected = [model.discrepancy(*one, SETTINGS) for one in samples]
    through_cuda_sources(monkeypatch)
    got = InferenceGraph(model, CANDIDATES).run(*turned(samples))
    for found, (maps, rows) in zip(got, expected, strict=True):
        assert torch.equal(found[1], rows)
        torch.testing.assert_close(found[0], maps, rtol=1e-5, atol=1e-5)


def test_the_filter_in_shapes_of_the_data_does_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    query, bank = randn(9, 12), randn(7, 12, seed=1)
    run = emulated.ops().confidence_filter_cuda
    assert len(run(query, bank, -1.0, None, 0)) == 9
    monkeypatch.setenv("CFR_EMULATED_CAPTURE", "1")
    with pytest.raises(RuntimeError, match="number: wait"):
        run(query, bank, -1.0, None, 0)


def there(samples: list[Input]) -> list[Input]:
    return [
        (*(Interpolated(*(part.cuda() for part in side)) for side in one[:2]), one[2].cuda())  # type: ignore[misc]
        for one in samples
    ]


@needs_gpu
def test_a_cuda_graph_finds_the_same() -> None:
    model, here = learned(device="cuda"), learned()
    assert InferenceGraph.serves(model, SETTINGS)
    graph = InferenceGraph(model, CANDIDATES)
    for chosen in ([0], [1], [2], [3], [0, 1], [2, 0, 3], [0]):
        samples = [SAMPLES[number] for number in chosen]
        got = graph.run(*turned(there(samples)))
        again = graph.run(*turned(there(samples)))
        for found, second, one in zip(got, again, samples, strict=True):
            maps, rows = here.discrepancy(*one, SETTINGS)
            assert torch.equal(found[1].cpu(), rows)
            assert all(map(torch.equal, found, second))
            torch.testing.assert_close(found[0].cpu(), maps, rtol=1e-4, atol=1e-4)
    assert graph.recorded


@needs_gpu
def test_on_a_gpu_the_step_waits_for_nothing() -> None:
    model, inputs = learned(device="cuda"), turned(there(SAMPLES[:2]))
    batch = PaddedBatch(Sizes.of(*inputs).grown(), model.widths, torch.device("cuda"))
    batch.fill(*inputs)
    padded_discrepancy(model, batch, CANDIDATES)
    torch.cuda.set_sync_debug_mode("error")
    try:
        batch.fill(*inputs)
        padded_discrepancy(model, batch, CANDIDATES)
    finally:
        torch.cuda.set_sync_debug_mode("default")

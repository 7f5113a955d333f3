"""Single stages against what the authors' scripts computed (skipped where those outputs are absent)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from cfr_fast import ops
from cfr_fast.mappers import CyclicMappers, GeGLUMapper
from cfr_fast.memory import KeyValueBank, coreset_from
from cfr_fast.ops import Interpolated
from cfr_fast.retriever import AttentionRetriever, find_candidates


@pytest.fixture(scope="module")
def units(golden: Path) -> dict[str, Tensor]:
    return load_file(golden / "units.safetensors")


def part(units: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in units.items() if name.startswith(prefix)}


def test_retrieval(units: dict[str, Tensor]) -> None:
    got = part(units, "retrieve.")
    similarity, index = ops.topk_cosine(got["query"], got["keys"], 3)
    torch.testing.assert_close(similarity, got["scores"], rtol=0, atol=1e-6)
    assert torch.equal(got["values"][index], got["topk_values"])


@pytest.mark.parametrize("normalize_qk", [False, True])
@pytest.mark.parametrize("form", ["pairs", "full", "top5"])
def test_attention(units: dict[str, Tensor], normalize_qk: bool, form: str) -> None:
    got, wanted = part(units, "retrieve."), part(units, f"attention{int(normalize_qk)}.")
    retriever = AttentionRetriever(96, 64, width=48, normalize_qk=normalize_qk)
    retriever.load_state_dict({name: value for name, value in wanted.items() if "proj" in name})
    bank, query = KeyValueBank(got["keys"], got["values"]), Interpolated.of(got["query"])
    if form == "pairs":
        output = retriever(query, bank, find_candidates(query, bank, 3))
    else:
        output = retriever.attend_bank(query, bank, top=5 if form == "top5" else None)
    torch.testing.assert_close(output, wanted[form], rtol=1e-5, atol=1e-6)


def test_mapper_losses_over_adam_steps(units: dict[str, Tensor]) -> None:
    pair = CyclicMappers(64, 96)
    pair.rgb_to_xyz, pair.xyz_to_rgb = GeGLUMapper(64, 96), GeGLUMapper(96, 64)
    pair.rgb_to_xyz.load_state_dict(part(units, "mapper2Dto3D."))
    pair.xyz_to_rgb.load_state_dict(part(units, "mapper3Dto2D."))
    valid = units["mapper.xyz"].sum(dim=1) != 0
    rgb, xyz = (Interpolated.of(units[f"mapper.{kind}"][valid]) for kind in ("rgb", "xyz"))
    optimizer = torch.optim.Adam(pair.parameters())
    for wanted in units["mapper.loss_2Dto3D_3Dto2D_2Dcycle_3Dcycle_per_adam_step"]:
        optimizer.zero_grad()
        losses = pair.accumulate(rgb, xyz)
        torch.testing.assert_close(losses, wanted, rtol=0, atol=1e-5)
        optimizer.step()


def test_coreset_order(units: dict[str, Tensor]) -> None:
    picks = coreset_from(units["coreset.features"], units["coreset.start"], 150)
    assert torch.equal(picks, units["coreset.index"])


def test_points(units: dict[str, Tensor]) -> None:
    got = part(units, "points.")
    xyz = got["xyz"]
    picks = ops.farthest_point_sample(xyz, 64)
    assert torch.equal(picks, got["center_index"])
    centers = xyz[picks]
    neighbours = ops.knn(xyz, centers, 32)
    distance, wanted = (
        (xyz[index] - centers[:, None]).norm(dim=2) for index in (neighbours, got["group_index"])
    )
    torch.testing.assert_close(distance, wanted.sort(dim=1).values, rtol=1e-4, atol=1e-6)
    index, weight = ops.three_nn(xyz, centers)
    interpolated = (got["tokens"].T[index] * weight[..., None]).sum(dim=1).T
    torch.testing.assert_close(interpolated, got["interpolated"], rtol=0, atol=1e-3)

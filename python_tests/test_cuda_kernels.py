"""The CUDA kernels' own sources, run on the CPU: indices, tails, merges and barriers; not races."""

from __future__ import annotations

import subprocess
from pathlib import Path

import emulated
import pytest
import torch
from tolerances import TOLERANCE

from cfr_fast.ops import _build, reference


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("n", "m", "d", "k"), [(1, 1, 1, 1), (63, 65, 33, 3), (64, 64, 16, 32), (65, 130, 17, 5), (3, 200, 40, 1)]
)
def test_topk_cosine(n: int, m: int, d: int, k: int) -> None:
    query, keys = randn(n, d), randn(m, d, seed=1)
    similarity, index = emulated.ops().topk_cosine_cuda(query, keys, k, "bf16", 0)
    wanted, rows = reference.topk_cosine(query.double(), keys.double(), k)
    torch.testing.assert_close(similarity.double(), wanted, **TOLERANCE["topk_cosine"])
    assert torch.equal(index, rows)


PROBE = """
#include <cuda_runtime.h>
#include <cstdio>
static int out[64];
// Half the lanes shuffle among themselves while the other half does something else.
void divergent() {
  const int lane = threadIdx.x % 32;
  int value = lane;
  if (lane < 16) value += __shfl_xor_sync(0xffffu, value, 1);
  else value += 2 * __shfl_xor_sync(0xffff0000u, value, 1);
  __syncthreads();
  out[threadIdx.x] = value;
}
void lopsided() {
  if (threadIdx.x < 32) __syncthreads(); else __syncwarp();
  if (threadIdx.x < 32) __syncwarp();
}
void stuck() { if (threadIdx.x == 0) __syncwarp(3); else if (threadIdx.x > 1) __syncthreads(); else return; }
int main() {
  emulation::launch(dim3(1), dim3(64), 0, divergent);
  for (int i = 0; i < 64; ++i) {
    const int lane = i % 32, wanted = lane < 16 ? lane + (lane ^ 1) : lane + 2 * (lane ^ 1);
    if (out[i] != wanted) return 1;
  }
  emulation::launch(dim3(1), dim3(64), 0, lopsided);
  try {
    emulation::launch(dim3(1), dim3(64), 0, stuck);
  } catch (const std::exception& error) {
    std::puts(error.what());
    return 0;
  }
  return 2;
}
"""


def test_the_emulation_itself(tmp_path: Path) -> None:
    """Lanes that diverge exchange the right values, and a barrier that cannot be passed is reported."""
    source, program = tmp_path / "probe.cpp", tmp_path / "probe"
    source.write_text(PROBE)
    command = [*_build.find_cxx(), "-std=c++17", "-I", str(emulated.HEADERS), str(source), "-o", str(program)]
    subprocess.run(command, check=True)
    done = subprocess.run([program], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "threads wait for each other at different barriers")

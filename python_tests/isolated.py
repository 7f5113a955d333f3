"""Run an op in a fresh process that sees one copy of the package, one cache and one environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SCRIPT = """
import json, sys, warnings
import torch
from cfr_fast.ops import loader, reference, topk_cosine

query, keys = torch.randn(50, 40), torch.randn(300, 40)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    similarity, index = topk_cosine(query, keys, 3)
    topk_cosine(query, keys, 1)
expected, rows = reference.topk_cosine(query.double(), keys.double(), 3)
row = next(row for row in loader.status() if row.op == "topk_cosine")
library = loader.load()
report = {
    "right": torch.allclose(similarity.double(), expected, atol=1e-6) and torch.equal(index, rows),
    "warnings": [str(w.message) for w in caught if issubclass(w.category, RuntimeWarning)],
    "backend": row.backend,
    "reason": row.reason,
    "cuda": row.cuda,
    "path": str(library.path) if library else "",
    "package": loader.__file__,
}
print(json.dumps(report))
"""


@dataclass(frozen=True)
class Outcome:
    """What an op did in the fresh process."""

    right: bool
    warnings: list[str]
    backend: str
    reason: str
    cuda: bool
    path: str
    package: str


def run_op(folder: Path, cache: Path, **environment: str) -> Outcome:
    """Call topk_cosine in a new process that imports cfr_fast from `folder`."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("CFR_FAST_")}
    variables |= {
        "PYTHONPATH": str(folder),
        "CFR_FAST_CACHE": str(cache),
        "CFR_FAST_CUDA": "0",
        **environment,
    }
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(
        command, env=variables, cwd=cache.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    outcome = Outcome(**json.loads(done.stdout))
    assert Path(outcome.package).is_relative_to(folder.resolve())
    return outcome

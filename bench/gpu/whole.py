"""The whole model on a device: every preset fitted there, and judged against the same model on the processor.

Frozen networks have random weights, on which neither speed nor agreement depends.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from cfr_fast import CFR
from cfr_fast.benchmark.paper import replace_a_quarter
from cfr_fast.data import Sample
from cfr_fast.data.synthetic import load_category

EXACT: dict[str, Any] = {"weights": "random", "autocast": False}
RANDOM: dict[str, Any] = {"rgb_options": EXACT, "xyz_options": {"weights": "random"}}
PRESETS: dict[str, dict[str, Any]] = {
    "classic": {},
    "embedded": {"rgb_options": {"autocast": False}},
    "paper-mvtec3d": RANDOM,
    "paper-mvtec3d, a batch of 8": RANDOM,
}
AGREE = 1e-3
"""Maps of device and processor may differ by this share of their maximum, on 99 % of the part's pixels; where
rounding decides on θ or on a neighbour, by more."""


def samples(size: int) -> list[Sample]:
    """A normal part and others of its kind."""
    category = load_category("candy_cane", size=size)
    return [source.load() for source in (*category.train[:1], *category.test[:8])]


def timed(call: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    """Seconds of the wall clock, and what came of it."""
    start = time.perf_counter()
    found = call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start, found


def run(name: str, device: torch.device, tiny: bool) -> dict[str, Any]:
    """Seconds of fit and predict, and how far maps and scores are from the processor's."""
    changes = dict(PRESETS[name])
    if tiny:
        changes |= {"mapper_epochs": 1, "attention_epochs": 1, "size": 56}
    preset, _, batched = name.partition(", ")
    shot, *others = samples(96 if tiny else 400)
    model = CFR.preset(preset, device=str(device), progress=False, **changes)
    fit, _ = timed(lambda: model.fit(shot), device)
    again, _ = timed(lambda: model.fit(shot), device)
    if preset.startswith("paper"):  # with random weights every pixel may be reliable
        replace_a_quarter(model, shot)
    if batched:
        judge = lambda: list(model.predict_many(others, 8))  # noqa: E731
        rounds, share = 4, len(others)
    else:
        judge = lambda: model.predict(others[0])  # noqa: E731
        rounds, share = (2, 1) if tiny else (9, 1)
    timed(judge, device)
    predict = median(timed(judge, device)[0] for _ in range(rounds)) / share
    results = list(model.predict_many(others[:2], 2 if batched else 1))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        model.save(path)
        there = CFR.load(path, device="cpu", progress=False)
    wanted = [there.predict(other) for other in others[:2]]
    most, largest, scores = [], [], []
    for got, want in zip(results, wanted, strict=True):
        differ = np.abs(got.localization_map - want.localization_map) / want.localization_map.max()
        most.append(float(np.quantile(differ[want.localization_map > 0], 0.99)))
        largest.append(float(differ.max()))
        scores.append(abs(got.score - want.score) / abs(want.score))
    memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return {
        "what": name,
        "seconds": {"first fit": fit, "fit": again, "predict": predict},
        "differences": {"99 %": max(most), "largest": max(largest), "score": max(scores)},
        "device_bytes": memory,
        "disagreement": "" if max(most) <= AGREE and max(scores) <= 0.01 else "maps or scores differ",
    }

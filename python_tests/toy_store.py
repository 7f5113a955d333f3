"""A small results folder whose every figure is known: round parts, square defects, maps made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cfr_fast.evaluation import CategoryResult, Evidence, ImageRow, Images, RunKey, Store, aupro, image_auroc
from cfr_fast.evaluation.no_model import mask_map, random_map, random_score
from cfr_fast.evaluation.results import LIMITS, MASK_ONLY, METRICS, RANDOM, WITH_INTERVAL, aupro_key

SIZE = 24
THRESHOLD = 1.0
NASTY = "</script><b>&\"'$1 é"  # what a page must not stumble over
CATEGORIES = ("bagel", f"odd {NASTY.replace('/', '')}")
METHODS = ("CFR", "CFM")
GOOD, RED, CUT = 3, 2, 2


def write_toy_store(folder: Path, *, kept: bool = True, seeds=(0, 1), shots=(1, 2), methods=METHODS) -> Store:
    """Two categories; maps of the first seed are kept. "CFR" finds every defect but one, "CFM" is noise."""
    store = Store(folder)
    store.write_record(
        {"dataset": "toys & more", "methods": list(methods), "versions": {"torch": "9.8.7"}, "rule": "rng42"}
    )
    for category in CATEGORIES:
        images = toy_images(category)
        if kept:
            store.write_images(category, images)
        for method in methods:
            for count in shots:
                for seed in seeds:
                    key = RunKey(category, method, count, seed)
                    evidence = toy_evidence(key, images)
                    store.write_result(key, toy_result(key, images, evidence))
                    if kept and seed == seeds[0]:
                        store.write_evidence(key, evidence)
    return store


def toy_images(category: str) -> Images:
    names = [f"test/good/{i:03d}" for i in range(GOOD)]
    names += [f"test/red/{i:03d}" for i in range(RED)] + [f"test/{NASTY}/{i:03d}" for i in range(CUT)]
    rng = np.random.default_rng(len(category))
    count, part = len(names), disc()
    rgb = rng.integers(90, 130, (count, SIZE, SIZE, 3), dtype=np.uint8)
    depth = np.where(part, 0.4 + 0.01 * rng.random((count, SIZE, SIZE)), 0).astype(np.float16)
    truth = np.zeros((count, SIZE, SIZE), np.uint8)
    for index in range(GOOD, count):
        y, x = rng.integers(7, 12, 2)
        truth[index, y : y + 5, x : x + 5] = 1
    rgb[truth == 1] = (210, 40, 30)
    return Images(tuple(names), rgb, depth, truth)


def toy_evidence(key: RunKey, images: Images) -> Evidence:
    rng = np.random.default_rng([key.shots, key.seed, len(key.method + key.category), ord(key.method[-1])])
    noise = 0.3 * rng.random(images.truth.shape)
    strength = np.linspace(-0.8, 2.0, len(images.names))[:, None, None] if key.method == "CFR" else 0.0
    scores = np.where(disc(), 0.05 + noise + strength * (images.truth == 1), 0)
    scores[0, 12, 12] = 1.5  # a false alarm
    valid = np.broadcast_to(disc(), scores.shape)
    replaced = (noise > 0.25) & valid & (key.method == "CFR")
    return Evidence(
        names=images.names,
        map=scores.astype(np.float16),
        score_map=scores.astype(np.float16),
        replaced=replaced.astype(np.uint8),
        valid=valid.astype(np.uint8),
        threshold=THRESHOLD,
        pixel_threshold=0.5,
    )


def toy_result(key: RunKey, images: Images, evidence: Evidence) -> CategoryResult:
    scores = evidence.score_map.max(axis=(1, 2)).astype(float)
    rows = tuple(
        ImageRow(name, name.removeprefix("test/")[:-4], score, THRESHOLD, score > THRESHOLD, 0.25)
        for name, score in zip(images.names, scores.tolist(), strict=True)
    )
    anomalous = [row.anomalous for row in rows]
    metrics = {}
    noise = [
        random_map(valid, key.category, name, key.seed)
        for valid, name in zip(evidence.valid, images.names, strict=True)
    ]
    for method, maps, own in (
        (key.method, evidence.map.astype(np.float32), scores),
        (MASK_ONLY, mask_map(evidence.valid), scores * 0),
        (RANDOM, noise, [random_score(key.category, name, key.seed) for name in images.names]),
    ):
        row = dict.fromkeys(METRICS, float("nan"))
        row |= {"i_auroc": image_auroc(own, anomalous), "p_auroc": 0.9}
        for limit in LIMITS:
            row[aupro_key(limit, None)] = aupro(maps, images.truth, limit)
        metrics[method] = row
    labels = np.array([row.label for row in rows])
    metrics[key.method] |= {
        "detection_rate": labels[anomalous].mean().item(),
        "false_alarm_rate": labels[:GOOD].mean().item(),
    }
    floor = metrics[MASK_ONLY]
    gains = {name: metrics[key.method][name] - floor[name] for name in WITH_INTERVAL}
    return CategoryResult(
        dataset="toys & more",
        category=key.category,
        shots=key.shots,
        seed=key.seed,
        rule="rng42",
        training_samples=("train/good/000",),
        size=SIZE,
        normal=GOOD,
        anomalous=RED + CUT,
        metrics=metrics,
        fit_seconds=1.0,
        predict_seconds=0.1,
        images=rows,
        intervals={
            method: {name: (row[name] - 0.2, row[name] + 0.1) for name in WITH_INTERVAL}
            for method, row in metrics.items()
        },
        gains={name: (gain - 0.1, gain + 0.1) for name, gain in gains.items()},
    )


def disc() -> np.ndarray:
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    return y**2 + x**2 < (SIZE / 2 - 2) ** 2

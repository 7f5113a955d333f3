"""All races by name."""

from __future__ import annotations

from collections.abc import Callable

from cfr_fast.benchmark import kernels, metrics, pipeline
from cfr_fast.benchmark.race import Race

RACES: dict[str, Callable[[], Race]] = {
    "topk": lambda: kernels.topk_cosine(8192, 5017, 3),
    "topk-4-shots": lambda: kernels.topk_cosine(4096, 20070, 3),
    "topk-smooth": lambda: kernels.topk_cosine(8192, 5017, 3, "smooth"),
    "filter-smooth": lambda: kernels.confidence_filter("smooth"),
    "filter-noisy": lambda: kernels.confidence_filter("noisy"),
    "filter-random": lambda: kernels.confidence_filter("random"),
    "topk-attention": lambda: kernels.topk_attention(768, gradients=False),
    "topk-attention-training": lambda: kernels.topk_attention(128, gradients=True),
    "bank-attention": lambda: kernels.bank_attention(768, gradients=False),
    "bank-attention-training": lambda: kernels.bank_attention(128, gradients=True),
    "score": kernels.replace_and_score,
    "coreset-smooth": lambda: kernels.coreset("smooth"),
    "coreset-normal": lambda: kernels.coreset("normal"),
    "three-nn": kernels.three_nn,
    "knn": kernels.knn,
    "aupro": metrics.aupro,
    "aupro-whole": metrics.aupro_whole,
    "aupro-whole-memory": metrics.aupro_whole_memory,
    "predict": pipeline.predict,
    "predict-memory": pipeline.predict_memory,
    "mapper-epoch": pipeline.mapper_epoch,
    "fit": pipeline.fit,
}
SLOW = (
    "aupro-whole",
    "aupro-whole-memory",
    "coreset-smooth",
    "coreset-normal",
    "mapper-epoch",
    "fit",
)  # minutes each, nearly all of them the peers'

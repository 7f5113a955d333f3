"""Typed tensor operations: native kernels with a plain-PyTorch reference each."""

from cfr_fast.ops.bank_attention import bank_attention
from cfr_fast.ops.confidence_filter import confidence_filter
from cfr_fast.ops.farthest_point_sample import farthest_point_sample
from cfr_fast.ops.knn import knn
from cfr_fast.ops.replace_and_score import replace_and_score
from cfr_fast.ops.three_nn import three_nn
from cfr_fast.ops.topk_attention import topk_attention
from cfr_fast.ops.topk_cosine import topk_cosine

__all__ = [
    "bank_attention",
    "confidence_filter",
    "farthest_point_sample",
    "knn",
    "replace_and_score",
    "three_nn",
    "topk_attention",
    "topk_cosine",
]

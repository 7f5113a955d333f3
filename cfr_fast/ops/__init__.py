"""Typed tensor operations: native kernels with a plain-PyTorch reference each."""

from cfr_fast.ops.farthest_point_sample import farthest_point_sample
from cfr_fast.ops.functional import (
    bank_attention,
    confidence_filter,
    replace_and_score,
    topk_attention,
)
from cfr_fast.ops.knn import knn
from cfr_fast.ops.three_nn import three_nn
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

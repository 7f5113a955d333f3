"""Typed tensor operations: native kernels with a plain-PyTorch reference each."""

from cfr_fast.ops.bank_attention import bank_attention
from cfr_fast.ops.confidence_filter import confidence_filter, confidence_filter_padded
from cfr_fast.ops.farthest_point_sample import farthest_point_sample
from cfr_fast.ops.geglu_map import geglu_map
from cfr_fast.ops.interpolated import Interpolated, interpolate_tokens
from cfr_fast.ops.knn import knn
from cfr_fast.ops.replace_and_score import replace_and_score
from cfr_fast.ops.three_nn import three_nn
from cfr_fast.ops.topk_attention import topk_attention
from cfr_fast.ops.topk_cosine import topk_cosine
from cfr_fast.ops.topk_interpolated import topk_interpolated

__all__ = [
    "Interpolated",
    "bank_attention",
    "confidence_filter",
    "confidence_filter_padded",
    "farthest_point_sample",
    "geglu_map",
    "interpolate_tokens",
    "knn",
    "replace_and_score",
    "three_nn",
    "topk_attention",
    "topk_cosine",
    "topk_interpolated",
]

"""The one table of how far each op's float32 result may lie from the float64 reference."""

TOLERANCE: dict[str, dict[str, float]] = {
    "topk_cosine": {"rtol": 0, "atol": 6e-7},  # cosines are at most 1: about five units in the last place
    "topk_cosine.gradient": {"rtol": 1e-4, "atol": 1e-6},
    "interpolate_tokens": {"rtol": 1e-6, "atol": 1e-6},  # sums of up to a dozen tokens of size one
    "geglu_map": {"rtol": 1e-5, "atol": 1e-5},  # chains of 1,024 products of size one
    "topk_attention": {"rtol": 2e-6, "atol": 2e-6},  # for logits and values of size one
    "topk_attention.gradient": {"rtol": 1e-5, "atol": 5e-6},  # sums of many terms, whose slopes reach 10
    "bank_attention": {"rtol": 2e-6, "atol": 2e-6},
    "bank_attention.gradient": {"rtol": 1e-5, "atol": 3e-6},
    "bank_attention.exponential": {"rtol": 2.5e-7, "atol": 0},  # the exponential, a sum and a division
    "resampled_areas": {"rtol": 0, "atol": 1e-6},  # shares of regions are kept as float32
    "resampled_areas.levels": {"rtol": 0, "atol": 2e-3},  # scores rounded down to 512 levels
    "resampled_areas.grid": {"rtol": 0, "atol": 2e-2},  # and a quarter of the pixels counted, 20,000 in all
    # Shares of the softmax, each rounded once, and a sum; against one process and against float64 alike.
    "sharded.bank_attention": {"rtol": 2e-6, "atol": 2e-6},
    "replace_and_score": {"rtol": 2e-6, "atol": 6e-7},  # a product of two discrepancies, each at most 2
}

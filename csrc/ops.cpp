// Every op's schema, its argument checks and the kernel behind it.
//
// Fake implementations and gradients live in Python (cfr_fast/ops). CUDA kernels take the stream as an integer,
// which Python reads when the kernel runs: the stable ABI of torch 2.11 has no handle for it.
#include <optional>
#include <tuple>

#include "common.h"

namespace cfr {
namespace {

void check_topk_cosine(const Tensor& query, const Tensor& keys, int64_t k) {
  const char* op = "topk_cosine";
  check_float_matrix(op, "query", query);
  check_float_matrix(op, "keys", keys);
  check_same_device(op, "keys", keys, query);
  CFR_CHECK(keys.size(1) == query.size(1), op, "keys", "as many columns as query", shape_of(keys));
  CFR_CHECK(k >= 0 && k <= keys.size(0), op, "k", "0 to the number of keys", k);
  CFR_CHECK(k <= kMaxTopk, op, "k", "at most 32", k);
}

std::tuple<Tensor, Tensor> topk_cosine(const Tensor& query, const Tensor& keys, int64_t k) {
  check_topk_cosine(query, keys, k);
  const Tensor similarity = empty_like_device(query, query.size(0), k, ScalarType::Float);
  const Tensor index = empty_like_device(query, query.size(0), k, ScalarType::Long);
  if (index.numel() > 0) {
    const Tensor q = with_contiguous_rows(query), b = with_contiguous_rows(keys);
    cpu::topk_cosine(rows_of(q), rows_of(b), k, similarity.mutable_data_ptr<float>(),
                     index.mutable_data_ptr<int64_t>());
  }
  return {similarity, index};
}

#ifdef CFR_FAST_CUDA
std::tuple<Tensor, Tensor> topk_cosine_cuda(const Tensor& query, const Tensor& keys, int64_t k,
                                            int64_t stream) {
  check_topk_cosine(query, keys, k);
  const Tensor similarity = empty_like_device(query, query.size(0), k, ScalarType::Float);
  const Tensor index = empty_like_device(query, query.size(0), k, ScalarType::Long);
  if (index.numel() > 0) {
    const Tensor q = with_contiguous_rows(query), b = with_contiguous_rows(keys);
    const Tensor scratch = empty_like_device(query, 1, query.size(0) + keys.size(0), ScalarType::Float);
    cuda::topk_cosine(rows_of(q), rows_of(b), k, scratch.mutable_data_ptr<float>(),
                      similarity.mutable_data_ptr<float>(), index.mutable_data_ptr<int64_t>(),
                      query.get_device_index(), reinterpret_cast<void*>(stream));
  }
  return {similarity, index};
}
#endif

Tensor confidence_filter(const Tensor& query, const Tensor& bank, double threshold,
                         const std::optional<Tensor>& valid) {
  const char* op = "confidence_filter";
  check_float_matrix(op, "query", query);
  check_float_matrix(op, "bank", bank);
  check_same_device(op, "bank", bank, query);
  CFR_CHECK(bank.size(1) == query.size(1), op, "bank", "as many columns as query", shape_of(bank));
  CFR_CHECK(threshold == threshold, op, "threshold", "a cosine distance", "NaN");
  std::optional<Tensor> mask;
  if (valid) {
    check_mask(op, "valid", *valid);
    check_same_device(op, "valid", *valid, query);
    const bool fits = valid->dim() == 1 && valid->size(0) == query.size(0);
    CFR_CHECK(fits, op, "valid", "one element a row of query", shape_of(*valid));
    mask = torch::stable::contiguous(*valid);
  }
  const int64_t rows = query.size(0);
  const Tensor reliable = torch::stable::empty({rows}, ScalarType::Bool, std::nullopt, query.device());
  bool* flags = reliable.mutable_data_ptr<bool>();
  const bool* among = mask ? mask->const_data_ptr<bool>() : nullptr;
  const Tensor q = with_contiguous_rows(query), b = with_contiguous_rows(bank);
  cpu::confidence_filter(rows_of(q), rows_of(b), threshold, among, flags);

  const auto kept = [&](int64_t row) { return !flags[row] && (!among || among[row]); };
  int64_t count = 0;
  for (int64_t row = 0; row < rows; ++row) count += kept(row);
  const Tensor result = torch::stable::empty({count}, ScalarType::Long, std::nullopt, query.device());
  int64_t* out = result.mutable_data_ptr<int64_t>();
  for (int64_t row = 0; row < rows; ++row)
    if (kept(row)) *out++ = row;
  return result;
}

}  // namespace
}  // namespace cfr

STABLE_TORCH_LIBRARY(cfr_fast, m) {
  m.def("topk_cosine(Tensor query, Tensor keys, int k) -> (Tensor, Tensor)");
  m.def("confidence_filter(Tensor query, Tensor bank, float threshold, Tensor? valid=None) -> Tensor");
#ifdef CFR_FAST_CUDA
  m.def("topk_cosine_cuda(Tensor query, Tensor keys, int k, int stream) -> (Tensor, Tensor)");
#endif
}

STABLE_TORCH_LIBRARY_IMPL(cfr_fast, CPU, m) {
  m.impl("topk_cosine", TORCH_BOX(&cfr::topk_cosine));
  m.impl("confidence_filter", TORCH_BOX(&cfr::confidence_filter));
}

#ifdef CFR_FAST_CUDA
STABLE_TORCH_LIBRARY_IMPL(cfr_fast, CUDA, m) {
  m.impl("topk_cosine_cuda", TORCH_BOX(&cfr::topk_cosine_cuda));
}
#endif

// The searches of a bank by cosine: argument checks and the kernels behind them. ops.cpp registers them.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <tuple>

#include "common.h"

namespace cfr {
namespace {

void check_topk_cosine(const Tensor& query, const Tensor& keys, int64_t k, const std::string& precision) {
  const char* op = "topk_cosine";
  check_float_matrix(op, "query", query);
  check_float_matrix(op, "keys", keys);
  check_same_device(op, "keys", keys, query);
  CFR_CHECK(keys.size(1) == query.size(1), op, "keys", "as many columns as query", shape_of(keys));
  CFR_CHECK(k >= 0 && k <= keys.size(0), op, "k", "0 to the number of keys", k);
  CFR_CHECK(k <= kMaxTopk, op, "k", "at most 32", k);
  CFR_CHECK(precision == "bf16" || precision == "tf32", op, "precision", "bf16 or tf32", precision);
}

std::tuple<Tensor, Tensor> topk_cosine(const Tensor& query, const Tensor& keys, int64_t k, std::string precision) {
  check_topk_cosine(query, keys, k, precision);
  const Tensor similarity = empty_like_device(query, query.size(0), k, ScalarType::Float);
  const Tensor index = empty_like_device(query, query.size(0), k, ScalarType::Long);
  if (index.numel() > 0) {
    const Tensor q = with_contiguous_rows(query), b = with_contiguous_rows(keys);
    cpu::topk_cosine(rows_of(q), rows_of(b), k, similarity.mutable_data_ptr<float>(),
                     index.mutable_data_ptr<int64_t>());
  }
  return {similarity, index};
}

// The mask, contiguous, where there is one.
std::optional<Tensor> check_confidence_filter(const Tensor& query, const Tensor& bank, double threshold,
                                              const std::optional<Tensor>& valid) {
  const char* op = "confidence_filter";
  check_float_matrix(op, "query", query);
  check_float_matrix(op, "bank", bank);
  check_same_device(op, "bank", bank, query);
  CFR_CHECK(bank.size(1) == query.size(1), op, "bank", "as many columns as query", shape_of(bank));
  CFR_CHECK(threshold == threshold, op, "threshold", "a cosine distance", "NaN");
  if (!valid) return std::nullopt;
  check_mask(op, "valid", *valid);
  check_same_device(op, "valid", *valid, query);
  const bool fits = valid->dim() == 1 && valid->size(0) == query.size(0);
  CFR_CHECK(fits, op, "valid", "one element a row of query", shape_of(*valid));
  return torch::stable::contiguous(*valid);
}

Tensor numbers_like_device(const Tensor& like, int64_t count) {
  return torch::stable::empty({count}, ScalarType::Long, std::nullopt, like.device());
}

// The rows without a near one, ascending, zeros behind them, and their number.
std::tuple<Tensor, Tensor> confidence_filter_padded(const Tensor& query, const Tensor& bank, double threshold,
                                                    const std::optional<Tensor>& valid) {
  const std::optional<Tensor> mask = check_confidence_filter(query, bank, threshold, valid);
  const int64_t rows = query.size(0);
  const Tensor reliable = torch::stable::empty({rows}, ScalarType::Bool, std::nullopt, query.device());
  bool* flags = reliable.mutable_data_ptr<bool>();
  const bool* among = mask ? mask->const_data_ptr<bool>() : nullptr;
  const Tensor q = with_contiguous_rows(query), b = with_contiguous_rows(bank);
  cpu::confidence_filter(rows_of(q), rows_of(b), threshold, among, flags);

  const Tensor index = numbers_like_device(query, rows), count = numbers_like_device(query, 1);
  int64_t* const begin = index.mutable_data_ptr<int64_t>();
  int64_t* out = begin;
  for (int64_t row = 0; row < rows; ++row)
    if (!flags[row] && (!among || among[row])) *out++ = row;
  std::fill(out, begin + rows, 0);
  *count.mutable_data_ptr<int64_t>() = out - begin;
  return {index, count};
}

Tensor confidence_filter(const Tensor& query, const Tensor& bank, double threshold,
                         const std::optional<Tensor>& valid) {
  auto [index, count] = confidence_filter_padded(query, bank, threshold, valid);
  return torch::stable::narrow(index, 0, 0, *count.const_data_ptr<int64_t>());
}

#ifdef CFR_FAST_CUDA
// Row numbers are 32 bits wide on the device, up to the end of the last tile.
void check_few_rows(const char* op, const char* argument, const Tensor& tensor) {
  CFR_CHECK(tensor.size(0) < INT32_MAX - 512, op, argument, "fewer than 2^31 - 513 rows on CUDA", shape_of(tensor));
}

std::tuple<Tensor, Tensor> topk_cosine_cuda(const Tensor& query, const Tensor& keys, int64_t k, std::string precision,
                                            int64_t stream) {
  check_topk_cosine(query, keys, k, precision);
  check_few_rows("topk_cosine", "query", query);
  check_few_rows("topk_cosine", "keys", keys);
  const Tensor similarity = empty_like_device(query, query.size(0), k, ScalarType::Float);
  const Tensor index = empty_like_device(query, query.size(0), k, ScalarType::Long);
  if (index.numel() > 0) {
    const Tensor q = with_contiguous_rows(query), b = with_contiguous_rows(keys);
    const int device = query.get_device_index();
    const Precision of_products = precision == "tf32" ? Precision::tf32 : Precision::bf16;
    const int64_t bytes = cuda::topk_cosine_scratch(rows_of(q), rows_of(b), k, of_products, device);
    const Tensor scratch = bytes_like_device(query, bytes);
    cuda::topk_cosine(rows_of(q), rows_of(b), k, of_products, scratch.mutable_data_ptr(),
                      similarity.mutable_data_ptr<float>(), index.mutable_data_ptr<int64_t>(), device,
                      reinterpret_cast<void*>(stream));
  }
  return {similarity, index};
}

std::tuple<Tensor, Tensor> confidence_filter_padded_cuda(const Tensor& query, const Tensor& bank, double threshold,
                                                         const std::optional<Tensor>& valid, int64_t stream) {
  const std::optional<Tensor> mask = check_confidence_filter(query, bank, threshold, valid);
  check_few_rows("confidence_filter", "query", query);
  check_few_rows("confidence_filter", "bank", bank);
  const Tensor index = numbers_like_device(query, query.size(0)), count = numbers_like_device(query, 1);
  const int device = query.get_device_index();
  const Tensor q = with_contiguous_rows(query), b = with_contiguous_rows(bank);
  const Tensor scratch = bytes_like_device(query, cuda::confidence_filter_scratch(rows_of(q), rows_of(b), device));
  const bool* among = mask ? mask->const_data_ptr<bool>() : nullptr;
  cuda::confidence_filter(rows_of(q), rows_of(b), threshold, among, scratch.mutable_data_ptr(),
                          index.mutable_data_ptr<int64_t>(), count.mutable_data_ptr<int64_t>(), device,
                          reinterpret_cast<void*>(stream));
  return {index, count};
}

Tensor confidence_filter_cuda(const Tensor& query, const Tensor& bank, double threshold,
                              const std::optional<Tensor>& valid, int64_t stream) {
  auto [index, count] = confidence_filter_padded_cuda(query, bank, threshold, valid, stream);
  const int64_t rows = cuda::read_number(count.const_data_ptr<int64_t>(), query.get_device_index(),
                                         reinterpret_cast<void*>(stream));
  return torch::stable::narrow(index, 0, 0, rows);
}
#endif

}  // namespace
}  // namespace cfr

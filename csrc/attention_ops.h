// Attention over a bank: argument checks and the kernels behind it. ops.cpp registers them.
#pragma once

#include <optional>
#include <tuple>

#include "listed_rows.h"

namespace cfr {
namespace {

void check_bank(const char* op, const Tensor& query, const Tensor& keys, const Tensor& values) {
  check_float_matrix(op, "query", query);
  check_float_matrix(op, "keys", keys);
  check_float_matrix(op, "values", values);
  check_same_device(op, "keys", keys, query);
  check_same_device(op, "values", values, query);
  CFR_CHECK(keys.size(1) == query.size(1), op, "keys", "as many columns as query", shape_of(keys));
  CFR_CHECK(values.size(0) == keys.size(0), op, "values", "as many rows as keys", shape_of(values));
}

void check_lists(const char* op, const Tensor& index, const Tensor& query) {
  CFR_CHECK(index.scalar_type() == ScalarType::Long, op, "index", "int64", "another dtype");
  check_same_device(op, "index", index, query);
  const bool fits = index.dim() == 2 && index.size(0) == query.size(0);
  CFR_CHECK(fits, op, "index", "a row for every query", shape_of(index));
}

// `index` as contiguous memory, every number in its first `real` rows a row of `keys`.
Tensor checked_lists(const char* op, const Tensor& index, const Tensor& query, const Tensor& keys, int64_t real) {
  check_lists(op, index, query);
  const Tensor list = torch::stable::contiguous(index);
  const int64_t rows = keys.size(0);
  const int64_t* numbers = list.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < real * list.size(1); ++i)
    CFR_CHECK(numbers[i] >= 0 && numbers[i] < rows, op, "index", "rows of keys", numbers[i]);
  return list;
}

// The first `count` rows of a matrix.
Rows first_rows(Rows matrix, int64_t count) {
  matrix.rows = count;
  return matrix;
}

Tensor topk_attention(const Tensor& query, const Tensor& keys, const Tensor& values, const Tensor& index,
                      double scale, const std::optional<Tensor>& count) {
  const char* op = "topk_attention";
  check_bank(op, query, keys, values);
  const int64_t real = real_rows(op, check_count(op, count, query), query.size(0));
  const Tensor list = checked_lists(op, index, query, keys, real);
  const Tensor out = empty_like_device(query, query.size(0), values.size(1), ScalarType::Float);
  const Tensor q = with_contiguous_rows(query), b = with_contiguous_rows(keys), v = with_contiguous_rows(values);
  const cpu::Lists attention = {first_rows(rows_of(q), real), rows_of(b), rows_of(v), list.const_data_ptr<int64_t>(),
                                list.size(1)};
  cpu::topk_attention(attention, float(scale), out.mutable_data_ptr<float>());
  clear_rows<float>(out, real);
  return out;
}

std::tuple<Tensor, Tensor, Tensor> topk_attention_backward(const Tensor& grad, const Tensor& query,
                                                           const Tensor& keys, const Tensor& values,
                                                           const Tensor& index, double scale,
                                                           const std::optional<Tensor>& count) {
  const char* op = "topk_attention_backward";
  check_bank(op, query, keys, values);
  check_float_matrix(op, "grad", grad);
  check_same_device(op, "grad", grad, query);
  const bool fits = grad.size(0) == query.size(0) && grad.size(1) == values.size(1);
  CFR_CHECK(fits, op, "grad", "a row for every query, a column for every one of values", shape_of(grad));
  const int64_t real = real_rows(op, check_count(op, count, query), query.size(0));
  const Tensor list = checked_lists(op, index, query, keys, real);
  const Tensor grad_query = empty_like_device(query, query.size(0), query.size(1), ScalarType::Float);
  const Tensor grad_keys = empty_like_device(keys, keys.size(0), keys.size(1), ScalarType::Float);
  const Tensor grad_values = empty_like_device(values, values.size(0), values.size(1), ScalarType::Float);
  const Tensor q = with_contiguous_rows(query), b = with_contiguous_rows(keys), v = with_contiguous_rows(values);
  const Tensor g = with_contiguous_rows(grad);
  const cpu::Lists attention = {first_rows(rows_of(q), real), rows_of(b), rows_of(v), list.const_data_ptr<int64_t>(),
                                list.size(1)};
  cpu::topk_attention_backward(attention, float(scale), first_rows(rows_of(g), real),
                               grad_query.mutable_data_ptr<float>(), grad_keys.mutable_data_ptr<float>(),
                               grad_values.mutable_data_ptr<float>());
  clear_rows<float>(grad_query, real);
  return {grad_query, grad_keys, grad_values};
}

void check_bank_attention(const Tensor& query, const Tensor& keys, const Tensor& values) {
  check_bank("bank_attention", query, keys, values);
  CFR_CHECK(keys.size(0) > 0, "bank_attention", "keys", "at least one row", shape_of(keys));
}

Tensor bank_attention(const Tensor& query, const Tensor& keys, const Tensor& values, double scale) {
  check_bank_attention(query, keys, values);
  const Tensor out = empty_like_device(query, query.size(0), values.size(1), ScalarType::Float);
  if (out.numel() > 0) {
    const Tensor q = with_contiguous_rows(query), b = with_contiguous_rows(keys);
    const Tensor v = with_contiguous_rows(values);
    cpu::bank_attention(rows_of(q), rows_of(b), rows_of(v), float(scale), out.mutable_data_ptr<float>());
  }
  return out;
}

#ifdef CFR_FAST_CUDA
Tensor topk_attention_cuda(const Tensor& query, const Tensor& keys, const Tensor& values, const Tensor& index,
                           double scale, const std::optional<Tensor>& count, int64_t stream) {
  check_bank("topk_attention", query, keys, values);
  const int64_t* const real = check_count("topk_attention", count, query);
  check_lists("topk_attention", index, query);
  const Tensor out = empty_like_device(query, query.size(0), values.size(1), ScalarType::Float);
  if (out.numel() > 0) {
    const Tensor q = with_contiguous_rows(query), b = with_contiguous_rows(keys);
    const Tensor v = with_contiguous_rows(values), list = torch::stable::contiguous(index);
    const cpu::Lists attention = {rows_of(q), rows_of(b), rows_of(v), list.const_data_ptr<int64_t>(), list.size(1)};
    cuda::topk_attention(attention, float(scale), real, out.mutable_data_ptr<float>(), query.get_device_index(),
                         reinterpret_cast<void*>(stream));
  }
  return out;
}

Tensor bank_attention_cuda(const Tensor& query, const Tensor& keys, const Tensor& values, double scale,
                           int64_t stream) {
  check_bank_attention(query, keys, values);
  const Tensor out = empty_like_device(query, query.size(0), values.size(1), ScalarType::Float);
  if (out.numel() > 0) {
    const Tensor q = with_contiguous_rows(query), b = with_contiguous_rows(keys);
    const Tensor v = with_contiguous_rows(values);
    const int device = query.get_device_index();
    const int64_t bytes = cuda::bank_attention_scratch(rows_of(q), rows_of(b), rows_of(v), device);
    const Tensor scratch = bytes_like_device(query, bytes);
    cuda::bank_attention(rows_of(q), rows_of(b), rows_of(v), float(scale), scratch.mutable_data_ptr(),
                         out.mutable_data_ptr<float>(), device, reinterpret_cast<void*>(stream));
  }
  return out;
}
#endif

}  // namespace
}  // namespace cfr

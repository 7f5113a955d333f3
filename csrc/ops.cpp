// Every op's schema, its argument checks and the kernel behind it.
//
// Fake implementations and gradients live in Python (cfr_fast/ops). CUDA kernels take the stream as an integer,
// which Python reads when the kernel runs: the stable ABI of torch 2.11 has no handle for it.
#include <optional>
#include <tuple>

#include "common.h"
#include "token_ops.h"

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

// What covers the rows already, whole and contiguous; `points` in its place when there is nothing.
Tensor check_farthest_point_sample(const Tensor& points, int64_t count,
                                   const std::optional<Tensor>& initial_distance) {
  const char* op = "farthest_point_sample";
  check_float_matrix(op, "points", points);
  CFR_CHECK(count >= 0 && count <= points.size(0), op, "count", "0 to the number of rows", count);
  if (!initial_distance) return points;
  const Tensor& initial = *initial_distance;
  const char* name = "initial_distance";
  CFR_CHECK(initial.scalar_type() == ScalarType::Float, op, name, "float32", "another dtype");
  CFR_CHECK(initial.dim() == 1 && initial.size(0) == points.size(0), op, name, "one value per row",
            shape_of(initial));
  check_same_device(op, name, initial, points);
  return torch::stable::contiguous(initial);
}

Tensor farthest_point_sample(const Tensor& points, int64_t count,
                             const std::optional<Tensor>& initial_distance) {
  const Tensor initial = check_farthest_point_sample(points, count, initial_distance);
  const Tensor index = torch::stable::empty({count}, ScalarType::Long, std::nullopt, points.device());
  if (count > 0) {
    const Tensor p = with_contiguous_rows(points);
    const float* covered = initial_distance ? initial.const_data_ptr<float>() : nullptr;
    cpu::farthest_point_sample(rows_of(p), covered, count, index.mutable_data_ptr<int64_t>());
  }
  return index;
}

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

// `index` as contiguous memory, every number in it a row of `keys`.
Tensor checked_lists(const char* op, const Tensor& index, const Tensor& query, const Tensor& keys) {
  check_lists(op, index, query);
  const Tensor list = torch::stable::contiguous(index);
  const int64_t rows = keys.size(0);
  const int64_t* numbers = list.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < list.numel(); ++i)
    CFR_CHECK(numbers[i] >= 0 && numbers[i] < rows, op, "index", "rows of keys", numbers[i]);
  return list;
}

Tensor topk_attention(const Tensor& query, const Tensor& keys, const Tensor& values, const Tensor& index,
                      double scale) {
  check_bank("topk_attention", query, keys, values);
  const Tensor list = checked_lists("topk_attention", index, query, keys);
  const Tensor out = empty_like_device(query, query.size(0), values.size(1), ScalarType::Float);
  const Tensor q = with_contiguous_rows(query), b = with_contiguous_rows(keys), v = with_contiguous_rows(values);
  const cpu::Lists attention = {rows_of(q), rows_of(b), rows_of(v), list.const_data_ptr<int64_t>(), list.size(1)};
  cpu::topk_attention(attention, float(scale), out.mutable_data_ptr<float>());
  return out;
}

std::tuple<Tensor, Tensor, Tensor> topk_attention_backward(const Tensor& grad, const Tensor& query,
                                                           const Tensor& keys, const Tensor& values,
                                                           const Tensor& index, double scale) {
  const char* op = "topk_attention_backward";
  check_bank(op, query, keys, values);
  check_float_matrix(op, "grad", grad);
  check_same_device(op, "grad", grad, query);
  const bool fits = grad.size(0) == query.size(0) && grad.size(1) == values.size(1);
  CFR_CHECK(fits, op, "grad", "a row for every query, a column for every one of values", shape_of(grad));
  const Tensor list = checked_lists(op, index, query, keys);
  const Tensor grad_query = empty_like_device(query, query.size(0), query.size(1), ScalarType::Float);
  const Tensor grad_keys = empty_like_device(keys, keys.size(0), keys.size(1), ScalarType::Float);
  const Tensor grad_values = empty_like_device(values, values.size(0), values.size(1), ScalarType::Float);
  const Tensor q = with_contiguous_rows(query), b = with_contiguous_rows(keys), v = with_contiguous_rows(values);
  const Tensor g = with_contiguous_rows(grad);
  const cpu::Lists attention = {rows_of(q), rows_of(b), rows_of(v), list.const_data_ptr<int64_t>(), list.size(1)};
  cpu::topk_attention_backward(attention, float(scale), rows_of(g), grad_query.mutable_data_ptr<float>(),
                               grad_keys.mutable_data_ptr<float>(), grad_values.mutable_data_ptr<float>());
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
                           double scale, int64_t stream) {
  check_bank("topk_attention", query, keys, values);
  check_lists("topk_attention", index, query);
  const Tensor out = empty_like_device(query, query.size(0), values.size(1), ScalarType::Float);
  if (out.numel() > 0) {
    const Tensor q = with_contiguous_rows(query), b = with_contiguous_rows(keys);
    const Tensor v = with_contiguous_rows(values), list = torch::stable::contiguous(index);
    const cpu::Lists attention = {rows_of(q), rows_of(b), rows_of(v), list.const_data_ptr<int64_t>(), list.size(1)};
    cuda::topk_attention(attention, float(scale), out.mutable_data_ptr<float>(), query.get_device_index(),
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
    const int64_t floats = cuda::bank_attention_scratch(query.size(0), keys.size(0), values.size(1));
    const Tensor scratch = empty_like_device(query, 1, floats, ScalarType::Float);
    cuda::bank_attention(rows_of(q), rows_of(b), rows_of(v), float(scale), scratch.mutable_data_ptr<float>(),
                         out.mutable_data_ptr<float>(), query.get_device_index(), reinterpret_cast<void*>(stream));
  }
  return out;
}
#endif

void check_clouds(const char* op, const Tensor& points, const Tensor& centers) {
  check_float_matrix(op, "points", points);
  check_float_matrix(op, "centers", centers);
  check_same_device(op, "centers", centers, points);
  CFR_CHECK(points.size(1) == 3, op, "points", "3 columns", shape_of(points));
  CFR_CHECK(centers.size(1) == 3, op, "centers", "3 columns", shape_of(centers));
}

void check_three_nn(const Tensor& points, const Tensor& centers) {
  check_clouds("three_nn", points, centers);
  CFR_CHECK(centers.size(0) >= 3, "three_nn", "centers", "at least 3 rows", shape_of(centers));
}

std::tuple<Tensor, Tensor> three_nn(const Tensor& points, const Tensor& centers) {
  check_three_nn(points, centers);
  const Tensor index = empty_like_device(points, points.size(0), 3, ScalarType::Long);
  const Tensor weight = empty_like_device(points, points.size(0), 3, ScalarType::Float);
  const Tensor p = with_contiguous_rows(points), c = with_contiguous_rows(centers);
  cpu::three_nn(rows_of(p), rows_of(c), index.mutable_data_ptr<int64_t>(), weight.mutable_data_ptr<float>());
  return {index, weight};
}

void check_knn(const Tensor& points, const Tensor& centers, int64_t k) {
  check_clouds("knn", points, centers);
  CFR_CHECK(k >= 0 && k <= points.size(0), "knn", "k", "0 to the number of points", k);
  CFR_CHECK(points.size(0) <= UINT32_MAX, "knn", "points", "fewer than 2^32 rows", shape_of(points));
}

Tensor knn(const Tensor& points, const Tensor& centers, int64_t k) {
  check_knn(points, centers, k);
  const Tensor index = empty_like_device(points, centers.size(0), k, ScalarType::Long);
  if (index.numel() > 0) {
    const Tensor p = with_contiguous_rows(points), c = with_contiguous_rows(centers);
    cpu::knn(rows_of(p), rows_of(c), k, index.mutable_data_ptr<int64_t>());
  }
  return index;
}

#ifdef CFR_FAST_CUDA
Tensor bytes_like_device(const Tensor& like, int64_t count) {
  return torch::stable::empty({count}, ScalarType::Byte, std::nullopt, like.device());
}

// Row numbers are 32 bits wide on the device, up to the end of the last tile.
void check_few_rows(const char* op, const char* argument, const Tensor& tensor) {
  CFR_CHECK(tensor.size(0) < INT32_MAX - 512, op, argument, "fewer than 2^31 - 513 rows on CUDA", shape_of(tensor));
}

std::tuple<Tensor, Tensor> topk_cosine_cuda(const Tensor& query, const Tensor& keys, int64_t k,
                                            int64_t stream) {
  check_topk_cosine(query, keys, k);
  check_few_rows("topk_cosine", "query", query);
  check_few_rows("topk_cosine", "keys", keys);
  const Tensor similarity = empty_like_device(query, query.size(0), k, ScalarType::Float);
  const Tensor index = empty_like_device(query, query.size(0), k, ScalarType::Long);
  if (index.numel() > 0) {
    const Tensor q = with_contiguous_rows(query), b = with_contiguous_rows(keys);
    const int device = query.get_device_index();
    const Tensor scratch = bytes_like_device(query, cuda::topk_cosine_scratch(rows_of(q), rows_of(b), k, device));
    cuda::topk_cosine(rows_of(q), rows_of(b), k, scratch.mutable_data_ptr(), similarity.mutable_data_ptr<float>(),
                      index.mutable_data_ptr<int64_t>(), device, reinterpret_cast<void*>(stream));
  }
  return {similarity, index};
}

Tensor farthest_point_sample_cuda(const Tensor& points, int64_t count,
                                  const std::optional<Tensor>& initial_distance, int64_t stream) {
  const char* op = "farthest_point_sample";
  const Tensor initial = check_farthest_point_sample(points, count, initial_distance);
  CFR_CHECK(points.size(0) < UINT32_MAX, op, "points", "fewer than 2^32 - 1 rows", shape_of(points));
  const Tensor index = torch::stable::empty({count}, ScalarType::Long, std::nullopt, points.device());
  if (count > 0) {
    const Tensor p = with_contiguous_rows(points);
    const Tensor anchor = empty_like_device(points, 1, points.size(0), ScalarType::Float);
    const float* covered = initial_distance ? initial.const_data_ptr<float>() : nullptr;
    cuda::farthest_point_sample(rows_of(p), covered, count, anchor.mutable_data_ptr<float>(),
                                index.mutable_data_ptr<int64_t>(), points.get_device_index(),
                                reinterpret_cast<void*>(stream));
  }
  return index;
}

std::tuple<Tensor, Tensor> three_nn_cuda(const Tensor& points, const Tensor& centers, int64_t stream) {
  check_three_nn(points, centers);
  CFR_CHECK(centers.size(0) < UINT32_MAX, "three_nn", "centers", "fewer than 2^32 - 1 rows", shape_of(centers));
  const Tensor index = empty_like_device(points, points.size(0), 3, ScalarType::Long);
  const Tensor weight = empty_like_device(points, points.size(0), 3, ScalarType::Float);
  if (index.numel() > 0) {
    const Tensor p = with_contiguous_rows(points), c = with_contiguous_rows(centers);
    cuda::three_nn(rows_of(p), rows_of(c), index.mutable_data_ptr<int64_t>(), weight.mutable_data_ptr<float>(),
                   points.get_device_index(), reinterpret_cast<void*>(stream));
  }
  return {index, weight};
}

Tensor knn_cuda(const Tensor& points, const Tensor& centers, int64_t k, int64_t stream) {
  check_knn(points, centers, k);
  CFR_CHECK(k <= kMaxNeighbours, "knn", "k", "at most 3072 on a CUDA device", k);
  CFR_CHECK(centers.size(0) <= INT32_MAX, "knn", "centers", "fewer than 2^31 rows", shape_of(centers));
  const Tensor index = empty_like_device(points, centers.size(0), k, ScalarType::Long);
  if (index.numel() > 0) {
    const Tensor p = with_contiguous_rows(points), c = with_contiguous_rows(centers);
    cuda::knn(rows_of(p), rows_of(c), k, index.mutable_data_ptr<int64_t>(), points.get_device_index(),
              reinterpret_cast<void*>(stream));
  }
  return index;
}
#endif

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

Tensor confidence_filter(const Tensor& query, const Tensor& bank, double threshold,
                         const std::optional<Tensor>& valid) {
  const std::optional<Tensor> mask = check_confidence_filter(query, bank, threshold, valid);
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

#ifdef CFR_FAST_CUDA
Tensor confidence_filter_cuda(const Tensor& query, const Tensor& bank, double threshold,
                              const std::optional<Tensor>& valid, int64_t stream) {
  const std::optional<Tensor> mask = check_confidence_filter(query, bank, threshold, valid);
  check_few_rows("confidence_filter", "query", query);
  check_few_rows("confidence_filter", "bank", bank);
  Tensor index = torch::stable::empty({query.size(0)}, ScalarType::Long, std::nullopt, query.device());
  if (query.size(0) == 0) return index;
  const int device = query.get_device_index();
  const Tensor q = with_contiguous_rows(query), b = with_contiguous_rows(bank);
  const Tensor scratch = bytes_like_device(query, cuda::confidence_filter_scratch(rows_of(q), rows_of(b), device));
  const bool* among = mask ? mask->const_data_ptr<bool>() : nullptr;
  const int64_t count =
      cuda::confidence_filter(rows_of(q), rows_of(b), threshold, among, scratch.mutable_data_ptr(),
                              index.mutable_data_ptr<int64_t>(), device, reinterpret_cast<void*>(stream));
  return torch::stable::narrow(index, 0, 0, count);
}
#endif

}  // namespace
}  // namespace cfr

// Tests build the CUDA kernels for the CPU; those then live in a namespace of their own beside the real library.
#ifdef CFR_EMULATION
#define CFR_NAMESPACE cfr_emulated
#define CFR_CUDA_KEY CPU
#else
#define CFR_NAMESPACE cfr_fast
#define CFR_CUDA_KEY CUDA
#endif
#define CFR_LIBRARY(name, m) STABLE_TORCH_LIBRARY(name, m)
#define CFR_LIBRARY_IMPL(name, key, m) STABLE_TORCH_LIBRARY_IMPL(name, key, m)

CFR_LIBRARY(CFR_NAMESPACE, m) {
  m.def("topk_cosine(Tensor query, Tensor keys, int k) -> (Tensor, Tensor)");
  m.def("confidence_filter(Tensor query, Tensor bank, float threshold, Tensor? valid=None) -> Tensor");
  m.def(
      "replace_and_score(Tensor rgb_predicted, Tensor rgb_tokens, Tensor rgb_offset, Tensor rgb_source, Tensor "
      "rgb_weight, Tensor xyz_predicted, Tensor xyz_tokens, Tensor xyz_offset, Tensor xyz_source, Tensor xyz_weight, "
      "Tensor replacement, Tensor replaced, Tensor valid) -> Tensor");
  m.def("interpolate_tokens(Tensor tokens, Tensor offset, Tensor source, Tensor weight) -> Tensor");
  m.def(
      "geglu_map(Tensor projected, Tensor offset, Tensor source, Tensor weight, Tensor bias, Tensor out_weight, "
      "Tensor out_bias) -> Tensor");
  m.def(
      "topk_interpolated(Tensor tokens, Tensor offset, Tensor source, Tensor weight, Tensor keys, int k) -> Tensor");
  m.def("farthest_point_sample(Tensor points, int count, Tensor? initial_distance=None) -> Tensor");
  m.def("three_nn(Tensor points, Tensor centers) -> (Tensor, Tensor)");
  m.def("knn(Tensor points, Tensor centers, int k) -> Tensor");
  m.def("topk_attention(Tensor query, Tensor keys, Tensor values, Tensor index, float scale) -> Tensor");
  m.def(
      "topk_attention_backward(Tensor grad, Tensor query, Tensor keys, Tensor values, Tensor index, float scale) "
      "-> (Tensor, Tensor, Tensor)");
  m.def("bank_attention(Tensor query, Tensor keys, Tensor values, float scale) -> Tensor");
#ifdef CFR_FAST_CUDA
  m.def("topk_cosine_cuda(Tensor query, Tensor keys, int k, int stream) -> (Tensor, Tensor)");
  m.def("confidence_filter_cuda(Tensor query, Tensor bank, float threshold, Tensor? valid, int stream) -> Tensor");
  m.def("farthest_point_sample_cuda(Tensor points, int count, Tensor? initial_distance, int stream) -> Tensor");
  m.def("three_nn_cuda(Tensor points, Tensor centers, int stream) -> (Tensor, Tensor)");
  m.def("knn_cuda(Tensor points, Tensor centers, int k, int stream) -> Tensor");
  m.def(
      "interpolate_tokens_cuda(Tensor tokens, Tensor offset, Tensor source, Tensor weight, int stream) -> Tensor");
  m.def(
      "geglu_map_cuda(Tensor projected, Tensor offset, Tensor source, Tensor weight, Tensor bias, Tensor out_weight, "
      "Tensor out_bias, int stream) -> Tensor");
  m.def(
      "topk_interpolated_cuda(Tensor tokens, Tensor offset, Tensor source, Tensor weight, Tensor keys, int k, int "
      "stream) -> Tensor");
  m.def(
      "replace_and_score_cuda(Tensor rgb_predicted, Tensor rgb_tokens, Tensor rgb_offset, Tensor rgb_source, Tensor "
      "rgb_weight, Tensor xyz_predicted, Tensor xyz_tokens, Tensor xyz_offset, Tensor xyz_source, Tensor xyz_weight, "
      "Tensor replacement, Tensor replaced, Tensor valid, int stream) -> Tensor");
  m.def(
      "topk_attention_cuda(Tensor query, Tensor keys, Tensor values, Tensor index, float scale, int stream) "
      "-> Tensor");
  m.def("bank_attention_cuda(Tensor query, Tensor keys, Tensor values, float scale, int stream) -> Tensor");
#endif
}

CFR_LIBRARY_IMPL(CFR_NAMESPACE, CPU, m) {
  m.impl("topk_cosine", TORCH_BOX(&cfr::topk_cosine));
  m.impl("confidence_filter", TORCH_BOX(&cfr::confidence_filter));
  m.impl("replace_and_score", TORCH_BOX(&cfr::replace_and_score));
  m.impl("interpolate_tokens", TORCH_BOX(&cfr::interpolate_tokens));
  m.impl("geglu_map", TORCH_BOX(&cfr::geglu_map));
  m.impl("topk_interpolated", TORCH_BOX(&cfr::topk_interpolated));
  m.impl("farthest_point_sample", TORCH_BOX(&cfr::farthest_point_sample));
  m.impl("three_nn", TORCH_BOX(&cfr::three_nn));
  m.impl("knn", TORCH_BOX(&cfr::knn));
  m.impl("topk_attention", TORCH_BOX(&cfr::topk_attention));
  m.impl("topk_attention_backward", TORCH_BOX(&cfr::topk_attention_backward));
  m.impl("bank_attention", TORCH_BOX(&cfr::bank_attention));
}

#ifdef CFR_FAST_CUDA
CFR_LIBRARY_IMPL(CFR_NAMESPACE, CFR_CUDA_KEY, m) {
  m.impl("topk_cosine_cuda", TORCH_BOX(&cfr::topk_cosine_cuda));
  m.impl("confidence_filter_cuda", TORCH_BOX(&cfr::confidence_filter_cuda));
  m.impl("farthest_point_sample_cuda", TORCH_BOX(&cfr::farthest_point_sample_cuda));
  m.impl("three_nn_cuda", TORCH_BOX(&cfr::three_nn_cuda));
  m.impl("knn_cuda", TORCH_BOX(&cfr::knn_cuda));
  m.impl("interpolate_tokens_cuda", TORCH_BOX(&cfr::interpolate_tokens_cuda));
  m.impl("geglu_map_cuda", TORCH_BOX(&cfr::geglu_map_cuda));
  m.impl("topk_interpolated_cuda", TORCH_BOX(&cfr::topk_interpolated_cuda));
  m.impl("replace_and_score_cuda", TORCH_BOX(&cfr::replace_and_score_cuda));
  m.impl("topk_attention_cuda", TORCH_BOX(&cfr::topk_attention_cuda));
  m.impl("bank_attention_cuda", TORCH_BOX(&cfr::bank_attention_cuda));
}
#endif

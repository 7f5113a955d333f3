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

Tensor farthest_point_sample(const Tensor& points, int64_t count,
                             const std::optional<Tensor>& initial_distance) {
  const char* op = "farthest_point_sample";
  check_float_matrix(op, "points", points);
  CFR_CHECK(count >= 0 && count <= points.size(0), op, "count", "0 to the number of rows", count);
  const Tensor index = torch::stable::empty({count}, ScalarType::Long, std::nullopt, points.device());
  Tensor initial = points;
  if (initial_distance) {
    initial = *initial_distance;
    const char* name = "initial_distance";
    CFR_CHECK(initial.scalar_type() == ScalarType::Float, op, name, "float32", "another dtype");
    CFR_CHECK(initial.dim() == 1 && initial.size(0) == points.size(0), op, name, "one value per row",
              shape_of(initial));
    check_same_device(op, name, initial, points);
    initial = torch::stable::contiguous(initial);
  }
  if (count > 0) {
    const Tensor p = with_contiguous_rows(points);
    const float* covered = initial_distance ? initial.const_data_ptr<float>() : nullptr;
    cpu::farthest_point_sample(rows_of(p), covered, count, index.mutable_data_ptr<int64_t>());
  }
  return index;
}

void check_clouds(const char* op, const Tensor& points, const Tensor& centers) {
  check_float_matrix(op, "points", points);
  check_float_matrix(op, "centers", centers);
  check_same_device(op, "centers", centers, points);
  CFR_CHECK(points.size(1) == 3, op, "points", "3 columns", shape_of(points));
  CFR_CHECK(centers.size(1) == 3, op, "centers", "3 columns", shape_of(centers));
}

std::tuple<Tensor, Tensor> three_nn(const Tensor& points, const Tensor& centers) {
  check_clouds("three_nn", points, centers);
  CFR_CHECK(centers.size(0) >= 3, "three_nn", "centers", "at least 3 rows", shape_of(centers));
  const Tensor index = empty_like_device(points, points.size(0), 3, ScalarType::Long);
  const Tensor weight = empty_like_device(points, points.size(0), 3, ScalarType::Float);
  const Tensor p = with_contiguous_rows(points), c = with_contiguous_rows(centers);
  cpu::three_nn(rows_of(p), rows_of(c), index.mutable_data_ptr<int64_t>(), weight.mutable_data_ptr<float>());
  return {index, weight};
}

Tensor knn(const Tensor& points, const Tensor& centers, int64_t k) {
  check_clouds("knn", points, centers);
  CFR_CHECK(k >= 0 && k <= points.size(0), "knn", "k", "0 to the number of points", k);
  CFR_CHECK(points.size(0) <= UINT32_MAX, "knn", "points", "fewer than 2^32 rows", shape_of(points));
  const Tensor index = empty_like_device(points, centers.size(0), k, ScalarType::Long);
  if (index.numel() > 0) {
    const Tensor p = with_contiguous_rows(points), c = with_contiguous_rows(centers);
    cpu::knn(rows_of(p), rows_of(c), k, index.mutable_data_ptr<int64_t>());
  }
  return index;
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

}  // namespace
}  // namespace cfr

STABLE_TORCH_LIBRARY(cfr_fast, m) {
  m.def("topk_cosine(Tensor query, Tensor keys, int k) -> (Tensor, Tensor)");
  m.def("farthest_point_sample(Tensor points, int count, Tensor? initial_distance=None) -> Tensor");
  m.def("three_nn(Tensor points, Tensor centers) -> (Tensor, Tensor)");
  m.def("knn(Tensor points, Tensor centers, int k) -> Tensor");
#ifdef CFR_FAST_CUDA
  m.def("topk_cosine_cuda(Tensor query, Tensor keys, int k, int stream) -> (Tensor, Tensor)");
#endif
}

STABLE_TORCH_LIBRARY_IMPL(cfr_fast, CPU, m) {
  m.impl("topk_cosine", TORCH_BOX(&cfr::topk_cosine));
  m.impl("farthest_point_sample", TORCH_BOX(&cfr::farthest_point_sample));
  m.impl("three_nn", TORCH_BOX(&cfr::three_nn));
  m.impl("knn", TORCH_BOX(&cfr::knn));
}

#ifdef CFR_FAST_CUDA
STABLE_TORCH_LIBRARY_IMPL(cfr_fast, CUDA, m) {
  m.impl("topk_cosine_cuda", TORCH_BOX(&cfr::topk_cosine_cuda));
}
#endif

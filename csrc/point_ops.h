// The ops on clouds and the coreset: argument checks and the kernels behind them. ops.cpp registers them.
#pragma once

#include <optional>
#include <tuple>

#include "common.h"

namespace cfr {
namespace {

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

}  // namespace
}  // namespace cfr

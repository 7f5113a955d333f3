// What ops.cpp needs on top of LibTorch's stable ABI: argument checks and views of tensors.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <sstream>
#include <string>

#include "kernels.h"

// The one wording of a failed check: op, argument, what was expected, what came.
#define CFR_CHECK(condition, op, argument, expected, got) \
  STD_TORCH_CHECK(condition, op, ": ", argument, ": expected ", expected, ", got ", got)

namespace cfr {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline std::string shape_of(const Tensor& tensor) {
  std::ostringstream text;
  text << "shape [";
  for (int64_t axis = 0; axis < tensor.dim(); ++axis) text << (axis ? ", " : "") << tensor.size(axis);
  text << "]";
  return text.str();
}

inline void check_float_matrix(const char* op, const char* argument, const Tensor& tensor) {
  CFR_CHECK(tensor.scalar_type() == ScalarType::Float, op, argument, "float32", "another dtype");
  CFR_CHECK(tensor.dim() == 2, op, argument, "a matrix", shape_of(tensor));
}

inline void check_mask(const char* op, const char* argument, const Tensor& tensor) {
  CFR_CHECK(tensor.scalar_type() == ScalarType::Bool, op, argument, "bool", "another dtype");
}

inline void check_same_device(const char* op, const char* argument, const Tensor& tensor, const Tensor& like) {
  const bool same =
      tensor.is_cuda() == like.is_cuda() && tensor.get_device_index() == like.get_device_index();
  CFR_CHECK(same, op, argument, "the device of the first argument", "another device");
}

// The tensor itself when its rows are contiguous, else a contiguous copy.
inline Tensor with_contiguous_rows(const Tensor& tensor) {
  const bool fits = tensor.stride(1) == 1 && tensor.stride(0) >= tensor.size(1);
  return fits || tensor.numel() == 0 ? tensor : torch::stable::contiguous(tensor);
}

inline Rows rows_of(const Tensor& matrix) {
  return {matrix.const_data_ptr<float>(), matrix.size(0), matrix.size(1), matrix.stride(0)};
}

inline Tensor empty_like_device(const Tensor& like, int64_t rows, int64_t cols, ScalarType dtype) {
  return torch::stable::empty({rows, cols}, dtype, std::nullopt, like.device());
}

}  // namespace cfr

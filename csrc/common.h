// What ops.cpp needs on top of LibTorch's stable ABI: argument checks and views of tensors.
#pragma once

#include "torch_abi.h"  // first

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

inline void check_vector(const char* op, const char* argument, const Tensor& tensor, ScalarType dtype,
                         int64_t size) {
  const bool fits = tensor.scalar_type() == dtype && tensor.dim() == 1 && tensor.size(0) == size;
  CFR_CHECK(fits, op, argument, (dtype == ScalarType::Long ? "int64 [" : "float32 [") + std::to_string(size) + "]",
            shape_of(tensor));
}

// The entries of an interpolation. A kernel reads wherever they point, so where values can be read they are checked.
struct InterpolationTensors {
  Tensor offset, source, weight;

  InterpolationTensors(const char* op, const Tensor& tokens, const Tensor& offsets, const Tensor& sources,
                       const Tensor& weights)
      : offset(torch::stable::contiguous(offsets)),
        source(torch::stable::contiguous(sources)),
        weight(torch::stable::contiguous(weights)) {
    for (const Tensor* item : {&offset, &source, &weight}) check_same_device(op, "interpolation", *item, tokens);
    CFR_CHECK(offset.dim() == 1 && offset.size(0) > 0, op, "offset", "a vector with one more than pixels",
              shape_of(offset));
    check_vector(op, "offset", offset, ScalarType::Long, offset.size(0));
    check_vector(op, "source", source, ScalarType::Long, source.numel());
    check_vector(op, "weight", weight, ScalarType::Float, source.numel());
  }

  // On the CPU only: elsewhere reading the values would wait for the device.
  void check_values(const char* op, const Tensor& tokens) const {
    const int64_t* starts = offset.const_data_ptr<int64_t>();
    const int64_t* rows = source.const_data_ptr<int64_t>();
    int64_t before = 0;
    for (int64_t pixel = 0; pixel < offset.size(0); before = starts[pixel++])
      CFR_CHECK(starts[pixel] >= before && (pixel || starts[0] == 0), op, "offset", "ascending numbers from 0",
                starts[pixel]);
    CFR_CHECK(before <= source.numel(), op, "offset", "at most the number of entries as its last", before);
    for (int64_t entry = 0; entry < before; ++entry)
      CFR_CHECK(rows[entry] >= 0 && rows[entry] < tokens.size(0), op, "source", "rows of tokens", rows[entry]);
  }

  Interpolation view() const {
    return {offset.const_data_ptr<int64_t>(), source.const_data_ptr<int64_t>(), weight.const_data_ptr<float>(),
            offset.size(0) - 1};
  }
};

inline Tensor empty_like_device(const Tensor& like, int64_t rows, int64_t cols, ScalarType dtype) {
  return torch::stable::empty({rows, cols}, dtype, std::nullopt, like.device());
}

#ifdef CFR_FAST_CUDA
inline Tensor bytes_like_device(const Tensor& like, int64_t count) {
  return torch::stable::empty({count}, ScalarType::Byte, std::nullopt, like.device());
}
#endif

}  // namespace cfr

// Lists of rows whose number only the device may know: `rows` names them, `count` says how many are real. Their
// buffers keep one size whatever the data, so that a step of several ops can be recorded once and run again.
#pragma once

#include <algorithm>
#include <optional>
#include <vector>

#include "common.h"

namespace cfr {

// Where the number of real rows stands: one int64 on their device; null: all are real.
inline const int64_t* check_count(const char* op, const std::optional<Tensor>& count, const Tensor& like) {
  if (!count) return nullptr;
  check_vector(op, "count", *count, ScalarType::Long, 1);
  check_same_device(op, "count", *count, like);
  return count->const_data_ptr<int64_t>();
}

// How many of `rows` are real. On the CPU only: elsewhere reading the number would wait for the device.
inline int64_t real_rows(const char* op, const int64_t* count, int64_t rows) {
  if (!count) return rows;
  CFR_CHECK(*count >= 0 && *count <= rows, op, "count", "0 to the number of rows", *count);
  return *count;
}

// Zeros from row `first` of a contiguous matrix on the CPU.
template <class T>
void clear_rows(const Tensor& matrix, int64_t first) {
  T* data = matrix.mutable_data_ptr<T>();
  std::fill(data + first * matrix.size(1), data + matrix.numel(), T(0));
}

// The pixels that are asked for, of an interpolation of `pixels`.
struct ListedTensors {
  std::optional<Tensor> rows;
  Listed view;

  ListedTensors(const char* op, int64_t pixels, const std::optional<Tensor>& list, const std::optional<Tensor>& count,
                const Tensor& like) {
    if (list) {
      check_vector(op, "rows", *list, ScalarType::Long, list->numel());
      check_same_device(op, "rows", *list, like);
      rows = torch::stable::contiguous(*list);
    }
    view = {rows ? rows->const_data_ptr<int64_t>() : nullptr, check_count(op, count, like),
            rows ? rows->numel() : pixels};
  }
};

// The real ones of them as an interpolation of their own, for the CPU: entries are few, and copied where listed.
class ListedPixels {
 public:
  ListedPixels(const char* op, const Interpolation& all, const Listed& list)
      : view_{all.offset, all.source, all.weight, real_rows(op, list.count, list.size)} {
    if (!list.rows) return;
    offset_.push_back(0);
    for (int64_t i = 0; i < view_.pixels; ++i) {
      const int64_t row = list.rows[i];
      CFR_CHECK(row >= 0 && row < all.pixels, op, "rows", "numbers of pixels", row);
      source_.insert(source_.end(), all.source + all.offset[row], all.source + all.offset[row + 1]);
      weight_.insert(weight_.end(), all.weight + all.offset[row], all.weight + all.offset[row + 1]);
      offset_.push_back(static_cast<int64_t>(source_.size()));
    }
    view_ = {offset_.data(), source_.data(), weight_.data(), view_.pixels};
  }
  ListedPixels(const ListedPixels&) = delete;
  ListedPixels& operator=(const ListedPixels&) = delete;

  const Interpolation& view() const { return view_; }

 private:
  std::vector<int64_t> offset_, source_;
  std::vector<float> weight_;
  Interpolation view_;
};

}  // namespace cfr
